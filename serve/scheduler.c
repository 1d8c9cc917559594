/* scheduler.c: see scheduler.h. One thread owns the vl_session and is the only one to call it.
 *
 *   submit -> waiting list -> (pick: priority, then the tenant that has least running, then age)
 *          -> vl_submit, at most `batch` at once -> vl_session_step ... -> DONE into the mailbox
 *
 * Easy to get wrong: a task may be freed by its owner the moment DONE is delivered, so DONE is
 * kept back until the engine's request is freed and the task is off every list.
 */
#include "serve/scheduler.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct scheduler {
    server *srv;
    vl_session *session;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    task *waiting, *running;
    int n_waiting, n_running;
    bool stop, abandon;               /* stop: no new tasks; abandon: cancel what is left  */
    scheduler_state state;
    _Atomic double beat;              /* vl_now() when the engine last got further         */
    double e2e;                       /* recent average seconds of an answer               */
};

/* ---- mailbox ------------------------------------------------------------------------------ */

static void cond_init(pthread_cond_t *c) {
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(c, &a);
    pthread_condattr_destroy(&a);
}

static struct timespec in_seconds(double s) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t ns = (int64_t)t.tv_nsec + (int64_t)(s * 1e9);
    t.tv_sec += (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    return t;
}

void mailbox_init(mailbox *b, bool progress) {
    *b = (mailbox){.progress = progress};
    b->tail = &b->head;
    pthread_mutex_init(&b->lock, NULL);
    cond_init(&b->more);
}

void mailbox_clear(mailbox *b) {
    for (event *e = b->head, *next; e; e = next) {
        next = e->next;
        free(e);
    }
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->more);
}

event *mailbox_next(mailbox *b, double seconds) {
    struct timespec until = in_seconds(seconds);
    pthread_mutex_lock(&b->lock);
    while (!b->head)
        if (pthread_cond_timedwait(&b->more, &b->lock, &until) == ETIMEDOUT) break;
    event *e = b->head;
    if (e && !(b->head = e->next)) b->tail = &b->head;
    pthread_mutex_unlock(&b->lock);
    return e;
}

static event *event_copy(const vl_event *ev, int choice) {
    size_t stop = ev->stop ? strlen(ev->stop) + 1 : 0;
    event *e = malloc(sizeof *e + ev->len + 1 + stop);
    vl_assert(e, "out of memory for an event of %zu bytes", ev->len);
    e->next = NULL;
    e->choice = choice;
    e->ev = *ev;
    if (ev->len) memcpy(e->text, ev->text, ev->len);
    e->text[ev->len] = 0;
    if (stop) e->ev.stop = memcpy(e->text + ev->len + 1, ev->stop, stop);
    if (e->ev.n_top > MAX_TOP_LOGPROBS) e->ev.n_top = MAX_TOP_LOGPROBS;
    if (e->ev.n_top > 0) memcpy(e->top, ev->top, (size_t)e->ev.n_top * sizeof *e->top);
    e->ev.text = e->text;
    e->ev.top = e->top;
    return e;
}

static void mailbox_put(mailbox *b, event *e) {
    pthread_mutex_lock(&b->lock);
    *b->tail = e;
    b->tail = &e->next;
    if (!b->whole || e->ev.kind == VL_EV_DONE) pthread_cond_signal(&b->more);
    pthread_mutex_unlock(&b->lock);
}

/* ---- finishing ---------------------------------------------------------------------------- */

static void average(double *to, double sample) { *to = *to > 0 ? *to * .8 + sample * .2 : sample; }

static const char *const stage_names[] = {"encode", "prefill", "decode", "done"};

static void learn_speed(scheduler_state *st, const vl_event *ev) {
    const vl_timings *t = &ev->timings;
    if (t->encoded_pictures && !t->cached_pictures && ev->image_tokens)
        average(&st->encode_s_per_token, t->encode_s / ev->image_tokens);
    if (t->prefill_tokens > 0) average(&st->prefill_s_per_token, t->prefill_s / t->prefill_tokens);
    if (t->decoded_tokens > 1)
        average(&st->decode_s_per_token, t->decode_s / (t->decoded_tokens - 1));
}

static void count_done(scheduler *s, const task *t, const vl_event *ev) {
    metrics *m = s->srv->metrics;
    const vl_timings *tm = &ev->timings;
    metrics_add(m, M_FINISHED, t->timed_out ? "deadline" : ev->finish_reason, NULL, 1);
    if (!strcmp(ev->finish_reason, "cancelled"))
        metrics_add(m, M_CANCELLED, t->request ? stage_names[t->stage] : "queue", NULL, 1);
    if (!strcmp(ev->finish_reason, "repetition")) metrics_add(m, M_REPETITION, NULL, NULL, 1);
    if (ev->error.code == VL_E_NUMERIC) metrics_add(m, M_NAN, NULL, NULL, 1);
    metrics_add(m, M_TOKENS, "prompt", NULL, ev->prompt_tokens);
    metrics_add(m, M_TOKENS, "image", NULL, ev->image_tokens);
    metrics_add(m, M_TOKENS, "cached", NULL, tm->cached_tokens);
    metrics_add(m, M_TOKENS, "completion", NULL, ev->completion_tokens);
    bool cut = t->timed_out && ev->completion_tokens > 0; /* an answer all the same, and a slow one */
    if (!cut && (!strcmp(ev->finish_reason, "cancelled") || !strcmp(ev->finish_reason, "error"))) return;
    metrics_observe(m, M_T_E2E, t->e2e_s);
    if (tm->encoded_pictures) metrics_observe(m, M_T_VIT, tm->encode_s);
    metrics_observe(m, M_T_PREFILL, tm->prefill_s);
    if (ev->completion_tokens > 1)
        metrics_observe(m, M_T_TPOT, (t->e2e_s - t->ttft_s) / (ev->completion_tokens - 1));
}

/* The task is off every list and has its `final`; after mailbox_put() it is its owner's again. */
static void finish(scheduler *s, task *t) {
    event *done = t->final;
    t->e2e_s = vl_now() - t->arrived;
    count_done(s, t, &done->ev);
    if (t->request) vl_request_free(t->request);
    t->request = NULL;
    t->final = NULL;
    t->state = T_DONE;
    mailbox_put(t->box, done);
}

/* ---- the engine thread -------------------------------------------------------------------- */

static bool overdue(const task *t) { return t->deadline > 0 && vl_now() > t->deadline; }

/* The engine's callback. Non-zero cancels. */
static int on_event(void *user, const vl_event *ev) {
    task *t = user;
    scheduler *s = t->owner;
    double now = vl_now();
    atomic_store(&s->beat, now);
    if (ev->kind == VL_EV_DONE) {
        pthread_mutex_lock(&s->lock);
        learn_speed(&s->state, ev);
        average(&s->e2e, now - t->arrived);
        pthread_mutex_unlock(&s->lock);
        t->final = event_copy(ev, t->choice);
        return 0;
    }
    t->stage = ev->kind;
    if (ev->kind == VL_EV_TOKEN) {
        if (t->last_token == 0)
            metrics_observe(s->srv->metrics, M_T_TTFT, t->ttft_s = now - t->arrived);
        else metrics_observe(s->srv->metrics, M_T_ITL, now - t->last_token);
        t->last_token = now;
    }
    if (ev->kind == VL_EV_TOKEN || t->box->progress) mailbox_put(t->box, event_copy(ev, t->choice));
    if (overdue(t)) t->timed_out = true;
    return t->timed_out || atomic_load(&t->cancelled);
}

static int running_of(const scheduler *s, int tenant) {
    int n = 0;
    for (const task *t = s->running; t; t = t->next) n += t->tenant == tenant;
    return n;
}

/* Takes the next task off the waiting list; the last free row is kept for interactive work. */
static task *pick(scheduler *s) {
    int batch = s->srv->config.batch;
    task **best = NULL;
    int best_running = 0;
    for (int prio = 0; prio < PRIORITIES && !best; prio++) {
        if (prio == BACKGROUND && batch > 1 && s->n_running >= batch - 1) break;
        for (task **p = &s->waiting; *p; p = &(*p)->next) {
            if ((int)(*p)->priority != prio) continue;
            int n = running_of(s, (*p)->tenant);
            if (!best || n < best_running) best = p, best_running = n;
        }
    }
    if (!best) return NULL;
    task *t = *best;
    *best = t->next;
    s->n_waiting--;
    return t;
}

/* Off the waiting list and finished without having run. Called with the lock held. */
static void give_up(scheduler *s, task **p) {
    task *t = *p;
    vl_event ev = {.kind = VL_EV_DONE, .finish_reason = "cancelled"};
    *p = t->next;
    s->n_waiting--;
    t->final = event_copy(&ev, t->choice);
    finish(s, t);
}

/* Called with the lock held; gives it up while it works. */
static void admit(scheduler *s) {
    task *t;
    for (task **p = &s->waiting; *p;) {
        (*p)->timed_out = overdue(*p);
        if ((*p)->timed_out) give_up(s, p);
        else p = &(*p)->next;
    }
    while (s->n_running < s->srv->config.batch && (t = pick(s))) {
        bool broken = s->state.broken;
        bool drop = s->abandon || atomic_load(&t->cancelled);
        t->queue_s = vl_now() - t->submitted;
        t->next = s->running;
        s->running = t;
        s->n_running++;
        t->state = T_RUNNING;
        atomic_store(&s->beat, vl_now());
        pthread_mutex_unlock(&s->lock);
        metrics_observe(s->srv->metrics, M_T_QUEUE, t->queue_s);
        vl_err err = {VL_E_BACKEND, "the backend failed; see the log"};
        vl_event ev = {.kind = VL_EV_DONE, .finish_reason = drop ? "cancelled" : "error"};
        if (broken || drop ||
            vl_submit(&t->request, s->session, t->prompt, &t->sampling, on_event, t, &err)) {
            ev.error = err;
            t->final = event_copy(&ev, t->choice);
        }
        pthread_mutex_lock(&s->lock);
    }
}

/* Hands finished tasks back to their owners. Called with the lock held. */
static void sweep(scheduler *s) {
    for (task **p = &s->running; *p;) {
        task *t = *p;
        if (!t->final && s->state.broken) {
            vl_event ev = {.kind = VL_EV_DONE, .finish_reason = "error",
                           .error = {VL_E_BACKEND, "the backend failed; see the log"}};
            t->final = event_copy(&ev, t->choice);
        }
        if (!t->final) {
            if (t->request && (s->abandon || atomic_load(&t->cancelled)))
                vl_request_cancel(t->request);
            p = &t->next;
            continue;
        }
        *p = t->next;
        s->n_running--;
        finish(s, t);
    }
    pthread_cond_broadcast(&s->idle);
}

static int note_speed(void *user, const vl_event *ev) {
    if (ev->kind == VL_EV_DONE) learn_speed(user, ev);
    return 0;
}

/* One small picture and a few tokens: pages weights in and gives the first speed estimates. */
static int warm_up(scheduler *s, scheduler_state *speed, vl_err *err) {
    static const char text[] = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
                               "Hello<|im_end|>\n<|im_start|>assistant\n";
    enum { SIDE = 128 };
    static uint8_t ppm[15 + SIDE * SIDE * 3] = "P6\n128 128\n255\n";
    vl_picture *pic = NULL;
    vl_prompt *prompt = NULL;
    vl_sampling greedy = vl_sampling_greedy(4);
    int rc = -1;
    if (vl_picture_load(&pic, s->srv->model, ppm, sizeof ppm, "warm-up", NULL, err) == 0 &&
        vl_prompt_text(&prompt, s->srv->model, text, sizeof text - 1, true, &pic, 1, err) == 0)
        rc = vl_generate(s->session, prompt, &greedy, note_speed, speed, err);
    vl_prompt_free(prompt);
    vl_picture_free(pic);
    return rc;
}

static void fail_all(scheduler *s, const char *what, const vl_err *err) {
    s->state.broken = true;
    s->state.ready = false;
    log_json("error", what, json_pack("{s:s}", "error", err->msg));
}

static void *engine_main(void *arg) {
    scheduler *s = arg;
    vl_err err = {0};
    scheduler_state speed = {0};
    bool warm = warm_up(s, &speed, &err) == 0;
    pthread_mutex_lock(&s->lock);
    s->state = speed;
    if (warm) s->state.ready = !s->stop;
    else fail_all(s, "warm-up failed", &err);
    for (;;) {
        admit(s);
        sweep(s);
        if (!s->running) {
            if (s->stop && !s->waiting) break;
            if (!s->waiting) pthread_cond_wait(&s->wake, &s->lock);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        atomic_store(&s->beat, vl_now());
        int rc = vl_session_step(s->session, &err);
        vl_session_stats stats;
        vl_session_get_stats(s->session, &stats);
        pthread_mutex_lock(&s->lock);
        s->state.session = stats;
        if (rc < 0) fail_all(s, "the backend failed", &err);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the outside -------------------------------------------------------------------------- */

int scheduler_open(scheduler **out, server *srv, vl_err *err) {
    scheduler *s = vl_calloc(1, sizeof *s);
    if (!s) return vl_fail(err, VL_E_NOMEM, "out of memory");
    const serve_config *c = &srv->config;
    s->srv = srv;
    atomic_init(&s->beat, vl_now());
    pthread_mutex_init(&s->lock, NULL);
    cond_init(&s->wake);
    cond_init(&s->idle);
    vl_session_params p = {.max_requests = c->batch, .kv_tokens = c->kv_tokens,
                           .prefix_cache = c->prefix_cache_bytes != 0,
                           .picture_cache_bytes = (size_t)c->picture_cache_bytes,
                           .speculate = c->speculate,
                           .prefix_cache_bytes = c->prefix_cache_bytes > 0 ? c->prefix_cache_bytes : 0};
    if (vl_session_open(&s->session, srv->model, &p, err)) {
        free(s);
        return -1;
    }
    if (pthread_create(&s->thread, NULL, engine_main, s)) {
        vl_session_free(s->session);
        free(s);
        return vl_fail(err, VL_E_NOMEM, "cannot start the engine thread");
    }
    *out = s;
    return 0;
}

void scheduler_close(scheduler *s, double seconds) {
    struct timespec until = in_seconds(seconds);
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    s->state.ready = false;
    pthread_cond_signal(&s->wake);
    while (s->running || s->waiting)
        if (pthread_cond_timedwait(&s->idle, &s->lock, &until) == ETIMEDOUT) break;
    s->abandon = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
}

void scheduler_free(scheduler *s) {
    if (!s) return;
    vl_session_free(s->session);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->idle);
    free(s);
}

int scheduler_submit(scheduler *s, task **tasks, int n, api_error *e) {
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    int retry = 1 + (int)(s->e2e * (s->n_waiting + s->n_running) / s->srv->config.batch);
    if (!s->state.ready) {
        rc = api_fail(e, 503, s->state.broken ? "engine_failed" : "not_ready", NULL,
                      s->state.broken ? "the engine has failed and must be restarted"
                                      : s->stop ? "shutting down" : "still starting");
        e->retry_after = 2;
    } else if (tasks[0]->priority == INTERACTIVE && s->n_waiting && s->n_waiting + n > s->srv->config.queue) {
        /* an empty queue takes any n: a second try would be no different */
        rc = api_fail(e, 429, "queue_full", NULL,
                      "%d requests are waiting already; try again later", s->n_waiting);
        e->retry_after = retry < 60 ? retry : 60;
        metrics_add(s->srv->metrics, M_REJECTED, "queue_full", NULL, 1);
    }
    for (int i = 0; i < n && rc == 0; i++) {
        task *t = tasks[i], **p = &s->waiting;
        t->owner = s;
        t->submitted = vl_now();      /* pictures were opened before that */
        t->state = T_WAITING;
        t->next = NULL;
        while (*p) p = &(*p)->next;
        *p = t;
        s->n_waiting++;
    }
    if (rc == 0) pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void scheduler_cancel(task *t) {
    scheduler *s = t->owner;
    atomic_store(&t->cancelled, true);
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    for (task **p = &s->waiting; *p; p = &(*p)->next) {
        if (*p != t) continue;
        give_up(s, p);
        break;
    }
    pthread_mutex_unlock(&s->lock);
}

void scheduler_get_state(scheduler *s, scheduler_state *out) {
    pthread_mutex_lock(&s->lock);
    *out = s->state;
    out->waiting = s->n_waiting;
    out->running = s->n_running;
    double limit = s->srv->config.watchdog_s;
    out->stuck = limit > 0 && s->running && vl_now() - atomic_load(&s->beat) > limit;
    pthread_mutex_unlock(&s->lock);
}
