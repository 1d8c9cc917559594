/* gpu_report.c: `vitreous gpu-report`: what the GPU kernels do and how long they are predicted to
 * take, per device, without a GPU. The model runs on gpusim (VL_CUDA_DRIVER, or the one that `make
 * gpusim` built beside this program).
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/gpu_report.h"

static const char *const GPUS[] = {"T4", "A10", "A100", "H100", "RTX4090", "B200", NULL};

/* VL_CUDA_DRIVER names gpusim: as given, or BUILD/../gpusim/libcuda.so.1. */
static int find_gpusim(void) {
    char path[4096];
    const char *given = getenv("VL_CUDA_DRIVER");
    if (given && *given) return 0;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
    path[n > 0 ? n : 0] = '\0';
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(path, '/');
        if (slash) *slash = '\0';
    }
    strcat(path, "/gpusim/libcuda.so.1");
    if (access(path, R_OK))
        return cli_usage("gpu-report needs gpusim: run make gpusim (x86-64 only), or name its "
                         "libcuda.so.1 in VL_CUDA_DRIVER");
    setenv("VL_CUDA_DRIVER", path, 1);
    return 0;
}

static void remove_folder(const char *dir) {
    DIR *d = opendir(dir);
    char path[4400];
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.') unlink(path);
    }
    if (d) closedir(d);
    rmdir(dir);
}

static int write_report(const json_t *root, bool json, bool md, const char *html) {
    doc d;
    int rc;
    doc_begin(&d, "vitreous gpu-report");
    gpu_show(root, &d);
    if (json) rc = json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    else rc = doc_write(&d, md ? DOC_MD : DOC_TEXT, stdout);
    if (json) putchar('\n');
    if (!rc && html) rc = doc_write_file(&d, DOC_HTML, html);
    doc_end(&d);
    return rc ? CLI_BAD : 0;
}

static int run_all(const gpu_request *r, const cli_list *gpus, json_t *root) {
    int rc = 0, n = gpus->n ? gpus->n : (int)(sizeof GPUS / sizeof *GPUS) - 1;
    for (int i = 0; i < gpus->n; i++)
        if (cli_choice(gpus->v[i], GPUS) < 0)
            return cli_usage("--gpu: expected T4, A10, A100, H100, RTX4090 or B200, got \"%s\"",
                             gpus->v[i]);
    for (int i = 0; !rc && i < n; i++) {
        const char *gpu = gpus->n ? gpus->v[i] : GPUS[i];
        fprintf(stderr, "%s on gpusim\n", gpu);
        rc = gpu_run(r, gpu, root);
    }
    return rc;
}

int cmd_gpu_report(int argc, char **argv) {
    gpu_request r = {.common = {.backend = "cuda", .dtype = "bf16"}};
    const char *size = "448x448", *html = NULL, *tmp = getenv("TMPDIR");
    int64_t text_tokens = 24;
    bool json = false, md = false;
    cli_list gpus = {0};
    char dir[4096];
    const cli_option options[] = {
        {"model", 'm', CLI_STR, &r.common.model, "DIR", "checkpoint folder (default: the demo model)", 0, 0},
        {"like", 0, CLI_STR, &r.like, "SHAPE", "instead: 2b, 4b, 8b, 32b or a config.json, of zeros", 0, 0},
        {"gpu", 0, CLI_LIST, &gpus, "NAME", "T4, A10, A100, H100, RTX4090, B200 (default: all)", 0, 0},
        {"size", 0, CLI_STR, &size, "WxH", "the picture; text: none (default 448x448)", 0, 0},
        {"text-tokens", 0, CLI_INT, &text_tokens, "N", "prompt beside the picture (default 24)", 12, 4096},
        {"every-launch", 0, CLI_FLAG, &r.every_launch, NULL, "run equal launches too: slow, results are real", 0, 0},
        {"json", 0, CLI_FLAG, &json, NULL, "every counter as JSON", 0, 0},
        {"md", 0, CLI_FLAG, &md, NULL, "Markdown", 0, 0},
        {"html", 0, CLI_STR, &html, "FILE", "also a page with plots", 0, 0},
        {0},
    };
    int rc = cli_parse("gpu-report [-m DIR | --like 2b] [--gpu NAME]",
                       "Counters and predicted times of the GPU kernels, from gpusim; needs no GPU.",
                       options, argc, argv, NULL);
    if (rc >= 0) return rc;
    r.c.text_tokens = (int)text_tokens;
    snprintf(r.c.name, sizeof r.c.name, "%s", size);
    if (strcmp(size, "text") && (sscanf(size, "%dx%d", &r.c.width, &r.c.height) != 2 ||
                                 r.c.width < 32 || r.c.height < 32 || r.c.width > 2048 || r.c.height > 2048))
        return cli_usage("--size wants WIDTHxHEIGHT (32 to 2048) or text, not \"%s\"", size);
    if ((rc = find_gpusim()) != 0) return rc;
    snprintf(dir, sizeof dir, "%s/vitreous-gpu-XXXXXX", tmp && *tmp ? tmp : "/var/tmp");
    if (r.like && !mkdtemp(dir)) return cli_usage("%s: no folder can be made (see TMPDIR)", dir);
    if (r.like) rc = cli_random_checkpoint(r.like, 0, true, dir);
    if (r.like) r.common.model = dir;
    json_t *root = json_pack("{s:s,s:[]}", "kind", "vitreous gpu-report", "gpus");
    if (!rc) rc = run_all(&r, &gpus, root);
    if (r.like) remove_folder(dir);
    if (!rc) rc = write_report(root, json, md, html);
    json_decref(root);
    free(gpus.v);
    return rc;
}
