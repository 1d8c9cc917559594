/* test_fetch.c: which addresses a picture may be fetched from, and how hosts are allowed. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#include "serve/fetch.h"
#include "tests/test.h"

static const char *const closed[] = {
    /* this host, private, carrier NAT, loopback */
    "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.1.2.3", "10.255.255.255", "100.64.0.0", "100.64.0.1",
    "100.100.100.200", "100.127.255.255", "127.0.0.1", "127.0.0.53", "127.255.255.255",
    "172.16.0.0", "172.16.0.1", "172.31.255.255", "192.168.0.0", "192.168.1.1", "192.168.255.255",
    /* link-local and the metadata services */
    "169.254.0.1", "169.254.169.254", "169.254.170.2", "169.254.255.255", "168.63.129.16",
    "192.0.0.192",
    /* protocol, documentation, benchmarks, 6to4 relays, multicast, reserved, broadcast */
    "192.0.0.1", "192.0.0.171", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    /* IPv6: unspecified, loopback, IPv4 compatible and mapped, NAT64 */
    "::", "::1", "::127.0.0.1", "::10.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::7f00:1",
    "64:ff9b::8.8.8.8", "64:ff9b:1::a00:1",
    /* discard, unique local (AWS's metadata among them), link-local, site-local, multicast */
    "100::1", "fc00::1", "fd00:ec2::254", "fd12:3456:789a::1", "fe80::1", "fe80::a9fe:a9fe",
    "febf::1", "fec0::1", "ff02::1", "ff0e::1", "5f00::1", "4000::1", "1fff::1",
    /* inside global unicast: Teredo, ORCHID, benchmarks, documentation, 6to4, ISATAP */
    "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff::1",
    "2001:db8::1", "2001:db8:ffff::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:808:808::1",
    "3fff::1", "3fff:fff::1", "2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:192.168.0.1"};

static const char *const open_ones[] = {
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255",
    "100.128.0.0", "126.255.255.255", "128.0.0.1", "168.63.129.15", "168.63.129.17",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255",
    "192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
    "203.0.112.255", "203.0.114.0", "223.255.255.255", "2001:200::1", "2001:4860:4860::8888",
    "2001:db7::1", "2001:db9::1", "2003::1", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e",
    "2620:fe::fe", "3ffe:ffff::1", "3fff:1000::1"};

static bool public_text(const char *text) {
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    const void *at = &v4;
    if (strchr(text, ':')) at = &v6;
    int ok = strchr(text, ':') ? inet_pton(AF_INET6, text, &v6.sin6_addr)
                               : inet_pton(AF_INET, text, &v4.sin_addr);
    CHECK(ok == 1, "%s is an address", text);
    return address_is_public(at);
}

static void hosts(void) {
    static const struct { const char *rule, *host, *port; bool match; } t[] = {
        {"example.com", "example.com", "443", true},
        {"example.com", "EXAMPLE.com", "443", true},
        {"example.com", "example.com", "80", false},
        {"example.com", "example.com", "8443", false},
        {"example.com", "www.example.com", "443", false},
        {"example.com", "example.com.evil.org", "443", false},
        {"example.com", "evilexample.com", "443", false},
        {"example.com", "example.co", "443", false},
        {"example.com", "example.com.", "443", false},
        {"example.com:8443", "example.com", "8443", true},
        {"example.com:8443", "example.com", "443", false},
        {"*.example.com", "cdn.example.com", "443", true},
        {"*.example.com", "a.b.Example.com", "443", true},
        {"*.example.com", "example.com", "443", false},
        {"*.example.com", ".example.com", "443", false},
        {"*.example.com", "evilexample.com", "443", false},
        {"*.example.com:444", "x.example.com", "444", true},
        {"[2606:4700::1111]:444", "[2606:4700::1111]", "444", true},
        {"[2606:4700::1111]", "[2606:4700::1111]", "443", true},
        {"[2606:4700::1111]", "[2606:4700::1112]", "443", false}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        CHECK(url_host_matches(t[i].rule, t[i].host, t[i].port) == t[i].match, "%s and %s:%s",
              t[i].rule, t[i].host, t[i].port);
}

static bool allowed(const char *list) {
    serve_config c = {0};
    bool ok = fetch_allow(&c, list) && c.n_url_hosts > 0;
    for (int i = 0; i < c.n_url_hosts; i++) free((char *)(uintptr_t)c.url_hosts[i]);
    return ok;
}

static void lists(void) {
    static const char *const good[] = {"a.example", "a.example,b.example:8443", "*.example.com",
                                       "[2606:4700::1111]:444,[::1]", "127.0.0.1:1"};
    static const char *const bad[] = {"", ",", "a,", "*", "*.", "a:0", "a:65536", "a:x", "a:", ":443",
                                      "https://a", "a/b", "a b", "a@b", "[::1", "[]", "a.*"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(allowed(good[i]), "'%s' is a list", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!allowed(bad[i]), "'%s' is no list", bad[i]);
    char many[4 * MAX_URL_HOSTS + 4] = "a.b";
    for (int i = 1; i < MAX_URL_HOSTS; i++) strcat(many, ",a.b");
    CHECK(allowed(many), "room for %d", MAX_URL_HOSTS);
    strcat(many, ",c");
    CHECK(!allowed(many), "no room for more");
}

/* ---- places --------------------------------------------------------------------------------- */

typedef struct asker {
    fetching f;
    caller by;
    atomic_int looks;                 /* how often it was asked whether its client is gone */
    bool gone, gives;                 /* gives: a place back, when it is asked */
    atomic_bool done, got;
    pthread_t thread;
} asker;

static bool is_gone(void *user) {
    asker *a = user;
    atomic_fetch_add(&a->looks, 1);
    if (a->gives) place_give(a->by.tenant);
    return a->gone;
}

static void *ask(void *user) {
    asker *a = user;
    atomic_store(&a->got, place_take(&a->f));
    atomic_store(&a->done, true);
    return NULL;
}

static void prepare(asker *a, server *srv, int tenant) {
    *a = (asker){.by = {.tenant = tenant, .arrived = vl_now(), .gone = is_gone, .user = a}};
    a->f = (fetching){.srv = srv, .by = &a->by, .until = vl_now() + 600};
}

/* Starts it and returns when it waits. */
static void start_waiting(asker *a, server *srv, int tenant) {
    prepare(a, srv, tenant);
    pthread_create(&a->thread, NULL, ask, a);
    while (!atomic_load(&a->looks)) usleep(1000);
}

static void places(void) {
    static server srv = {.config.n_keys = 3};
    asker a, b, c;
    prepare(&a, &srv, 0);
    for (int i = 0; i < FETCHES / 2; i++) CHECK(place_take(&a.f), "place %d of half", i);
    a.f.until = vl_now();
    CHECK(!place_take(&a.f), "one key has half of the places, and no time is left to wait");
    a.f.until += 600;
    a.gone = true;
    CHECK(!place_take(&a.f), "its client is gone");
    a.gone = false;
    a.f.max_time = 1e-9;
    CHECK(!place_take(&a.f), "the request's own time is over");
    a.f.max_time = 0;
    atomic_store(&srv.draining, 1);
    CHECK(!place_take(&a.f), "the server stops");
    atomic_store(&srv.draining, 0);
    prepare(&b, &srv, 1);
    for (int i = 0; i < FETCHES / 2; i++) CHECK(place_take(&b.f), "the other half, %d", i);
    start_waiting(&b, &srv, 1);       /* first to wait, but it holds more than the next */
    start_waiting(&c, &srv, 2);
    place_give(1);
    pthread_join(c.thread, NULL);
    CHECK(atomic_load(&c.got) && !atomic_load(&b.done), "a free place goes to the key that has fewest");
    place_give(0);
    pthread_join(b.thread, NULL);
    CHECK(atomic_load(&b.got), "then to the other");
    place_give(2);
    for (int i = 0; i < FETCHES / 2; i++) place_give(1);
    for (int i = 1; i < FETCHES / 2; i++) place_give(0);
    srv.config.n_keys = 0;            /* without keys there is one tenant, and it may have all */
    prepare(&a, &srv, 0);
    for (int i = 0; i < FETCHES; i++) CHECK(place_take(&a.f), "place %d of all", i);
    a.f.until = vl_now();
    CHECK(!place_take(&a.f), "there are no more");
    a.f.until += 600;
    a.gives = true;                   /* never ends if it is asked with the lock held */
    CHECK(place_take(&a.f), "a place that is freed while the client is looked at");
    for (int i = 0; i < FETCHES; i++) place_give(0);
}

int main(void) {
    places();
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++)
        CHECK(!public_text(closed[i]), "%s is not public", closed[i]);
    for (size_t i = 0; i < sizeof open_ones / sizeof *open_ones; i++)
        CHECK(public_text(open_ones[i]), "%s is public", open_ones[i]);
    struct sockaddr other = {.sa_family = AF_UNIX};
    CHECK(!address_is_public(&other), "a local socket is not public");
    hosts();
    lists();
    return test_end();
}
