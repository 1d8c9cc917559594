/* fetch.c: see fetch.h.
 *
 * Easy to get wrong: checking the name, or the result of an own look-up, and then letting the
 * client resolve again (DNS rebinding). Here libcurl resolves once per hop and open_socket() sees
 * the very address that connect() gets; a proxy from the environment would bypass that, so there is
 * none. The URL is parsed once, by the parser that the transfer uses.
 */
#include "serve/fetch.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "serve/curl.h"

enum { REDIRECTS = 3, MAX_URL = 2048 };

/* ---- addresses ---------------------------------------------------------------------------- */

/* IPv4 ranges that are not public hosts (IANA special-purpose registry), and one public-looking
 * address that is a cloud's metadata service. */
static const struct { uint8_t at[4]; int bits; } closed4[] = {
    {{0, 0, 0, 0}, 8},      {{10, 0, 0, 0}, 8},      {{100, 64, 0, 0}, 10},   {{127, 0, 0, 0}, 8},
    {{169, 254, 0, 0}, 16}, {{172, 16, 0, 0}, 12},   {{192, 0, 0, 0}, 24},    {{192, 0, 2, 0}, 24},
    {{192, 88, 99, 0}, 24}, {{192, 168, 0, 0}, 16},  {{198, 18, 0, 0}, 15},
    {{198, 51, 100, 0}, 24}, {{203, 0, 113, 0}, 24}, {{224, 0, 0, 0}, 4},     {{240, 0, 0, 0}, 4},
    {{168, 63, 129, 16}, 32},
};

/* IPv6: global unicast is 2000::/3 and nothing else (mapped, NAT64, unique local, link-local and
 * multicast lie outside); inside it these are not public hosts. */
static const struct { uint8_t at[4]; int bits; } closed6[] = {
    {{0x20, 0x01, 0x00, 0x00}, 23},   /* protocol assignments: Teredo, ORCHID, benchmarks */
    {{0x20, 0x01, 0x0d, 0xb8}, 32},   /* documentation */
    {{0x20, 0x02, 0x00, 0x00}, 16},   /* 6to4 */
    {{0x3f, 0xff, 0x00, 0x00}, 20},   /* documentation */
};

static bool has_prefix(const uint8_t *a, const uint8_t *prefix, int bits) {
    int whole = bits / 8, rest = bits % 8;
    return !memcmp(a, prefix, (size_t)whole) &&
           (!rest || (a[whole] ^ prefix[whole]) >> (8 - rest) == 0);
}

static bool public4(const uint8_t *a) {
    for (size_t i = 0; i < sizeof closed4 / sizeof *closed4; i++)
        if (has_prefix(a, closed4[i].at, closed4[i].bits)) return false;
    return true;
}

static bool public6(const uint8_t *a) {
    if (a[0] >> 5 != 1) return false;
    for (size_t i = 0; i < sizeof closed6 / sizeof *closed6; i++)
        if (has_prefix(a, closed6[i].at, closed6[i].bits)) return false;
    bool isatap = (a[8] & 0xfd) == 0 && a[9] == 0 && a[10] == 0x5e && a[11] == 0xfe;
    return !isatap;
}

bool address_is_public(const struct sockaddr *a) {
    const void *any = a;
    if (a->sa_family == AF_INET)
        return public4((const uint8_t *)&((const struct sockaddr_in *)any)->sin_addr);
    if (a->sa_family == AF_INET6)
        return public6(((const struct sockaddr_in6 *)any)->sin6_addr.s6_addr);
    return false;
}

/* ---- the allow-list ----------------------------------------------------------------------- */

/* Where the port of "HOST:PORT" or "[V6]:PORT" begins, or NULL. */
static const char *port_of(const char *rule) {
    const char *from = *rule == '[' ? strchr(rule, ']') : rule;
    const char *colon = from ? strchr(from, ':') : NULL;
    return colon ? colon + 1 : NULL;
}

bool url_host_matches(const char *rule, const char *host, const char *port) {
    const char *p = port_of(rule);
    size_t n = p ? (size_t)(p - 1 - rule) : strlen(rule), len = strlen(host);
    if (strcmp(p ? p : "443", port) != 0) return false;
    if (strncmp(rule, "*.", 2) != 0) return len == n && !strncasecmp(rule, host, n);
    return len > n - 1 && !strncasecmp(rule + 1, host + len - (n - 1), n - 1);
}

static bool rule_valid(const char *rule) {
    const char *p = port_of(rule), *host = strncmp(rule, "*.", 2) ? rule : rule + 2;
    size_t n = p ? (size_t)(p - 1 - host) : strlen(host);
    long port = p ? strtol(p, NULL, 10) : 443;
    bool digits = !p || (*p && strspn(p, "0123456789") == strlen(p) && port > 0 && port < 65536);
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    bool v6 = *host == '[' && n > 3 && host[n - 1] == ']' &&
              strspn(host + 1, "0123456789abcdefABCDEF:.") == n - 2;
    return n && n < 254 && digits && (v6 || strspn(host, plain) >= n);
}

bool fetch_allow(serve_config *c, const char *list) {
    char *copy = strdup(list), *rest = copy, *rule;
    bool ok = copy && *list;
    while (ok && (rule = strsep(&rest, ","))) {
        ok = c->n_url_hosts < MAX_URL_HOSTS && rule_valid(rule) && (rule = strdup(rule));
        if (ok) c->url_hosts[c->n_url_hosts++] = rule;
    }
    free(copy);
    return ok;
}

static bool host_listed(const serve_config *c, const char *host, const char *port) {
    for (int i = 0; i < c->n_url_hosts; i++)
        if (url_host_matches(c->url_hosts[i], host, port)) return true;
    return false;
}

/* ---- time and places ---------------------------------------------------------------------- */

enum stop { S_NOT, S_DRAINING, S_GONE, S_MAX_TIME, S_LATE };

/* Why the request needs to wait no longer. Once there is a reason there stays one. */
static enum stop why_stop(const fetching *f) {
    double now = vl_now();
    if (atomic_load(&f->srv->draining)) return S_DRAINING;
    if (f->by->gone && f->by->gone(f->by->user)) return S_GONE;
    if (f->max_time > 0 && now >= f->by->arrived + f->max_time) return S_MAX_TIME;
    return now >= f->until ? S_LATE : S_NOT;
}

static struct {
    pthread_mutex_t lock;
    pthread_cond_t freed;
    int held, held_by[MAX_KEYS], waiting[MAX_KEYS];
} places = {.lock = PTHREAD_MUTEX_INITIALIZER, .freed = PTHREAD_COND_INITIALIZER};

/* Called with the lock held. */
static bool is_next(int tenant, int most) {
    int mine = places.held_by[tenant];
    if (places.held == FETCHES || mine >= most) return false;
    for (int i = 0; i < MAX_KEYS; i++)
        if (places.waiting[i] && places.held_by[i] < mine) return false;
    return true;
}

bool place_take(const fetching *f) {
    int tenant = f->by->tenant, most = f->srv->config.n_keys > 1 ? FETCHES / 2 : FETCHES;
    bool got;
    pthread_mutex_lock(&places.lock);
    places.waiting[tenant]++;
    while (!(got = is_next(tenant, most))) {
        struct timespec until;
        pthread_mutex_unlock(&places.lock); /* who asks may have locks of its own, and is slow */
        enum stop why = why_stop(f);
        pthread_mutex_lock(&places.lock);
        if ((got = is_next(tenant, most)) || why) break; /* one may have been freed meanwhile */
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;   /* to look at why_stop() again */
        if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
        pthread_cond_timedwait(&places.freed, &places.lock, &until);
    }
    places.waiting[tenant]--;
    if (got) places.held++, places.held_by[tenant]++;
    pthread_cond_broadcast(&places.freed); /* who is next may have changed */
    pthread_mutex_unlock(&places.lock);
    return got;
}

void place_give(int tenant) {
    pthread_mutex_lock(&places.lock);
    places.held--;
    places.held_by[tenant]--;
    pthread_cond_broadcast(&places.freed);
    pthread_mutex_unlock(&places.lock);
}

/* ---- one hop ------------------------------------------------------------------------------ */

int fetch_open(const serve_config *c, vl_err *err) {
    return c->n_url_hosts ? curl_open("--allow-image-urls", err) : 0;
}

typedef struct transfer {
    const fetching *f;
    const serve_config *config;
    blob *out;
    size_t cap;
    bool blocked, too_large, no_memory;
    long status;
    char *next;                       /* where a redirect leads; malloc'd */
} transfer;

/* The hidden --test-image-url-ca, for the test suite: 127.0.0.1 may be connected to as well. */
static bool may_connect(const serve_config *c, const struct sockaddr *a) {
    const void *any = a;
    const struct sockaddr_in *v4 = any;
    return address_is_public(a) || (c->test_image_url_ca && a->sa_family == AF_INET &&
                                    v4->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
}

static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a) {
    transfer *t = user;
    if (purpose != CURLSOCKTYPE_IPCXN || !may_connect(t->config, &a->addr)) {
        t->blocked = true;
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static size_t take_bytes(char *data, size_t size, size_t n, void *user) {
    transfer *t = user;
    size_t more = size * n, max = (size_t)t->config->image_bytes;
    if (more > max - t->out->len) {
        t->too_large = true;
        return 0;
    }
    if (t->out->len + more + 1 > t->cap) {
        size_t cap = 2 * (t->out->len + more) + 4096;
        char *p = realloc(t->out->data, cap);
        if (!p) {
            t->no_memory = true;
            return 0;
        }
        t->out->data = p;
        t->cap = cap;
    }
    memcpy(t->out->data + t->out->len, data, more);
    t->out->len += more;
    return more;
}

/* libcurl asks at least once a second; not 0 ends the transfer. */
static int keep_going(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    const transfer *t = user;
    (void)a, (void)b, (void)c, (void)d;
    return t->blocked || why_stop(t->f);
}

static bool set_up(CURL *h, transfer *t, CURLU *url) {
    const struct { CURLoption option; long value; } numbers[] = {
        {CURLOPT_NOSIGNAL, 1}, {CURLOPT_FOLLOWLOCATION, 0}, {CURLOPT_NOPROGRESS, 0},
        {CURLOPT_SSL_VERIFYPEER, 1}, {CURLOPT_SSL_VERIFYHOST, 2}, {CURLOPT_FORBID_REUSE, 1},
        {CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1}, {CURLOPT_NETRC, CURL_NETRC_IGNORED},
        {CURLOPT_TIMEOUT_MS, (long)((t->f->until - vl_now()) * 1e3) + 1},
    };
    bool ok = true;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        ok = curl->easy_setopt(h, numbers[i].option, numbers[i].value) == CURLE_OK && ok;
    ok = ok && !curl->easy_setopt(h, CURLOPT_CURLU, url) &&
         !curl->easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https") &&
         !curl->easy_setopt(h, CURLOPT_PROXY, "") &&
         !curl->easy_setopt(h, CURLOPT_USERAGENT, "vitreous/" VL_VERSION) &&
         !curl->easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, open_socket) &&
         !curl->easy_setopt(h, CURLOPT_OPENSOCKETDATA, t) &&
         !curl->easy_setopt(h, CURLOPT_WRITEFUNCTION, take_bytes) &&
         !curl->easy_setopt(h, CURLOPT_WRITEDATA, t) &&
         !curl->easy_setopt(h, CURLOPT_XFERINFOFUNCTION, keep_going) &&
         !curl->easy_setopt(h, CURLOPT_XFERINFODATA, t) &&
         !curl->easy_setopt(h, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)t->config->image_bytes);
    if (ok && t->config->test_image_url_ca)
        ok = !curl->easy_setopt(h, CURLOPT_CAINFO, t->config->test_image_url_ca);
    curl->easy_setopt(h, CURLOPT_QUICK_EXIT, 1L); /* no waiting for a look-up that is late (7.87) */
    return ok;
}

/* The site's own trouble: worth another try. The rest (a bad certificate, 404) stays as it is. */
static bool is_transient(CURLcode code, long status) {
    static const CURLcode passing[] = {
        CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_CONNECT, CURLE_PARTIAL_FILE, CURLE_GOT_NOTHING,
        CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_SSL_CONNECT_ERROR};
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
        if (code == passing[i]) return true;
    return code == CURLE_OK && (status / 100 == 5 || status == 429 || status == 408);
}

static int explain_stop(const fetching *f, enum stop why, api_error *e, const char *param) {
    switch (why) {
    case S_DRAINING:
        api_fail(e, 503, "shutting_down", param, "the server is shutting down");
        e->retry_after = 5;
        return -1;
    case S_GONE:
        return api_fail(e, 499, "client_closed", param, "the client went away");
    case S_MAX_TIME:
        return api_fail(e, 408, "deadline_exceeded", "max_time",
                        "the time of the request was over before its images by URL were there");
    default:
        api_fail(e, 504, "remote_url_timeout", param,
                 "the images by URL were not there within %g s; send the bytes instead",
                 f->srv->config.fetch_s);
        e->transient = true;
        return -1;
    }
}

static int explain(const transfer *t, CURLcode code, api_error *e, const char *param) {
    enum stop why = why_stop(t->f);
    if (t->blocked)
        return api_fail(e, 400, "remote_url_blocked", param, "the image URL leads to an address "
                        "that is not public: private, loopback, link-local and metadata addresses "
                        "are never fetched");
    if (t->too_large || code == CURLE_FILESIZE_EXCEEDED)
        return api_fail(e, 413, "image_too_large", param, "an image may have at most %lld bytes",
                        (long long)t->config->image_bytes);
    if (t->no_memory || code == CURLE_OUT_OF_MEMORY)
        return api_fail(e, 500, "out_of_memory", param, "out of memory");
    if (code == CURLE_OPERATION_TIMEDOUT && !why) why = S_LATE;
    if (why) return explain_stop(t->f, why, e, param);
    int rc = 0;
    if (code != CURLE_OK)
        rc = api_fail(e, 400, "remote_url_failed", param, "the image URL could not be fetched: %s",
                      curl->easy_strerror(code));
    else if (t->status != 200)
        rc = api_fail(e, 400, "remote_url_failed", param, "the image URL answered with HTTP %ld", t->status);
    else if (!t->out->len)
        rc = api_fail(e, 400, "remote_url_failed", param, "the image URL is empty");
    if (rc) e->transient = is_transient(code, t->status);
    return rc;
}

static int hop(transfer *t, CURLU *url, api_error *e, const char *param) {
    CURL *h = curl->easy_init();
    char *next = NULL;
    if (!h || !set_up(h, t, url)) {
        if (h) curl->easy_cleanup(h);
        return api_fail(e, 500, "remote_url_failed", param, "this libcurl cannot fetch images: "
                        "7.85 or newer with TLS is needed");
    }
    t->out->len = 0;                  /* the body of a redirect is nothing */
    CURLcode code = curl->easy_perform(h);
    curl->easy_getinfo(h, CURLINFO_RESPONSE_CODE, &t->status);
    if (code == CURLE_OK && t->status / 100 == 3)
        curl->easy_getinfo(h, CURLINFO_REDIRECT_URL, &next);
    if (next && !t->blocked) t->next = strdup(next);
    curl->easy_cleanup(h);
    return t->next ? 0 : explain(t, code, e, param);
}

/* ---- the whole ---------------------------------------------------------------------------- */

/* The parsed URL if it is one that may be asked for, else NULL. */
static CURLU *check_url(const serve_config *c, const char *text, api_error *e, const char *param) {
    char *part[4] = {0};
    static const CURLUPart which[4] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT,
                                       CURLUPART_USER};
    CURLU *u = curl->url();
    bool plain = strlen(text) <= MAX_URL;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        plain = plain && *p > 32 && *p < 127;
    bool ok = u && plain && !curl->url_set(u, CURLUPART_URL, text, 0);
    for (int i = 0; ok && i < 4; i++) curl->url_get(u, which[i], &part[i], CURLU_DEFAULT_PORT);
    bool https = ok && part[0] && !strcmp(part[0], "https");
    bool parsed = ok && part[0] && (!https || (part[1] && part[2]));
    const char *why = !parsed ? "this is no URL of at most 2048 plain ASCII characters"
                    : !https ? "only https: URLs are fetched"
                    : part[3] ? "a URL with a user name is not fetched"
                    : !host_listed(c, part[1], part[2])
                        ? "this host (and port) is not on the server's list (--allow-image-urls)"
                        : NULL;
    for (int i = 0; i < 4; i++) curl->free(part[i]);
    if (!why) return u;
    if (u) curl->url_cleanup(u);
    api_fail(e, 400, parsed ? "remote_url_not_allowed" : "invalid_image_url", param, "%s", why);
    return NULL;
}

static int follow(transfer *t, const char *url, api_error *e, const char *param) {
    char *at = strdup(url);
    enum stop why;
    int rc = at ? 0 : api_fail(e, 500, "out_of_memory", param, "out of memory");
    for (int hops = 0; rc == 0 && at; hops++) {
        CURLU *u = check_url(t->config, at, e, param);
        free(at);
        if (hops > REDIRECTS)
            rc = api_fail(e, 400, "remote_url_failed", param, "more than %d redirects", REDIRECTS);
        else if (u && (why = why_stop(t->f))) /* and curl takes no time left for no limit */
            rc = explain_stop(t->f, why, e, param);
        else rc = u ? hop(t, u, e, param) : -1;
        if (u) curl->url_cleanup(u);
        at = t->next;
        t->next = NULL;
    }
    free(at);
    return rc;
}

bool fetch_wanted(const server *srv, const char *url, size_t len) {
    return srv->config.n_url_hosts && len >= 5 && !strncasecmp(url, "http", 4) &&
           (url[4] == ':' || !strncasecmp(url + 4, "s:", 2));
}

int fetch_picture(fetching *f, const char *url, size_t len, blob *out, api_error *e, const char *param) {
    server *srv = f->srv;
    transfer t = {.f = f, .config = &srv->config, .out = out};
    int rc;
    *out = (blob){0};
    if (strlen(url) != len)
        return api_fail(e, 400, "invalid_image_url", param, "a URL holds no NUL character");
    if (f->until <= 0) f->until = vl_now() + srv->config.fetch_s;
    if (place_take(f)) {
        rc = follow(&t, url, e, param);
        place_give(f->by->tenant);
    } else {
        rc = explain_stop(f, why_stop(f), e, param);
    }
    metrics_add(srv->metrics, M_FETCHES, rc ? e->code : "ok", NULL, 1);
    if (rc == 0) return 0;
    free(out->data);
    *out = (blob){0};
    return -1;
}
