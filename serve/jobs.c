/* jobs.c: see jobs.h. States: queued -> running -> done | failed | cancelled. One connection under
 * one lock; a job is committed (synchronous=FULL) before its id is given out, and `running` becomes
 * `queued` again at the next start. */
#include "serve/jobs.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "serve/chat.h"

enum { WORKERS = 2, MAX_QUEUED = 1000, KEEP_SECONDS = 86400 };

struct job_store {
    server *srv;
    sqlite3 *db;
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t workers[WORKERS];
    int n_workers;
    bool stop;
    struct { char id[40]; bool cancel; } running[WORKERS];
};

static const char schema_sql[] =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000;"
    "CREATE TABLE IF NOT EXISTS jobs(id TEXT PRIMARY KEY, tenant TEXT NOT NULL, status TEXT NOT "
    "NULL,"
    " created INTEGER NOT NULL, finished INTEGER, request TEXT NOT NULL, http INTEGER, result "
    "TEXT);"
    "CREATE INDEX IF NOT EXISTS by_status ON jobs(status, created);"
    "UPDATE jobs SET status='queued' WHERE status='running';";

/* Tenants are kept by a digest of their key: indices change with the command line. */
static void tenant_name(const job_store *s, int tenant, char out[33]) {
    const serve_config *c = &s->srv->config;
    const char *key = c->n_keys ? c->keys[tenant] : "";
    vl_sha256 h;
    uint8_t d[32];
    vl_sha256_init(&h);
    vl_sha256_add(&h, "tenant", 6);
    vl_sha256_add(&h, key, strlen(key));
    vl_sha256_end(&h, d);
    for (int i = 0; i < 16; i++) snprintf(out + 2 * i, 3, "%02x", d[i]);
}

static int tenant_index(const job_store *s, const char *name) {
    char mine[33];
    for (int i = 0; i < s->srv->config.n_keys; i++) {
        tenant_name(s, i, mine);
        if (!strcmp(mine, name)) return i;
    }
    return 0;
}

/* Prepares `sql` and binds text arguments ("" count as text), NULL-terminated. */
static sqlite3_stmt *prepare(job_store *s, const char *sql, const char *const *args) {
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) != SQLITE_OK) return NULL;
    for (int i = 0; args && args[i]; i++)
        sqlite3_bind_text(st, i + 1, args[i], -1, SQLITE_TRANSIENT);
    return st;
}

static int execute(job_store *s, const char *sql, const char *const *args) {
    sqlite3_stmt *st = prepare(s, sql, args);
    int rc = st ? sqlite3_step(st) : SQLITE_ERROR;
    sqlite3_finalize(st);
    return rc == SQLITE_DONE ? 0 : -1;
}

static int64_t count(job_store *s, const char *sql) {
    sqlite3_stmt *st = prepare(s, sql, NULL);
    int64_t n = st && sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int64(st, 0) : -1;
    sqlite3_finalize(st);
    return n;
}

/* ---- workers ------------------------------------------------------------------------------ */

typedef struct job { char id[40], tenant[33]; char *request; } job;

/* Takes the oldest queued job. Called with the lock held. */
static bool claim(job_store *s, job *j) {
    sqlite3_stmt *st =
        prepare(s,
                "UPDATE jobs SET status='running' WHERE id=(SELECT id FROM jobs WHERE"
                " status='queued' ORDER BY created, rowid LIMIT 1) RETURNING id, tenant, request",
                NULL);
    bool got = st && sqlite3_step(st) == SQLITE_ROW;
    if (got) {
        snprintf(j->id, sizeof j->id, "%s", (const char *)sqlite3_column_text(st, 0));
        snprintf(j->tenant, sizeof j->tenant, "%s", (const char *)sqlite3_column_text(st, 1));
        j->request = strdup((const char *)sqlite3_column_text(st, 2));
        while (sqlite3_step(st) == SQLITE_ROW) continue;
    }
    sqlite3_finalize(st);
    return got;
}

static bool interrupted(job_store *s, int worker) {
    pthread_mutex_lock(&s->lock);
    bool yes = s->stop || s->running[worker].cancel;
    pthread_mutex_unlock(&s->lock);
    return yes;
}

/* Waits for room in the engine's queue instead of failing. */
static int start_patiently(job_store *s, int worker, chat *c, api_error *e) {
    while (chat_start(c, e)) {
        if (e->status != 429 && strcmp(e->code, "not_ready") != 0) return -1;
        if (interrupted(s, worker)) return -1;
        struct timespec t = {0, 200000000};
        nanosleep(&t, NULL);
        *e = (api_error){0};
    }
    return 0;
}

/* The answer (or OpenAI error object) as text, and its HTTP status. */
static char *run_job(job_store *s, int worker, const job *j, int *status) {
    api_error e = {0};
    chat *c = vl_calloc(1, sizeof *c);
    vl_assert(c, "out of memory for a job of %zu bytes", sizeof *c);
    json_t *body = json_loads(j->request, 0, NULL), *result = NULL;
    int rc = chat_open(c, s->srv, FOR_CHAT, body, NULL, tenant_index(s, j->tenant), BACKGROUND,
                       vl_now(), &e);
    c->f.stream = false;
    if (rc == 0) rc = start_patiently(s, worker, c, &e);
    while (rc == 0 && c->left) {
        free(chat_pump(c, 0.1));
        if (interrupted(s, worker)) chat_cancel(c);
    }
    if (rc == 0) result = chat_result(c, &e);
    *status = result ? 200 : e.status;
    if (!result)
        result = json_pack("{s:{s:s,s:s,s:s?}}", "error", "message", e.msg, "code", e.code, "param",
                           *e.param ? e.param : NULL);
    char *text = json_dumps(result, JSON_COMPACT);
    json_decref(result);
    chat_free(c);
    free(c);
    json_decref(body);
    return text;
}

/* Called with the lock held. */
static void finish_job(job_store *s, int worker, const job *j, int status, const char *text) {
    bool cancelled = s->running[worker].cancel, again = s->stop && status != 200 && !cancelled;
    const char *state = again           ? "queued"
                        : status == 200 ? "done"
                        : cancelled     ? "cancelled"
                                        : "failed";
    char code[16], now[24];
    snprintf(code, sizeof code, "%d", status);
    snprintf(now, sizeof now, "%lld", (long long)time(NULL));
    const char *args[] = {state, again ? "" : now, code, again ? "" : text, j->id, NULL};
    if (execute(s, "UPDATE jobs SET status=?1, finished=?2, http=?3, result=?4 WHERE id=?5", args))
        log_json("error", "a job's result could not be stored", json_pack("{s:s}", "job", j->id));
    else if (!again) metrics_add(s->srv->metrics, M_JOBS, state, NULL, 1);
}

static void *worker_main(void *arg) {
    job_store *s = arg;
    pthread_mutex_lock(&s->lock);
    int me = s->n_workers++;
    while (!s->stop) {
        job j = {0};
        if (!claim(s, &j)) {
            pthread_cond_wait(&s->more, &s->lock);
            continue;
        }
        snprintf(s->running[me].id, sizeof s->running[me].id, "%s", j.id);
        s->running[me].cancel = false;
        pthread_mutex_unlock(&s->lock);
        int status;
        char *text = run_job(s, me, &j, &status);
        pthread_mutex_lock(&s->lock);
        finish_job(s, me, &j, status, text ? text : "{}");
        s->running[me].id[0] = 0;
        free(text);
        free(j.request);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the outside -------------------------------------------------------------------------- */

int jobs_open(job_store **out, server *srv, vl_err *err) {
    char path[4096] = ":memory:", old[24];
    const char *dir = srv->config.state_dir;
    job_store *s = vl_calloc(1, sizeof *s);
    if (!s) return vl_fail(err, VL_E_NOMEM, "out of memory");
    s->srv = srv;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    if (dir && mkdir(dir, 0700) && errno != EEXIST) {
        free(s);
        return vl_fail(err, VL_E_IO, "--state %s: %s", dir, strerror(errno));
    }
    if (dir) snprintf(path, sizeof path, "%s/jobs.sqlite", dir);
    if (sqlite3_open(path, &s->db) || sqlite3_exec(s->db, schema_sql, NULL, NULL, NULL)) {
        vl_fail(err, VL_E_IO, "%s: %s", path, sqlite3_errmsg(s->db));
        sqlite3_close(s->db);
        free(s);
        return -1;
    }
    snprintf(old, sizeof old, "%lld", (long long)time(NULL) - KEEP_SECONDS);
    execute(s,
            "DELETE FROM jobs WHERE status NOT IN ('queued','running') AND finished < CAST(?1 AS "
            "INTEGER)",
            (const char *[]){old, NULL});
    for (int i = 0; i < WORKERS; i++)
        if (pthread_create(&s->workers[i], NULL, worker_main, s))
            return vl_fail(err, VL_E_NOMEM, "cannot start a job thread");
    *out = s;
    return 0;
}

void jobs_stop(job_store *s) {
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < WORKERS; i++) pthread_join(s->workers[i], NULL);
}

void jobs_free(job_store *s) {
    if (!s) return;
    sqlite3_close(s->db);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->more);
    free(s);
}

static json_t *describe(const job_store *s, sqlite3_stmt *st, bool with_result) {
    const char *result = (const char *)sqlite3_column_text(st, 5);
    json_t *o = json_pack("{s:s,s:s,s:s,s:I,s:b}", "id", sqlite3_column_text(st, 0), "object",
                          "job", "status", sqlite3_column_text(st, 1), "created_at",
                          (json_int_t)sqlite3_column_int64(st, 2), "durable",
                          s->srv->config.state_dir != NULL);
    if (sqlite3_column_int64(st, 3))
        json_object_set_new(o, "finished_at", json_integer(sqlite3_column_int64(st, 3)));
    if (with_result && result && *result) {
        json_t *r = json_loads(result, 0, NULL), *failure = json_object_get(r, "error");
        if (failure) json_object_set(o, "error", failure);
        else if (r) json_object_set(o, "result", r);
        json_decref(r);
    }
    return o;
}

#define JOB_COLUMNS "id, status, created, finished, http, result"

json_t *jobs_submit(job_store *s, int tenant, json_t *request, api_error *e) {
    char id[40], name[33], now[24], *text;
    json_t *o = NULL;
    new_id(id, sizeof id, "job_");
    tenant_name(s, tenant, name);
    snprintf(now, sizeof now, "%lld", (long long)time(NULL));
    text = json_dumps(request, JSON_COMPACT);
    pthread_mutex_lock(&s->lock);
    const char *args[] = {id, name, now, text ? text : "{}", NULL};
    if (s->stop || count(s, "SELECT count(*) FROM jobs WHERE status='queued'") >= MAX_QUEUED) {
        api_fail(e, 429, "queue_full", NULL, "%d jobs are queued already; try again later",
                 MAX_QUEUED);
        e->retry_after = 30;
    } else if (execute(s, "INSERT INTO jobs(id, tenant, status, created, request) VALUES(?1, ?2, "
                          "'queued', CAST(?3 AS INTEGER), ?4)", args)) {
        api_fail(e, 500, "storage_failed", NULL, "the job could not be stored");
        log_json("error", "job storage", json_pack("{s:s}", "error", sqlite3_errmsg(s->db)));
    } else {
        o = json_pack("{s:s,s:s,s:s,s:I,s:b}", "id", id, "object", "job", "status", "queued",
                      "created_at", (json_int_t)atoll(now), "durable",
                      s->srv->config.state_dir != NULL);
        pthread_cond_signal(&s->more);
    }
    pthread_mutex_unlock(&s->lock);
    free(text);
    return o;
}

static json_t *get_locked(job_store *s, int tenant, const char *id, api_error *e) {
    char name[33];
    tenant_name(s, tenant, name);
    sqlite3_stmt *st = prepare(s, "SELECT " JOB_COLUMNS " FROM jobs WHERE id=?1 AND tenant=?2",
                               (const char *[]){id, name, NULL});
    json_t *o = st && sqlite3_step(st) == SQLITE_ROW ? describe(s, st, true) : NULL;
    sqlite3_finalize(st);
    if (!o) api_fail(e, 404, "job_not_found", NULL, "no such job");
    return o;
}

json_t *jobs_get(job_store *s, int tenant, const char *id, api_error *e) {
    pthread_mutex_lock(&s->lock);
    json_t *o = get_locked(s, tenant, id, e);
    pthread_mutex_unlock(&s->lock);
    return o;
}

json_t *jobs_list(job_store *s, int tenant, api_error *e) {
    char name[33];
    json_t *list = json_array();
    tenant_name(s, tenant, name);
    (void)e;
    pthread_mutex_lock(&s->lock);
    sqlite3_stmt *st =
        prepare(s,
                "SELECT " JOB_COLUMNS " FROM jobs WHERE tenant=?1 ORDER BY created DESC,"
                " rowid DESC LIMIT 100",
                (const char *[]){name, NULL});
    while (st && sqlite3_step(st) == SQLITE_ROW)
        json_array_append_new(list, describe(s, st, false));
    sqlite3_finalize(st);
    pthread_mutex_unlock(&s->lock);
    return json_pack("{s:s,s:o}", "object", "list", "data", list);
}

json_t *jobs_cancel(job_store *s, int tenant, const char *id, api_error *e) {
    pthread_mutex_lock(&s->lock);
    json_t *o = get_locked(s, tenant, id, e);
    const char *status = json_string_value(json_object_get(o, "status"));
    const char *args[] = {id, NULL};
    if (o && !strcmp(status, "running")) {
        for (int i = 0; i < WORKERS; i++)
            if (!strcmp(s->running[i].id, id)) s->running[i].cancel = true;
        json_object_set_new(o, "status", json_string("cancelling"));
    } else if (o && !strcmp(status, "queued")) {
        execute(s, "UPDATE jobs SET status='cancelled', finished=strftime('%s','now') WHERE id=?1",
                args);
        json_object_set_new(o, "status", json_string("cancelled"));
    } else if (o) {
        execute(s, "DELETE FROM jobs WHERE id=?1", args);
        json_object_set_new(o, "deleted", json_true());
    }
    pthread_mutex_unlock(&s->lock);
    return o;
}
