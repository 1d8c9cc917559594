/* api.h: what the files with driver entry points share. */
#ifndef API_H
#define API_H
#include "stream.h"

#define API __attribute__((visibility("default"))) CUresult
#define LOCK \
    pthread_mutex_lock(&gpusim_lock); \
    int locked __attribute__((cleanup(api_unlock), unused)) = 1
#define ENTER \
    do { \
        CUresult entered = api_enter(); \
        if (entered) return entered; \
    } while (0)
/* Also finds the stream behind a handle. */
#define ENTER_STREAM(s, handle) \
    ENTER; \
    struct Stream *s = stream_of(handle); \
    if (!s) return CU_INVALID_HANDLE

void api_unlock(int *unused);
/* 0 when the driver is initialised, a context is current and no fault has happened. */
CUresult api_enter(void);
/* Of the current context. */
int api_device(void);
/* Is any stream capturing? Allocation is then refused, as in thread-local capture mode. */
bool api_capturing(void);
#endif
