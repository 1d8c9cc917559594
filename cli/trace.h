/* trace.h: every named tensor of one request, collected in memory; for trace and verify. */
#ifndef VL_CLI_TRACE_H
#define VL_CLI_TRACE_H

#include "cli/cli.h"
#include "loader/checkpoint.h"

typedef struct cli_tensor {
    char name[128];
    int rank;
    int64_t shape[3];
    bool is_int;           /* I64, else F32                                                */
    void *data;
} cli_tensor;
typedef struct cli_trace {
    cli_tensor *v;
    size_t n;
    bool failed;           /* memory ran out                                               */
} cli_trace;

typedef struct cli_trace_request {
    const cli_list *images;
    const char *text;
    vl_picture_params picture;
    vl_sampling sampling;
    int speculate;         /* as in vl_session_params                                         */
    int max_rows;          /* prefill chunk; 0: the session's default                      */
} cli_trace_request;

/* One user turn, pictures first, answered; the tensors are those of vl_session_trace. 0 or the exit
 * code. */
int cli_trace_run(cli_trace *out, vl_model *m, const cli_trace_request *r);
const cli_tensor *cli_trace_find(const cli_trace *t, const char *name);
int64_t cli_tensor_count(const cli_tensor *t);
void cli_trace_clear(cli_trace *t);

#endif
