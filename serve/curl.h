/* curl.h: libcurl, opened at run time: only `vitreous load` and `serve --allow-image-urls` need it,
 * and its static form would bring in a dozen libraries. */
#ifndef SERVE_CURL_H
#define SERVE_CURL_H

#include <curl/curl.h>

#include "vitreous.h"

#define CURL_FUNCTIONS(F)                                                                        \
    F(global_init) F(easy_init) F(easy_setopt) F(easy_getinfo) F(easy_cleanup) F(easy_strerror)  \
    F(easy_perform) F(multi_init) F(multi_setopt) F(multi_add_handle) F(multi_remove_handle)     \
    F(multi_perform) F(multi_poll) F(multi_info_read) F(multi_cleanup) F(slist_append)           \
    F(slist_free_all) F(url) F(url_get) F(url_set) F(url_cleanup) F(free)
#define CURL_MEMBER(name) __typeof__(curl_##name) *name;
typedef struct curl_api { CURL_FUNCTIONS(CURL_MEMBER) } curl_api;

/* NULL before curl_open() has succeeded. */
extern const curl_api *curl;
/* `who` needs it (for the message). Call while the process has one thread; again does nothing. */
int curl_open(const char *who, vl_err *err);

#endif
