/* tuning.h: choices of the CPU backend that were measured on this machine and change no bit of any result:
 * blocking, threads, and which of several kernels with the same bits. `vitreous tune` measures them and writes one
 * small file; every CPU backend reads it when it opens.
 *
 *   $VL_TUNE                                  a file, or "off": nothing is read
 *   $XDG_CACHE_HOME/vitreous/tuning-ID        (or ~/.cache/vitreous) ID: this machine's
 *
 *   vitreous tuning 1
 *   cpu Intel(R) Xeon(R) ...                  must be this machine's,
 *   cores 2                                   what this process may use,
 *   build release-0123456789abcdef            and these kernels: otherwise the file is left alone, with a notice
 *   spins 4000
 *   gemm_q8 gemm_q8_avx2
 *   check SHA-256 of the lines above
 *
 * VL_KERNEL, VL_CPU and --threads go before the file.
 */
#ifndef VL_TUNING_H
#define VL_TUNING_H

#include "common/common.h"
#include "kernels/ops.h"

/* key, value without a file, least and greatest, meaning */
#define VL_TUNE_KEYS(K)                                                                                    \
    K(threads, 0, 0, 1024, "threads where --threads does not say; 0: every core this process may use")    \
    K(spins, 4000, 0, 1000000, "looks for work before an idle thread sleeps")                              \
    K(exact_few, 8, 1, 8, "rows up to which a pass streams the weights once (exact and bf16)")             \
    K(exact_rows, 240, 12, 4800, "rows of x packed at a time (exact; bf16 without AMX)")                   \
    K(exact_panels, 8, 1, 64, "panels of 32 weight rows, at most, that share a block of x (exact and bf16)")         \
    K(int_rows, 240, 6, 4800, "rows of x packed at a time (int8, int4)")                                   \
    K(int_panels, 8, 1, 64, "panels that share a block of x (int8, int4)")                                 \
    K(int_tiles, 48, 0, 100000, "rows from which int8 and int4 use the tile unit (AMX); 0: never")         \
    K(int_tile_rows, 800, 16, 4800, "rows of x packed at a time for it")

/* Slots of the leaf kernels whose lines all give the same bits, so that the file may choose one. */
#define VL_TUNE_SLOTS(S) S(pack_rows) S(pack_q) S(gemm_q8) S(gemm_q4)

typedef enum vl_tune_key {
#define KEY(name, value, lo, hi, about) VL_TUNE_##name,
    VL_TUNE_KEYS(KEY)
#undef KEY
    VL_TUNE_VALUES
} vl_tune_key;
typedef enum vl_tune_slot {
#define SLOT(name) VL_TUNE_SLOT_##name,
    VL_TUNE_SLOTS(SLOT)
#undef SLOT
    VL_TUNE_SLOTS_COUNT
} vl_tune_slot;

typedef struct vl_tune_info { const char *name; int value, lo, hi; const char *about; } vl_tune_info;
extern const vl_tune_info vl_tune_infos[VL_TUNE_VALUES];
extern const char *const vl_tune_slots[VL_TUNE_SLOTS_COUNT];

typedef struct vl_tuning {
    int value[VL_TUNE_VALUES];
    const char *kernel[VL_TUNE_SLOTS_COUNT]; /* a line of ukernels.def; NULL: the best present       */
} vl_tuning;

void vl_tuning_default(vl_tuning *t);
/* What this process uses: the file's choices, or the defaults. note (size n): "", or why a file is ignored. */
void vl_tuning_load(vl_tuning *t, char *note, size_t n);
/* "key=value", a value of the table or a line of a slot; VL_E_USAGE, naming what there is. */
int vl_tuning_set(vl_tuning *t, const char *assignment, vl_err *err);
/* Where the file is or would be; false: nowhere (VL_TUNE=off, no home). */
bool vl_tuning_path(char *path, size_t n, bool make);
int vl_tuning_save(const vl_tuning *t, const char *path, vl_err *err);
/* The kernel that t chooses for a slot, NULL: none. t NULL: none. */
const char *vl_tuning_kernel(const vl_tuning *t, const char *slot);

/* The choices a CPU backend runs with; NULL for another backend. */
const vl_tuning *vl_backend_tuning(const vl_backend *b);
/* Other choices from the next op on (threads stay as they are); not while weights of a file are being packed. False:
 * not a CPU backend. */
bool vl_backend_retune(vl_backend *b, const vl_tuning *t);

/* One choice as measured: seconds of the same work with the default, and what it would be at the measured ratio with
 * what was chosen. */
typedef struct vl_tune_row { const char *key; char from[40], to[40]; double seconds_from, seconds_to; } vl_tune_row;
typedef void vl_tune_row_fn(void *user, const vl_tune_row *row);
/* Measures every choice on matrices of Qwen3-VL-2B's shapes, and keeps one only where it takes 2 % less time than
 * the default and gives the same bits. VL_E_BACKEND: it does not. only: a key, the others keep their defaults; NULL:
 * all, in about half a minute. */
int vl_tune_measure(vl_tuning *t, const char *only, vl_tune_row_fn *row, void *user, vl_err *err);

#endif
