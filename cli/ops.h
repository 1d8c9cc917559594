/* ops.h: `run --ops`: where the time of one real request goes, op by op, beside the machine's peaks. */
#ifndef VL_CLI_OPS_H
#define VL_CLI_OPS_H

#include "cli/cli.h"

/* Answers as cli_answer_one() does, with every op timed, and writes the table to `path` (form by its
 * ending: .md, .json, .csv, .html; else text; "-": text to stderr). 0 or the exit code. */
int cli_ops_run(vl_model *m, const vl_prompt *p, const vl_sampling *s, cli_answer *a, const char *path);

#endif
