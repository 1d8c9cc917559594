/* chat.h: one generation request from JSON to answer, independent of HTTP, so that the chat and
 * completions routes, their streams and the job queue all run the same code.
 *
 *   chat_open    reads and checks the body, decodes pictures, builds the prompt (or finds the whole
 *                answer in the result cache)
 *   chat_start   submits n tasks
 *   chat_pump    moves events into the choices
 *   chat_result  the chat.completion object        chat_stream_*  the same as SSE
 *   chat_free    cancels what still runs, waits for it, frees everything
 */
#ifndef SERVE_CHAT_H
#define SERVE_CHAT_H

#include "serve/constrain.h"
#include "serve/fields.h"
#include "serve/pictures.h"
#include "serve/scheduler.h"

/* Pictures that came beside the JSON (multipart), found by name. */
typedef struct attachment { char *name, *filename; blob data; bool used; struct attachment *next; } attachment;

/* One streamed step of an answer: text up to `end` and, if asked for, its log probability entry. */
typedef struct piece { size_t end; json_t *logprob; } piece;

typedef struct choice {
    task task;
    constraint *constraint;
    piece *pieces;
    size_t n_pieces, cap_pieces;
    char *text;                       /* all pieces                                         */
    size_t len, cap;
    char finish[24], stop[264];
    bool done, timed_out;
    int prompt_tokens, image_tokens, completion_tokens, cached_tokens;
    double queue_s, ttft_s, e2e_s;
    vl_timings timings;
    vl_err error;
    /* streaming */
    size_t next_piece, sent;
    bool opened;
} choice;

enum { MAX_PICTURES = 64 };
typedef struct chat {
    server *srv;
    int route;                        /* FOR_CHAT, FOR_TEXT or FOR_RESPONSES                */
    const caller *by;
    priority priority;
    char id[48];
    int64_t created;
    chat_fields f;
    json_t *body, *messages, *tools, *warnings, *reports;
    bool tool_calls;                  /* look for <tool_call> in the answer                 */
    vl_picture *pictures[MAX_PICTURES];
    int n_pictures;
    attachment *attachments;
    vl_prompt *prompt;
    int prompt_tokens;
    mailbox box;
    const char *stops[MAX_STOPS];
    vl_logit_bias bias[MAX_BIAS];
    int32_t breakers[MAX_BREAKERS];
    int n_stops, n_bias, n_breakers;
    choice choices[MAX_CHOICES];
    int n, left;                      /* choices, and how many are not done                 */
    bool started, include_usage, include_progress, cacheable, from_cache;
    uint8_t key[32];
} chat;

/* body and by are borrowed and must outlive the chat; a prompt in an array becomes that prompt. */
int chat_open(chat *c, server *srv, int route, json_t *body, attachment *attachments,
              const caller *by, priority priority, api_error *e);
int chat_start(chat *c, api_error *e);
/* Waits up to `seconds` for one event; returns it (free() it) after taking it in, or NULL. */
event *chat_pump(chat *c, double seconds);
void chat_cancel(chat *c);
/* After all choices are done, once: an engine error becomes -1 and *e; else the answer is stored in
 * the result cache and the reports are completed. */
int chat_settle(chat *c, api_error *e);
/* chat_settle() and the chat.completion or text_completion object, or NULL and *e. */
json_t *chat_result(chat *c, api_error *e);
void chat_free(chat *c);

/* ---- chat_output.c ---- */
/* Are these functions in OpenAI's form? flat: in that of its Responses API. */
int tools_check(const json_t *tools, bool flat, api_error *e);
/* The constraint that the request asks for, or NULL in *out; also sets tools and tool_calls. */
int chat_constraint(chat *c, constraint **out, api_error *e);

/* ---- answer.c ---- */
/* The part of the id that is this answer's own; ids made from it are repeated by a replay. */
const char *chat_id_tail(const chat *c);
/* Everything in the choice that may be shown now: text before a possible tool call and the blanks
 * before that. */
size_t choice_ready(const chat *c, const choice *k);
json_t *choice_tool_calls(const chat *c, const choice *k, char **content, size_t *len);
/* The log probabilities of pieces in the form of /v1/completions. */
json_t *text_logprobs(const choice *k, size_t from, size_t to);
json_t *chat_usage(const chat *c);
json_t *chat_timings(const chat *c);
/* The answer as it is kept in the cache, and back. */
char *chat_record(const chat *c, size_t *len);
bool chat_replay(chat *c, const char *record, size_t len);

/* ---- grounding.c ---- */
/* Boxes and points of the answer, both 0-1000 and in pixels of their picture; NULL if there are none.
 * question: what was asked last, a string or content parts, or NULL. */
json_t *grounding_find(const char *text, const json_t *question, const json_t *reports);
/* The content of the last user message, or NULL. */
const json_t *chat_question(const chat *c);

/* Adds a step to a choice; takes the logprob reference. */
void choice_add_piece(choice *k, const char *text, size_t n, json_t *logprob);

#endif
