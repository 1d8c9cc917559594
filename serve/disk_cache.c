/* disk_cache.c: see disk_cache.h. What a record is charged for covers what SQLite takes on disk for
 * it (whole pages and its row), so the bound holds for the file; max_page_count is a second one. */
#include "serve/disk_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, SLACK = 64 };        /* SLACK: pages of the file beyond the bound */

struct disk_cache {
    pthread_mutex_t lock;
    sqlite3 *db;
    sqlite3_stmt *get, *touch, *put, *drop, *oldest;
    int64_t bytes, max_bytes, clock;  /* clock: of the most recent use */
    metrics *metrics;
    bool told;                        /* a storage error has been logged */
};

static int64_t charge(size_t len) { return ((int64_t)len / PAGE + 2) * PAGE; }

static void digest(const uint8_t key[32], const void *record, size_t len, uint8_t out[32]) {
    vl_sha256 h;
    vl_sha256_init(&h);
    vl_sha256_add(&h, key, 32);
    vl_sha256_add(&h, record, len);
    vl_sha256_end(&h, out);
}

static void failed(disk_cache *d) {
    if (!d->told)
        log_json("warning", "the result cache on disk fails", json_pack("{s:s}", "error",
                                                                        sqlite3_errmsg(d->db)));
    d->told = true;
}

/* Runs a prepared statement that returns no row. */
static bool run(disk_cache *d, sqlite3_stmt *st) {
    bool ok = sqlite3_step(st) == SQLITE_DONE;
    if (!ok) failed(d);
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    return ok;
}

static bool remove_row(disk_cache *d, int64_t row, int64_t charged) {
    sqlite3_bind_int64(d->drop, 1, row);
    bool ok = run(d, d->drop);
    if (ok) d->bytes -= charged;
    return ok;
}

static void make_room(disk_cache *d, int64_t need) {
    while (d->bytes + need > d->max_bytes) {
        bool got = sqlite3_step(d->oldest) == SQLITE_ROW;
        int64_t row = got ? sqlite3_column_int64(d->oldest, 0) : 0;
        int64_t charged = got ? sqlite3_column_int64(d->oldest, 1) : 0;
        sqlite3_reset(d->oldest);
        if (!got || !remove_row(d, row, charged)) return;
    }
}

/* ---- opening ------------------------------------------------------------------------------ */

static int64_t number(sqlite3 *db, const char *sql) {
    sqlite3_stmt *st = NULL;
    int64_t n = -1;
    if (!sqlite3_prepare_v2(db, sql, -1, &st, NULL) && sqlite3_step(st) == SQLITE_ROW)
        n = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return n;
}

static int64_t max_pages(const disk_cache *d) { return d->max_bytes / PAGE + SLACK; }

/* SQLite takes no number that the file has passed already. */
static int limit_pages(disk_cache *d) {
    char sql[80];
    snprintf(sql, sizeof sql, "PRAGMA max_page_count=%lld", (long long)max_pages(d));
    return sqlite3_exec(d->db, sql, NULL, NULL, NULL);
}

static int open_file(disk_cache *d, const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* whatever the folder's mode is */
    if (fd >= 0) close(fd);
    int rc = sqlite3_open(path, &d->db);
    /* EXCLUSIVE first: WAL then needs no shared memory, and a second server is told. */
    if (!rc)
        rc = sqlite3_exec(d->db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA page_size=4096;"
            "PRAGMA auto_vacuum=INCREMENTAL;" /* before the first table, or it is too late */
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA journal_size_limit=1048576;"
            "PRAGMA wal_autocheckpoint=200;" /* pages: the log stays small beside a small bound */
            "PRAGMA cell_size_check=ON; BEGIN EXCLUSIVE;"
            "CREATE TABLE IF NOT EXISTS results(id INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL,"
            " used INTEGER NOT NULL, charged INTEGER NOT NULL, sum BLOB NOT NULL,"
            " record BLOB NOT NULL);"
            "CREATE INDEX IF NOT EXISTS by_use ON results(used, charged); COMMIT;",
            NULL, NULL, NULL);
    if (!rc) rc = limit_pages(d);
    const struct { sqlite3_stmt **at; const char *sql; } all[] = {
        {&d->get, "SELECT id, charged, sum, record FROM results WHERE key=?1"},
        {&d->touch, "UPDATE results SET used=?2 WHERE id=?1"},
        {&d->put, "INSERT INTO results(key, used, charged, sum, record) VALUES(?1, ?2, ?3, ?4, ?5)"
                  " ON CONFLICT(key) DO NOTHING"},
        {&d->drop, "DELETE FROM results WHERE id=?1"},
        {&d->oldest, "SELECT id, charged FROM results ORDER BY used LIMIT 1"}};
    for (size_t i = 0; i < sizeof all / sizeof *all && !rc; i++)
        rc = sqlite3_prepare_v3(d->db, all[i].sql, -1, SQLITE_PREPARE_PERSISTENT, all[i].at, NULL);
    if (rc) return rc;
    d->bytes = number(d->db, "SELECT ifnull(sum(charged), 0) FROM results");
    d->clock = number(d->db, "SELECT ifnull(max(used), 0) FROM results");
    return d->bytes < 0 || d->clock < 0 ? SQLITE_CORRUPT : SQLITE_OK;
}

static void close_file(disk_cache *d) {
    sqlite3_stmt *all[] = {d->get, d->touch, d->put, d->drop, d->oldest};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) sqlite3_finalize(all[i]);
    d->get = d->touch = d->put = d->drop = d->oldest = NULL;
    sqlite3_close(d->db);
    d->db = NULL;
}

/* What SQLite has beside a file. */
static const char *const tails[] = {"", "-wal", "-shm", "-journal"};
enum { TAILS = sizeof tails / sizeof *tails };

static void remove_file(const char *path) {
    char name[4200];
    for (int i = 0; i < TAILS; i++) {
        snprintf(name, sizeof name, "%s%s", path, tails[i]);
        unlink(name);
    }
}

/* The bound may be lower than last time: rows go, then the file's free pages. False: the file is still
 * too large (it was made without auto_vacuum, or the disk is full). */
static bool shrink(disk_cache *d) {
    make_room(d, 0);
    if (number(d->db, "PRAGMA page_count") > max_pages(d))
        sqlite3_exec(d->db, "PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL);
    return number(d->db, "PRAGMA page_count") <= max_pages(d) && !limit_pages(d);
}

static bool one_of_our_groups(gid_t group) {
    gid_t list[256];
    int n = getgroups(256, list);
    for (int i = 0; i < n; i++)
        if (list[i] == group) return true;
    return group == getegid();
}

/* A cache of ours in a folder that is open to others: one of an earlier version (to look into, not to write:
 * what would be in it?), or one in a volume that Kubernetes has given to the pod's group (fsGroup makes all of it
 * writable for the group, at every start), if that group is ours. It can be closed. */
static bool is_open_cache(const char *dir, const struct stat *st) {
    char path[4100];
    struct stat file;
    bool looked_into = !(st->st_mode & 022), group = !(st->st_mode & 07) && one_of_our_groups(st->st_gid);
    return st->st_uid == geteuid() && (looked_into || group) &&
           snprintf(path, sizeof path, "%s/results.sqlite", dir) < (int)sizeof path && !lstat(path, &file) &&
           S_ISREG(file.st_mode) && file.st_uid == st->st_uid;
}

/* The folder first: after that nobody else can put files into it. Those that are there must be ours. */
static int close_cache(const char *dir, const struct stat *st, vl_err *err) {
    char path[4200];
    struct stat file;
    if (chmod(dir, 0700)) return vl_fail(err, VL_E_IO, "--result-cache-dir %s: %s", dir, strerror(errno));
    if (st->st_mode & 020)
        log_json("warning", "the result cache on disk was writable for its group (fsGroup?); it is closed now", NULL);
    for (int i = 0; i < TAILS; i++) {
        snprintf(path, sizeof path, "%s/results.sqlite%s", dir, tails[i]);
        if (lstat(path, &file)) continue;
        if (!S_ISREG(file.st_mode) || file.st_uid != geteuid() || file.st_nlink != 1)
            return vl_fail(err, VL_E_IO, "%.150s is no file of this user's own: remove it", path);
        if (file.st_mode & 077 && chmod(path, 0600)) return vl_fail(err, VL_E_IO, "%s: %s", path, strerror(errno));
    }
    return 0;
}

/* Answers lie in it as text: nobody else may look inside. A folder that is there already and is none of
 * ours is left as it is (it may be one that others need), and refused if it is open to them. */
static int make_folder(const char *dir, vl_err *err) {
    struct stat st;
    if (mkdir(dir, 0700) && errno != EEXIST)
        return vl_fail(err, VL_E_IO, "--result-cache-dir %s: %s", dir, strerror(errno));
    if (stat(dir, &st)) return vl_fail(err, VL_E_IO, "--result-cache-dir %s: %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode)) return vl_fail(err, VL_E_IO, "--result-cache-dir %s: this is no folder", dir);
    if (st.st_mode & 077 && is_open_cache(dir, &st)) return close_cache(dir, &st, err);
    if (st.st_uid != geteuid() || st.st_mode & 077)
        return vl_fail(err, VL_E_IO, "--result-cache-dir %.100s: others may enter it (mode %03o, user %d), and "
                       "answers lie there as text: name a folder that is not there yet (it may be inside this one), or "
                       "chmod 700 it", dir, (unsigned)st.st_mode & 0777, (int)st.st_uid);
    return 0;
}

int disk_cache_open(disk_cache **out, const char *dir, int64_t max_bytes, metrics *m, vl_err *err) {
    char path[4100];
    disk_cache *d = vl_calloc(1, sizeof *d);
    if (!d) return vl_fail(err, VL_E_NOMEM, "out of memory");
    pthread_mutex_init(&d->lock, NULL);
    d->max_bytes = max_bytes;
    d->metrics = m;
    *out = d;                         /* freed with what holds it, whatever happens below */
    if (make_folder(dir, err)) return -1;
    if (snprintf(path, sizeof path, "%s/results.sqlite", dir) >= (int)sizeof path)
        return vl_fail(err, VL_E_USAGE, "--result-cache-dir: the name is too long");
    int rc = open_file(d, path);
    bool damaged = rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB || rc == SQLITE_ERROR || rc == SQLITE_FORMAT;
    if (damaged || (!rc && !shrink(d))) {
        log_json("warning", damaged ? "the result cache on disk is damaged and begins anew"
                 : "the result cache on disk cannot be made smaller and begins anew", NULL);
        close_file(d);
        remove_file(path);
        rc = open_file(d, path);
    }
    if (rc == SQLITE_BUSY)
        return vl_fail(err, VL_E_IO, "%s is in use by another server: give each its own "
                       "--result-cache-dir", path);
    if (rc) return vl_fail(err, VL_E_IO, "%s: %s", path, sqlite3_errmsg(d->db));
    metrics_set(m, M_DISK_BYTES, (double)d->bytes);
    return 0;
}

void disk_cache_free(disk_cache *d) {
    if (!d) return;
    close_file(d);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

/* ---- use ---------------------------------------------------------------------------------- */

/* The record in the row that `get` stands on; NULL and *damaged if it is not what was stored. */
static char *take_record(disk_cache *d, const uint8_t key[32], size_t *len, bool *damaged) {
    const void *sum = sqlite3_column_blob(d->get, 2), *record = sqlite3_column_blob(d->get, 3);
    size_t n = (size_t)sqlite3_column_bytes(d->get, 3);
    uint8_t found[32];
    digest(key, record ? record : "", n, found);
    *damaged = !record || !sum || sqlite3_column_bytes(d->get, 2) != 32 || memcmp(sum, found, 32);
    char *copy = *damaged ? NULL : malloc(n + 1);
    if (!copy) return NULL;
    memcpy(copy, record, n);
    copy[*len = n] = 0;
    return copy;
}

char *disk_cache_get(disk_cache *d, const uint8_t key[32], size_t *len) {
    char *copy = NULL;
    bool damaged = false;
    pthread_mutex_lock(&d->lock);
    sqlite3_bind_blob(d->get, 1, key, 32, SQLITE_STATIC);
    int rc = sqlite3_step(d->get);
    int64_t row = 0, charged = 0;
    if (rc == SQLITE_ROW) {
        row = sqlite3_column_int64(d->get, 0);
        charged = sqlite3_column_int64(d->get, 1);
        copy = take_record(d, key, len, &damaged);
    } else if (rc != SQLITE_DONE) {
        failed(d);
    }
    sqlite3_reset(d->get);
    sqlite3_clear_bindings(d->get);
    if (copy) {
        sqlite3_bind_int64(d->touch, 1, row);
        sqlite3_bind_int64(d->touch, 2, ++d->clock);
        run(d, d->touch);
    } else if (damaged) {
        remove_row(d, row, charged);
        metrics_add(d->metrics, M_DISK_DAMAGED, NULL, NULL, 1);
    }
    metrics_set(d->metrics, M_DISK_BYTES, (double)d->bytes);
    pthread_mutex_unlock(&d->lock);
    metrics_add(d->metrics, copy ? M_DISK_HITS : M_DISK_MISSES, NULL, NULL, 1);
    return copy;
}

void disk_cache_put(disk_cache *d, const uint8_t key[32], const char *record, size_t len) {
    int64_t need = charge(len);
    uint8_t sum[32];
    if (need > d->max_bytes / 4) return;  /* one answer must not empty the cache */
    digest(key, record, len, sum);
    pthread_mutex_lock(&d->lock);
    make_room(d, need);
    sqlite3_bind_blob(d->put, 1, key, 32, SQLITE_STATIC);
    sqlite3_bind_int64(d->put, 2, ++d->clock);
    sqlite3_bind_int64(d->put, 3, need);
    sqlite3_bind_blob(d->put, 4, sum, 32, SQLITE_STATIC);
    sqlite3_bind_blob(d->put, 5, record, (int)len, SQLITE_STATIC);
    if (run(d, d->put) && sqlite3_changes(d->db)) d->bytes += need;
    metrics_set(d->metrics, M_DISK_BYTES, (double)d->bytes);
    pthread_mutex_unlock(&d->lock);
}
