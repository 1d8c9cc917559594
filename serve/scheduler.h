/* scheduler.h: the bounded queue in front of the one engine thread.
 *
 * A `task` is one answer. Its owner fills the inputs, submits it and reads events from its mailbox
 * until one of kind VL_EV_DONE has come; only then may it free the task. Several tasks (n > 1) can
 * share a mailbox; each event carries the task's `choice`.
 */
#ifndef SERVE_SCHEDULER_H
#define SERVE_SCHEDULER_H

#include "serve/serve.h"

/* A copy of a vl_event that outlives the engine's callback. */
typedef struct event {
    struct event *next;
    int choice;
    vl_event ev;                      /* text and top point into this event's own memory   */
    vl_top top[MAX_TOP_LOGPROBS];
    char text[];
} event;

typedef struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t more;
    event *head, **tail;
    bool progress;                    /* also deliver ENCODE and PREFILL                   */
    bool whole;                       /* its reader is woken by DONE alone, not for tokens */
} mailbox;
void mailbox_init(mailbox *b, bool progress);
void mailbox_clear(mailbox *b);
/* Next event or NULL after `seconds`; free() it. */
event *mailbox_next(mailbox *b, double seconds);

typedef enum priority { INTERACTIVE, BACKGROUND, PRIORITIES } priority;

typedef struct task {
    /* inputs */
    const vl_prompt *prompt;
    vl_sampling sampling;
    mailbox *box;
    int choice, tenant;
    priority priority;
    double arrived, deadline;         /* vl_now() times; deadline 0: none                  */
    /* outputs, valid after DONE */
    double queue_s, ttft_s, e2e_s;
    bool timed_out;                   /* cancelled by its deadline                         */
    /* scheduler's own */
    atomic_bool cancelled;
    enum { T_NEW, T_WAITING, T_RUNNING, T_DONE } state;
    vl_event_kind stage;
    double submitted, last_token;
    vl_request *request;
    struct event *final;              /* DONE, kept back until the request is freed        */
    scheduler *owner;
    struct task *next;
} task;

/* Opens the session; the engine thread starts, warms up and becomes ready. */
int scheduler_open(scheduler **out, server *srv, vl_err *err);
/* Stops: waits up to `seconds` for what runs and waits, then cancels it. Owners get their DONE. */
void scheduler_close(scheduler *s, double seconds);
void scheduler_free(scheduler *s);
/* Queues `n` tasks together or none; 429 when the queue is full, 503 while starting or draining. */
int scheduler_submit(scheduler *s, task **tasks, int n, api_error *e);
void scheduler_cancel(task *t);

typedef struct scheduler_state {
    bool ready, broken;
    bool stuck;                       /* it has work, and has got no further for --watchdog seconds */
    int waiting, running;
    vl_session_stats session;
    double encode_s_per_token, prefill_s_per_token, decode_s_per_token; /* recent averages */
} scheduler_state;
void scheduler_get_state(scheduler *s, scheduler_state *out);

#endif
