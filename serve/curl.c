/* curl.c: see curl.h. */
#include "serve/curl.h"

#include <dlfcn.h>
#include <stdbool.h>

#include "common/common.h"

const curl_api *curl;

int curl_open(const char *who, vl_err *err) {
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
    static curl_api api;
    void *lib = NULL;
    if (curl) return 0;
    for (int i = 0; i < 2 && !lib; i++) lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return vl_fail(err, VL_E_UNSUPPORTED,
                       "%s needs libcurl.so.4 (on Debian: apt-get install libcurl4)", who);
    bool all = true;
#define FIND(name) all = (*(void **)&api.name = dlsym(lib, "curl_" #name)) != NULL && all;
    CURL_FUNCTIONS(FIND)
    if (!all || api.global_init(CURL_GLOBAL_DEFAULT))
        return vl_fail(err, VL_E_UNSUPPORTED, "this libcurl is too old (7.66 or newer is needed)");
    curl = &api;
    return 0;
}
