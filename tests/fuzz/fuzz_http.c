/* fuzz_http.c: any bytes as what a client sends to the whole server (demo model, real scheduler), over a
 * socket: request line, header fields, framing, keys, JSON and multipart bodies. Every answer is HTTP, none
 * is a 500, and the connection ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "serve/http.h"
#include "serve/scheduler.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sockaddr_in start(void) {
    static server srv;
    vl_err err = {0};
    http_server *http;
    scheduler_state st = {0};
    signal(SIGPIPE, SIG_IGN);
    srv.config = server_defaults();
    srv.config.model_dir = "models/demo";
    srv.config.port = 0;
    srv.config.image_pixels = 1 << 14;
    srv.config.kv_tokens = 128;
    srv.config.default_tokens = 1;
    srv.config.max_time_s = 2;
    srv.config.log_requests = false;
    srv.config.keys[srv.config.n_keys++] = "fuzz-key";
    vl_assert(server_open(&srv, NULL, &err) == 0 && http_open(&http, &srv, &err) == 0, "%s", err.msg);
    while (!st.ready) {
        usleep(10000);
        scheduler_get_state(srv.scheduler, &st);
        vl_assert(!st.broken, "the warm-up failed");
    }
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)http_port(http)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct sockaddr_in to;
    static char answer[1 << 20];
    if (!to.sin_port) to = start();
    static uint32_t turn;
    /* This side closes first, so that each connection leaves its port in TIME_WAIT for a minute: those of one
     * address ran out after 28000 runs. */
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + turn++ % 1000)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), later = 1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &later, sizeof later);
    vl_assert(fd >= 0 && bind(fd, (struct sockaddr *)&from, sizeof from) == 0 &&
              connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "no connection: %s", strerror(errno));
    for (ssize_t n; size && (n = send(fd, data, size, 0)) > 0; size -= (size_t)n) data += n;
    shutdown(fd, SHUT_WR);
    size_t got = 0;
    for (ssize_t n; got < sizeof answer - 1 && (n = recv(fd, answer + got, sizeof answer - 1 - got, 0)) > 0;)
        got += (size_t)n;
    close(fd);
    answer[got] = 0;
    vl_assert(got < 9 || memcmp(answer, "HTTP/1.", 7) == 0, "%.60s", answer);
    /* 501 and 505 are for methods and versions, 503 for a server that is busy */
    vl_assert(got < 12 || memcmp(answer + 9, "500", 3) != 0, "%.900s", answer);
    return 0;
}
