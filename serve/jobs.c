/* jobs.c: see jobs.h. States: queued -> running -> done | failed | cancelled. One connection under
 * one lock; a job is committed (synchronous=FULL) before its id is given out, and `running` becomes
 * `queued` again at the next start. A job that fails for a passing reason of another server (a picture
 * by URL that times out) is `queued` again until a later time, and its worker takes other jobs.
 *
 * A job that was running when the process died, or its engine did, may be what it died of. It then runs with no
 * other job beside it, so that the guilty one is told from its neighbour, and has failed after MAX_CRASHES such
 * ends: or a restart would run it, and die, for ever. While the engine is broken the others wait for that restart. */
#include "serve/jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "serve/chat.h"
#include "serve/sandbox.h"

enum { WORKERS = 2, MAX_QUEUED = 1000, MAX_LISTED = 100, KEEP_SECONDS = 86400,
       MAX_BODIES = 64,               /* what is queued may have so many times the bytes of the largest body */
       MAX_CRASHES = 3,               /* ends of the process while a job ran, then it has failed */
       MAX_TRIES = 4 };               /* the k-th one waits 4^(k-1) seconds: 1, 4, 16 */

struct job_store {
    server *srv;
    sqlite3 *db;
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t workers[WORKERS];
    int n_threads, n_workers;         /* started; numbered by themselves */
    int held;                         /* the folder's lock; -1: none */
    int64_t bytes;                    /* of the requests that are kept */
    bool stop, told;                  /* told: that the storage fails has been logged */
    struct { char id[40]; bool cancel; } running[WORKERS];
};

static const char schema_sql[] =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000;"
    "CREATE TABLE IF NOT EXISTS jobs(id TEXT PRIMARY KEY, tenant TEXT NOT NULL, status TEXT NOT "
    "NULL,"
    " created INTEGER NOT NULL, finished INTEGER, request TEXT NOT NULL, http INTEGER, result "
    "TEXT);"
    "CREATE INDEX IF NOT EXISTS by_status ON jobs(status, created);";
/* Columns that a file of an earlier version lacks. */
static const char *const added[] = {"tries INTEGER NOT NULL DEFAULT 0", "due INTEGER NOT NULL DEFAULT 0",
                                    "crashes INTEGER NOT NULL DEFAULT 0"};

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

/* -1: there are keys, and it is of none of them (any more). */
static int tenant_index(const job_store *s, const char *name) {
    char mine[33];
    for (int i = 0; i < s->srv->config.n_keys; i++) {
        tenant_name(s, i, mine);
        if (!strcmp(mine, name)) return i;
    }
    return s->srv->config.n_keys ? -1 : 0;
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

static int64_t count(job_store *s, const char *sql, const char *const *args) {
    sqlite3_stmt *st = prepare(s, sql, args);
    int64_t n = st && sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int64(st, 0) : -1;
    sqlite3_finalize(st);
    return n;
}

static void weigh(job_store *s) {
    s->bytes = count(s, "SELECT ifnull(sum(length(CAST(request AS BLOB))), 0) FROM jobs", NULL);
}

/* ---- workers ------------------------------------------------------------------------------ */

typedef struct job { char id[40], tenant[33]; char *request; int tries; } job;

/* Takes the oldest queued job that is due; one that may have ended the process runs alone. Called with
 * the lock held. */
static bool claim(job_store *s, job *j) {
    sqlite3_stmt *st =
        prepare(s,
                "UPDATE jobs SET status='running', tries=tries+1 WHERE id=(SELECT id FROM jobs WHERE"
                " status='queued' AND due <= CAST(strftime('%s','now') AS INTEGER)"
                " ORDER BY created, rowid LIMIT 1)"
                " AND NOT EXISTS(SELECT 1 FROM jobs AS r WHERE r.status='running' AND (r.crashes>0 OR jobs.crashes>0))"
                " RETURNING id, tenant, request, tries",
                NULL);
    int rc = st ? sqlite3_step(st) : SQLITE_ERROR;
    bool got = rc == SQLITE_ROW;
    if (got) {
        snprintf(j->id, sizeof j->id, "%s", (const char *)sqlite3_column_text(st, 0));
        snprintf(j->tenant, sizeof j->tenant, "%s", (const char *)sqlite3_column_text(st, 1));
        j->request = strdup((const char *)sqlite3_column_text(st, 2));
        j->tries = sqlite3_column_int(st, 3);
        while ((rc = sqlite3_step(st)) == SQLITE_ROW) continue;
    }
    if (rc != SQLITE_DONE && !s->told)
        log_json("error", "no job can be taken from the storage", json_pack("{s:s}", "error", sqlite3_errmsg(s->db)));
    s->told = rc != SQLITE_DONE;
    sqlite3_finalize(st);
    if (!s->told) return got;
    free(j->request);                 /* it was not committed: the job is still queued */
    return false;
}

typedef struct worker { job_store *store; int me; } worker;

static bool interrupted(void *user) {
    const worker *w = user;
    pthread_mutex_lock(&w->store->lock);
    bool yes = w->store->stop || w->store->running[w->me].cancel;
    pthread_mutex_unlock(&w->store->lock);
    return yes;
}

/* Waits for room in the engine's queue instead of failing. */
static int start_patiently(worker *w, chat *c, api_error *e) {
    while (chat_start(c, e)) {
        if (e->status != 429 && strcmp(e->code, "not_ready") != 0) return -1;
        if (interrupted(w)) return -1;
        struct timespec t = {0, 200000000};
        nanosleep(&t, NULL);
        *e = (api_error){0};
    }
    return 0;
}

static json_t *error_object(const api_error *e) {
    return json_pack("{s:{s:s,s:s,s:s?}}", "error", "message", e->msg, "code", e->code, "param",
                     *e->param ? e->param : NULL);
}

typedef enum ending { FINAL, RETRY, CRASHED } ending; /* RETRY: for a passing reason; CRASHED: the engine, at least for it */

/* The answer (or OpenAI error object) as text, its HTTP status, and what becomes of the job. */
static char *run_job(worker *w, const job *j, int tenant, int *status, ending *how) {
    job_store *s = w->store;
    api_error e = {0};
    caller by = {.tenant = tenant, .arrived = vl_now(), .gone = interrupted, .user = w};
    chat *c = vl_calloc(1, sizeof *c);
    vl_assert(c, "out of memory for a job of %zu bytes", sizeof *c);
    json_t *body = json_loads(j->request, 0, NULL), *result = NULL;
    int rc = chat_open(c, s->srv, FOR_CHAT, body, NULL, &by, BACKGROUND, &e);
    c->f.stream = false;
    if (rc && e.transient && j->tries < MAX_TRIES) *how = RETRY;
    if (rc == 0) rc = start_patiently(w, c, &e);
    while (rc == 0 && c->left) {
        free(chat_pump(c, 0.1));
        if (interrupted(w)) chat_cancel(c);
    }
    if (rc == 0) result = chat_result(c, &e);
    *status = result ? 200 : e.status;
    if (!result && e.code && !strcmp(e.code, "engine_failed")) *how = CRASHED;
    if (!result) result = error_object(&e);
    char *text = json_dumps(result, JSON_COMPACT);
    json_decref(result);
    chat_free(c);
    free(c);
    json_decref(body);
    return text;
}

static char *refuse_job(int *status) {
    api_error e = {0};
    api_fail(&e, *status = 403, "unknown_key", NULL, "the API key of this job is not one of the server's any more: start "
             "the server with it (--api-key), or submit the job again with another");
    json_t *o = error_object(&e);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

/* Finished jobs are kept a day. */
static void forget_old(job_store *s) {
    char old[24];
    snprintf(old, sizeof old, "%lld", (long long)time(NULL) - KEEP_SECONDS);
    execute(s, "DELETE FROM jobs WHERE status NOT IN ('queued','running') AND finished < CAST(?1 AS INTEGER)",
            (const char *[]){old, NULL});
}

/* Jobs that the process or its engine has died under too often are not run again. */
static int fail_crashing(job_store *s) {
    api_error e;
    char now[24], limit[16];
    api_fail(&e, 500, "job_crashed", NULL, "the server or its engine ended unexpectedly each of the %d times that this job ran, so it is not "
             "run again; the server's log may say why. If other causes ended the server, submit the job again", MAX_CRASHES);
    json_t *o = error_object(&e);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    snprintf(now, sizeof now, "%lld", (long long)time(NULL));
    snprintf(limit, sizeof limit, "%d", MAX_CRASHES);
    sqlite3_stmt *st = prepare(s, "UPDATE jobs SET status='failed', http=500, finished=CAST(?1 AS INTEGER), result=?2, request=''"
                               " WHERE status='queued' AND crashes>=CAST(?3 AS INTEGER) RETURNING id",
                               (const char *[]){now, text ? text : "{}", limit, NULL});
    int rc;
    while ((rc = st ? sqlite3_step(st) : SQLITE_ERROR) == SQLITE_ROW) {
        log_json("error", "a job has failed: the server ended each time that it ran", json_pack("{s:s,s:i}", "job",
                 (const char *)sqlite3_column_text(st, 0), "times", MAX_CRASHES));
        metrics_add(s->srv->metrics, M_JOBS, "failed", NULL, 1);
    }
    sqlite3_finalize(st);
    free(text);
    weigh(s);
    return rc == SQLITE_DONE ? 0 : -1;
}

/* Called with the lock held. -1: it could not be stored, and the job is still `running` there. What was asked (pictures
 * and all) is not kept once it is answered. */
static int finish_job(job_store *s, int me, const job *j, int status, const char *text, ending how) {
    bool cancelled = s->running[me].cancel, done = status == 200, stopping = s->stop || atomic_load(&s->srv->draining);
    bool crashed = how == CRASHED && !cancelled, stopped = stopping && !done && !cancelled && !crashed;
    bool again = stopped || crashed || (how == RETRY && !cancelled);
    const char *state = again       ? "queued"
                        : done      ? "done"
                        : cancelled ? "cancelled"
                                    : "failed";
    time_t now = time(NULL);
    char code[16], finished[24] = "", due[24], tries[16];
    snprintf(code, sizeof code, "%d", status);
    if (!again) snprintf(finished, sizeof finished, "%lld", (long long)now);
    snprintf(due, sizeof due, "%lld", again && !stopped && !crashed ? (long long)now + (1LL << 2 * (j->tries - 1)) : 0LL);
    snprintf(tries, sizeof tries, "%d", stopped || crashed ? j->tries - 1 : j->tries);
    const char *args[] = {state, finished, code, again || (cancelled && !done) ? "" : text, j->id, due, tries,
                          crashed ? "1" : "0", NULL};
    if (execute(s, "UPDATE jobs SET status=?1, finished=?2, http=?3, result=?4, due=CAST(?6 AS INTEGER),"
                   " tries=CAST(?7 AS INTEGER), crashes=crashes+CAST(?8 AS INTEGER),"
                   " request=CASE ?1 WHEN 'queued' THEN request ELSE '' END WHERE id=?5", args)) return -1;
    if (!again) s->bytes -= j->request ? (int64_t)strlen(j->request) : 0;
    if (!again) metrics_add(s->srv->metrics, M_JOBS, state, NULL, 1);
    else if (!stopped) log_json("info", "a job will be tried again",
                                json_pack("{s:s,s:i,s:i}", "job", j->id, "status", status, "tries", j->tries));
    if (crashed) fail_crashing(s);
    forget_old(s);
    return 0;
}

/* Until it is stored, or the process ends: then it runs again. Called with the lock held, and gives it up meanwhile. */
static void finish_patiently(job_store *s, int me, const job *j, int status, const char *text, ending how) {
    for (bool told = false; finish_job(s, me, j, status, text, how); told = true) {
        struct timespec until;
        if (!told) log_json("error", "a job's result could not be stored", json_pack("{s:s,s:s}", "job", j->id, "error",
                                                                                     sqlite3_errmsg(s->db)));
        if (s->stop) return;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&s->more, &s->lock, &until);
    }
}

/* Until there may be something to claim: a submission, or (at most a second later) the time of a retry. */
static void wait_for_work(job_store *s) {
    struct timespec until;
    if (count(s, "SELECT count(*) FROM jobs WHERE status='queued'", NULL) == 0) {
        pthread_cond_wait(&s->more, &s->lock);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    pthread_cond_timedwait(&s->more, &s->lock, &until);
}

static bool engine_broken(const job_store *s) {
    scheduler_state st;
    scheduler_get_state(s->srv->scheduler, &st);
    return st.broken || !sandbox_alive(s->srv->sandbox);
}

static void *worker_main(void *arg) {
    job_store *s = arg;
    pthread_mutex_lock(&s->lock);
    worker w = {s, s->n_workers++};
    while (!s->stop && !atomic_load(&s->srv->draining)) {
        job j = {0};
        if (engine_broken(s) || !claim(s, &j)) {
            wait_for_work(s);
            continue;
        }
        snprintf(s->running[w.me].id, sizeof s->running[w.me].id, "%s", j.id);
        s->running[w.me].cancel = false;
        pthread_mutex_unlock(&s->lock);
        int status, tenant = tenant_index(s, j.tenant);
        ending how = FINAL;
        char *text = tenant < 0 ? refuse_job(&status) : run_job(&w, &j, tenant, &status, &how);
        pthread_mutex_lock(&s->lock);
        finish_patiently(s, w.me, &j, status, text ? text : "{}", how);
        s->running[w.me].id[0] = 0;
        if (how != FINAL) pthread_cond_broadcast(&s->more); /* a worker may sleep without a limit */
        free(text);
        free(j.request);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the outside -------------------------------------------------------------------------- */

/* Opens the file and brings it up to date, with what an end of the process left. */
static int open_file(job_store *s, const char *path, vl_err *err) {
    int rc = sqlite3_open(path, &s->db);
    if (!rc) rc = sqlite3_exec(s->db, schema_sql, NULL, NULL, NULL);
    for (size_t i = 0; i < sizeof added / sizeof *added && !rc; i++) {
        char sql[100];                /* fails where the column is there */
        snprintf(sql, sizeof sql, "ALTER TABLE jobs ADD COLUMN %s", added[i]);
        sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    }
    sqlite3_stmt *st = rc ? NULL : prepare(s, "SELECT tries, due, crashes FROM jobs", NULL);
    bool whole = st != NULL;
    sqlite3_finalize(st);
    /* A try that the end of the process cut off is none. */
    if (whole && !execute(s, "UPDATE jobs SET status='queued', tries=max(tries-1,0), crashes=crashes+1 WHERE status='running'",
                          NULL) && !fail_crashing(s)) return 0;
    return vl_fail(err, VL_E_IO, "%s%s: %s", path, rc || whole ? "" : ": cannot be brought up to this version",
                   sqlite3_errmsg(s->db));
}

/* Two servers at one folder would run each other's jobs. Where there are no locks there is no second server either. */
static int hold(job_store *s, const char *dir, vl_err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/jobs.lock", dir);
    s->held = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->held < 0) return vl_fail(err, VL_E_IO, "%s: %s", path, strerror(errno));
    if (!flock(s->held, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK) return 0;
    return vl_fail(err, VL_E_IO, "--state %s is in use by another server: give each its own", dir);
}

int jobs_open(job_store **out, server *srv, vl_err *err) {
    char path[4096] = ":memory:";
    const char *dir = srv->config.state_dir;
    job_store *s = vl_calloc(1, sizeof *s);
    if (!s) return vl_fail(err, VL_E_NOMEM, "out of memory");
    s->srv = srv;
    s->held = -1;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    if (dir && mkdir(dir, 0700) && errno != EEXIST) {
        jobs_free(s);
        return vl_fail(err, VL_E_IO, "--state %s: %s", dir, strerror(errno));
    }
    struct stat st;
    if (dir && (stat(dir, &st) || !S_ISDIR(st.st_mode) ||
                snprintf(path, sizeof path, "%s/jobs.sqlite", dir) >= (int)sizeof path)) {
        jobs_free(s);
        return vl_fail(err, VL_E_IO, "--state %s: this is no folder, or its name is too long", dir);
    }
    int fd = dir ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1; /* questions and pictures are in it */
    if (fd >= 0 && fchmod(fd, 0600))  /* one of an earlier version, open to others */
        log_json("warning", "the jobs' file may be open to others", json_pack("{s:s}", "error", strerror(errno)));
    if (fd >= 0) close(fd);
    if ((dir && hold(s, dir, err)) || open_file(s, path, err)) {
        jobs_free(s);
        return -1;
    }
    forget_old(s);
    for (; s->n_threads < WORKERS; s->n_threads++)
        if (pthread_create(&s->workers[s->n_threads], NULL, worker_main, s)) {
            jobs_stop(s);
            jobs_free(s);
            return vl_fail(err, VL_E_NOMEM, "cannot start a job thread");
        }
    *out = s;
    return 0;
}

void jobs_stop(job_store *s) {
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->lock);
    while (s->n_threads > 0) pthread_join(s->workers[--s->n_threads], NULL);
}

void jobs_free(job_store *s) {
    if (!s) return;
    sqlite3_close(s->db);
    if (s->held >= 0) close(s->held);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->more);
    free(s);
}

static json_t *describe(const job_store *s, sqlite3_stmt *st, bool with_result) {
    const char *result = (const char *)sqlite3_column_text(st, 5);
    json_t *o = json_pack("{s:s,s:s,s:s,s:I,s:b,s:i,s:i}", "id", sqlite3_column_text(st, 0), "object",
                          "job", "status", sqlite3_column_text(st, 1), "created_at",
                          (json_int_t)sqlite3_column_int64(st, 2), "durable", s->srv->config.state_dir != NULL,
                          "tries", sqlite3_column_int(st, 6), "crashes", sqlite3_column_int(st, 7));
    if (sqlite3_column_int64(st, 3))
        json_object_set_new(o, "finished_at", json_integer(sqlite3_column_int64(st, 3)));
    if (with_result && result && *result) {
        json_t *r = json_loads(result, JSON_ALLOW_NUL, NULL), *failure = json_object_get(r, "error");
        if (failure) json_object_set(o, "error", failure);
        else if (r) json_object_set(o, "result", r);
        json_decref(r);
    }
    return o;
}

static int storage_failed(const job_store *s, api_error *e, const char *what) {
    log_json("error", "job storage", json_pack("{s:s}", "error", sqlite3_errmsg(s->db)));
    return api_fail(e, 500, "storage_failed", NULL, "the %s; the server's log says why", what);
}

#define JOB_COLUMNS "id, status, created, finished, http, result, tries, crashes"

json_t *jobs_submit(job_store *s, int tenant, json_t *request, api_error *e) {
    char id[40], name[33], now[24], *text;
    json_t *o = NULL;
    new_id(id, sizeof id, "job_");
    tenant_name(s, tenant, name);
    snprintf(now, sizeof now, "%lld", (long long)time(NULL));
    text = json_dumps(request, JSON_COMPACT);
    int64_t size = text ? (int64_t)strlen(text) : 0, most = MAX_BODIES * s->srv->config.body_bytes;
    pthread_mutex_lock(&s->lock);
    const char *args[] = {id, name, now, text ? text : "{}", NULL};
    if (s->stop) {
        api_fail(e, 503, "shutting_down", NULL, "the server is shutting down");
        e->retry_after = 5;
    } else if (s->bytes + size > most) {
        api_fail(e, 429, "queue_full", NULL, "the queued jobs have %lld bytes already; try again later", (long long)s->bytes);
        e->retry_after = 30;
    } else if (count(s, "SELECT count(*) FROM jobs WHERE status='queued'", NULL) >= MAX_QUEUED) {
        api_fail(e, 429, "queue_full", NULL, "%d jobs are queued already; try again later",
                 MAX_QUEUED);
        e->retry_after = 30;
    } else if (execute(s, "INSERT INTO jobs(id, tenant, status, created, request) VALUES(?1, ?2, "
                          "'queued', CAST(?3 AS INTEGER), ?4)", args)) {
        storage_failed(s, e, "job could not be stored");
    } else {
        o = json_pack("{s:s,s:s,s:s,s:I,s:b,s:i,s:i}", "id", id, "object", "job", "status", "queued",
                      "created_at", (json_int_t)atoll(now), "durable",
                      s->srv->config.state_dir != NULL, "tries", 0, "crashes", 0);
        s->bytes += size;
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
    int rc = st ? sqlite3_step(st) : SQLITE_ERROR;
    json_t *o = rc == SQLITE_ROW ? describe(s, st, true) : NULL;
    if (rc == SQLITE_DONE) api_fail(e, 404, "job_not_found", NULL, "no such job");
    else if (rc != SQLITE_ROW) storage_failed(s, e, "job could not be read");
    sqlite3_finalize(st);
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
    pthread_mutex_lock(&s->lock);
    sqlite3_stmt *st =
        prepare(s,
                "SELECT " JOB_COLUMNS " FROM jobs WHERE tenant=?1 ORDER BY created DESC,"
                " rowid DESC LIMIT 101",  /* MAX_LISTED, and whether there are more */
                (const char *[]){name, NULL});
    int rc;
    bool more = false;
    while ((rc = st ? sqlite3_step(st) : SQLITE_ERROR) == SQLITE_ROW && !(more = json_array_size(list) == MAX_LISTED))
        json_array_append_new(list, describe(s, st, false));
    if (more) rc = SQLITE_DONE;
    if (rc != SQLITE_DONE) storage_failed(s, e, "jobs could not be read");
    sqlite3_finalize(st);
    pthread_mutex_unlock(&s->lock);
    if (rc == SQLITE_DONE) return json_pack("{s:s,s:o,s:b}", "object", "list", "data", list, "has_more", more);
    json_decref(list);
    return NULL;
}

json_t *jobs_cancel(job_store *s, int tenant, const char *id, api_error *e) {
    pthread_mutex_lock(&s->lock);
    json_t *o = get_locked(s, tenant, id, e);
    const char *status = json_string_value(json_object_get(o, "status"));
    const char *args[] = {id, NULL};
    int rc = 0;
    if (o && !strcmp(status, "running")) {
        for (int i = 0; i < WORKERS; i++)
            if (!strcmp(s->running[i].id, id)) s->running[i].cancel = true;
        json_object_set_new(o, "status", json_string("cancelling"));
    } else if (o && !strcmp(status, "queued")) {
        int64_t size = count(s, "SELECT length(CAST(request AS BLOB)) FROM jobs WHERE id=?1", args);
        rc = execute(s, "UPDATE jobs SET status='cancelled', finished=strftime('%s','now'), request='' WHERE id=?1", args);
        json_object_set_new(o, "status", json_string("cancelled"));
        if (!rc) s->bytes -= size, metrics_add(s->srv->metrics, M_JOBS, "cancelled", NULL, 1);
    } else if (o) {
        rc = execute(s, "DELETE FROM jobs WHERE id=?1", args);
        json_object_set_new(o, "deleted", json_true());
    }
    if (rc) {
        storage_failed(s, e, "job could not be changed");
        json_decref(o);
        o = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    return o;
}
