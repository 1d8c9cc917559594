/* fetch.h: pictures by https URL, for the hosts that --allow-image-urls names; off without it.
 *
 * The rules (acceptance F3): https only and verified; the host is on the list; the address that is
 * connected to is the one that was checked, and only public ones are connected to; a
 * redirect (3 at most) is a new URL under the same rules; bytes and time are bounded, the time over
 * all pictures of a request (and by its max_time); no proxy, cookies, credentials or decompression. What came is a
 * picture only if the confined decoder says so, whatever its media type.
 */
#ifndef SERVE_FETCH_H
#define SERVE_FETCH_H

#include <sys/socket.h>

#include "serve/pictures.h"

/* May the service connect to it? Only to global unicast addresses that belong to somebody: not
 * loopback, private, link-local, carrier NAT, multicast, documentation, cloud metadata, nor an IPv6
 * form that carries an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo, ISATAP). */
bool address_is_public(const struct sockaddr *a);

/* "HOST[:PORT]" or "*.DOMAIN[:PORT]" (any name under DOMAIN, not itself); port 443 if none. */
bool url_host_matches(const char *rule, const char *host, const char *port);

/* Adds the comma-separated rules; false: one is malformed or there are too many. */
bool fetch_allow(serve_config *c, const char *list);
/* Before any thread is started; does nothing when no host is allowed. */
int fetch_open(const serve_config *c, vl_err *err);

/* An http: or https: URL while fetching is on (else data_url_decode says that it is off). */
bool fetch_wanted(const server *srv, const char *url, size_t len);
/* The pictures by URL of one request. Fill srv, by and max_time (seconds after by->arrived; 0: none). */
typedef struct fetching {
    server *srv;
    const caller *by;
    double max_time, until;           /* until: vl_now() time, set by the first picture    */
} fetching;
/* Waits for a free place and for the site, but no longer than the request has time, its client is there
 * and the server takes requests. What may go better in a while is marked transient in *e. */
int fetch_picture(fetching *f, const char *url, size_t len, blob *out, api_error *e, const char *param);

/* ---- places: how many fetch at once -------------------------------------------------------- */

enum { FETCHES = 8 };                 /* each may hold a picture's bytes                   */
/* With several keys one of them holds half of the places at most, and a place that comes free goes to
 * the one of those that wait which holds the fewest. */
bool place_take(const fetching *f);   /* false: time is up, or the request is not wanted   */
void place_give(int tenant);

#endif
