/* trace.c: gathers every named tensor of one request, whole (all chunks, all pictures), and hands
 * each out once, named as its HF module. Order: inputs, then as computed, then generated_ids. */
#include <stdio.h>
#include <stdlib.h>

#include "model/session.h"

typedef struct tensor {
    char name[96];
    float *data;                 /* [rows, cols] so far */
    size_t rows, cols, cap;
} tensor;

struct vl_trace {
    void (*fn)(void *user, const vl_tap *tap);
    void *user;
    bool collecting, failed;     /* failed: memory ran out, the request ends in an error */
    tensor *v;
    size_t n, cap;
};

static void hand_f32(struct vl_trace *t, const char *name, const float *x, size_t rows, size_t cols) {
    vl_tap tap = {.name = name, .rank = 2, .shape = {(int64_t)rows, (int64_t)cols}, .f32 = x};
    t->fn(t->user, &tap);
}

static tensor *find(struct vl_trace *t, const char *name, size_t cols) {
    for (size_t i = 0; i < t->n; i++)
        if (!strcmp(t->v[i].name, name)) return &t->v[i];
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        tensor *grown = realloc(t->v, cap * sizeof *grown);
        if (!grown) return NULL;
        t->v = grown;
        t->cap = cap;
    }
    tensor *x = &t->v[t->n++];
    *x = (tensor){.cols = cols};
    snprintf(x->name, sizeof x->name, "%s", name);
    return x;
}

static void collect(void *user, const char *name, int layer, const float *host, int rows, int cols) {
    struct vl_trace *t = user;
    char full[96];
    if (layer < 0) snprintf(full, sizeof full, "%s", name);
    else snprintf(full, sizeof full, "%s.%d", name, layer);
    tensor *x = find(t, full, (size_t)cols);
    if (!host) x = NULL;
    size_t need = x ? x->rows + (size_t)rows : 0;
    if (x && need > x->cap) {
        size_t cap = 2 * need;
        float *grown = realloc(x->data, cap * x->cols * sizeof *grown);
        if (grown) {
            x->data = grown;
            x->cap = cap;
        } else {
            x = NULL;
        }
    }
    if (!x) {
        t->failed = true;
        return;
    }
    memcpy(x->data + x->rows * x->cols, host, (size_t)rows * x->cols * sizeof *host);
    x->rows = need;
}

static void clear(struct vl_trace *t) {
    for (size_t i = 0; i < t->n; i++) free(t->v[i].data);
    t->n = 0;
    t->collecting = false;
}

void vl_trace_free(struct vl_trace *t) {
    if (!t) return;
    clear(t);
    free(t->v);
    free(t);
}

int vl_session_trace(vl_session *s, void (*fn)(void *user, const vl_tap *tap), void *user,
                     vl_err *err) {
    if (s->trace) { /* else the tap, which all sessions of the model share, may be another's */
        vl_ops_tap_set(s->m->tap, NULL, NULL);
        vl_trace_free(s->trace);
        s->trace = NULL;
    }
    if (!fn) return 0;
    s->trace = vl_calloc(1, sizeof *s->trace);
    if (!s->trace) return vl_fail(err, VL_E_NOMEM, "no memory for a trace");
    s->trace->fn = fn;
    s->trace->user = user;
    return 0;
}

/* pixel_values of all pictures in one tensor, as HF's processor returns them. */
static void hand_pictures(struct vl_trace *t, const vl_request *r) {
    for (int i = 0; i < r->n_pictures; i++) {
        const vl_picture *p = r->pictures[i];
        collect(t, "pixel_values", -1, p->values, p->patches, p->width);
    }
    if (!r->n_pictures) return;
    int64_t *grid = vl_calloc((size_t)r->n_pictures, 3 * sizeof *grid);
    if (!grid) {
        t->failed = true;
        return;
    }
    for (int i = 0; i < r->n_pictures; i++) {
        const vl_picture_info *info = &r->pictures[i]->info;
        grid[3 * i] = info->grid_t;
        grid[3 * i + 1] = info->grid_h;
        grid[3 * i + 2] = info->grid_w;
    }
    vl_tap tap = {.name = "image_grid_thw", .rank = 2, .shape = {r->n_pictures, 3}, .i64 = grid};
    t->fn(t->user, &tap);
    free(grid);
}

static void hand_i64(struct vl_trace *t, const char *name, const int32_t *v, int rows, int n) {
    int64_t *wide = vl_calloc((size_t)rows * (size_t)n, sizeof *wide);
    if (!wide) {
        t->failed = true;
        return;
    }
    for (size_t i = 0; i < (size_t)rows * (size_t)n; i++) wide[i] = v[i];
    vl_tap tap = {.name = name, .rank = rows > 1 ? 2 : 1, .shape = {rows > 1 ? rows : n, n}, .i64 = wide};
    t->fn(t->user, &tap);
    free(wide);
}

void vl_trace_begin(vl_request *r) {
    struct vl_trace *t = r->s->trace;
    if (!t) return;
    clear(t);
    t->failed = false;
    hand_pictures(t, r);
    hand_i64(t, "input_ids", r->ids, 1, r->n_prompt);
    hand_i64(t, "position_ids", r->positions, 3, r->n_prompt);
    t->collecting = true;
    vl_ops_tap_set(r->s->m->tap, collect, t);
}

bool vl_trace_failed(const vl_session *s) { return s->trace && s->trace->failed; }

bool vl_trace_collecting(const vl_session *s) { return s->trace && s->trace->collecting; }

void vl_trace_prompt_done(vl_request *r) {
    struct vl_trace *t = r->s->trace;
    if (!vl_trace_collecting(r->s)) return;
    vl_ops_tap_set(r->s->m->tap, NULL, NULL);
    for (size_t i = 0; i < t->n && !t->failed; i++)
        hand_f32(t, t->v[i].name, t->v[i].data, t->v[i].rows, t->v[i].cols);
    clear(t);
}

void vl_trace_end(vl_request *r) {
    struct vl_trace *t = r->s->trace;
    if (!t || r->state == VL_WAITING) return;
    if (t->collecting) { /* it ended before its prompt was read: nothing to show */
        vl_ops_tap_set(r->s->m->tap, NULL, NULL);
        clear(t);
        return;
    }
    hand_i64(t, "generated_ids", r->ids + r->n_prompt, 1, r->n - r->n_prompt);
}
