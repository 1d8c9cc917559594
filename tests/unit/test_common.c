/* test_common.c: half precision over every value, SHA-256, random numbers, the arena, errors. */
#include "common/common.h"
#include "common/sha256.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

static uint32_t bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

/* ---- half precision -------------------------------------------------------------------------- */

/* Value of a small float format straight from its definition. */
static double by_definition(uint32_t v, int exponent_bits, int mantissa_bits) {
    int bias = (1 << (exponent_bits - 1)) - 1;
    uint32_t sign = v >> (exponent_bits + mantissa_bits);
    int e = (int)(v >> mantissa_bits) & ((1 << exponent_bits) - 1);
    double m = v & ((1u << mantissa_bits) - 1), unit = ldexp(1, mantissa_bits);
    double x = e ? ldexp(1 + m / unit, e - bias) : ldexp(m / unit, 1 - bias);
    return sign ? -x : x;
}

static void test_round_trips(void) {
    int f16 = 0, bf16 = 0, f16_value = 0, bf16_value = 0, nan = 0;
    for (uint32_t v = 0; v < 65536; v++) {
        float a = vl_f16_to_f32((uint16_t)v), b = vl_bf16_to_f32((uint16_t)v);
        bool a_special = ((v >> 10) & 31) == 31, b_special = ((v >> 7) & 255) == 255;
        if (isnan(a)) nan += !(a_special && (v & 1023) && isnan(vl_f16_to_f32(vl_f32_to_f16(a))));
        else f16 += vl_f32_to_f16(a) != v;
        if (isnan(b)) nan += !(b_special && (v & 127) && isnan(vl_bf16_to_f32(vl_f32_to_bf16(b))));
        else bf16 += vl_f32_to_bf16(b) != v;
        f16_value += !a_special && (double)a != by_definition(v, 5, 10);
        bf16_value += !b_special && (double)b != by_definition(v, 8, 7);
    }
    CHECK(f16 == 0 && bf16 == 0 && nan == 0, "%d f16, %d bf16, %d NaN", f16, bf16, nan);
    CHECK(f16_value == 0 && bf16_value == 0, "%d f16, %d bf16 values", f16_value, bf16_value);
    CHECK(isinf(vl_f16_to_f32(0x7c00)) && isinf(vl_bf16_to_f32(0xff80)), "infinities");
    CHECK(bits(vl_f16_to_f32(0x8000)) == 0x80000000u, "minus zero");
}

/* Between neighbours, at the middle and just beside it: nearest, ties to even. */
static void test_rounding(void) {
    int bad = 0;
    for (uint32_t v = 0; v < 0x7bff; v++) { /* f16: 0 ... the largest finite below its last */
        double lo = by_definition(v, 5, 10), hi = by_definition(v + 1, 5, 10), mid = (lo + hi) / 2;
        float m = (float)mid; /* exact: half a unit of f16 is a value of f32 */
        bad += vl_f32_to_f16(m) != (v & 1 ? v + 1 : v);
        bad += vl_f32_to_f16(nextafterf(m, 0)) != v;
        bad += vl_f32_to_f16(nextafterf(m, INFINITY)) != v + 1;
        bad += vl_f32_to_f16(-m) != (0x8000 | (v & 1 ? v + 1 : v));
    }
    CHECK(bad == 0, "%d f16 roundings", bad);
    bad = 0;
    for (uint32_t v = 0; v < 0x7f7f; v++) {
        uint32_t mid = v << 16 | 0x8000u;
        float m, below, above;
        memcpy(&m, &mid, 4);
        below = nextafterf(m, 0);
        above = nextafterf(m, INFINITY);
        bad += vl_f32_to_bf16(m) != (v & 1 ? v + 1 : v);
        bad += vl_f32_to_bf16(below) != v || vl_f32_to_bf16(above) != v + 1;
    }
    CHECK(bad == 0, "%d bf16 roundings", bad);
    CHECK(vl_f32_to_f16(65504) == 0x7bff && vl_f32_to_f16(65519.996f) == 0x7bff &&
              vl_f32_to_f16(65520) == 0x7c00 && vl_f32_to_f16(1e30f) == 0x7c00, "f16 overflow");
    CHECK(vl_f32_to_bf16(3.4028235e38f) == 0x7f80, "bf16 overflow");
}

static void test_widen(void) {
    static const struct { vl_dtype dtype; uint8_t bytes[8]; float value; } CASES[] = {
        {VL_F32, {0, 0, 0xc0, 0x3f}, 1.5f},   {VL_BF16, {0xc0, 0xbf}, -1.5f},
        {VL_F16, {0, 0x3e}, 1.5f},            {VL_F64, {0, 0, 0, 0, 0, 0, 0xf8, 0x3f}, 1.5f},
        {VL_F8_E4M3, {0x3c}, 1.5f},           {VL_F8_E4M3, {0x7e}, 448},
        {VL_F8_E4M3, {0x01}, 0x1p-9f},        {VL_F8_E5M2, {0x3e}, 1.5f},
        {VL_F8_E5M2, {0x7b}, 57344},          {VL_F8_E5M2, {0x81}, -0x1p-16f},
        {VL_F8_E5M2, {0x7c}, INFINITY},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        uint8_t shifted[9]; /* an odd address */
        float out[2] = {0, 7};
        memcpy(shifted + 1, CASES[i].bytes, 8);
        vl_widen(out, shifted + 1, CASES[i].dtype, 1);
        CHECK(out[0] == CASES[i].value && out[1] == 7, "%s: %g, expected %g",
              vl_dtype_name(CASES[i].dtype), (double)out[0], (double)CASES[i].value);
    }
    uint8_t nan = 0x7f;
    float out;
    vl_widen(&out, &nan, VL_F8_E4M3, 1);
    CHECK(isnan(out), "F8_E4M3 0x7f is %g", (double)out);
}

/* ---- SHA-256: the vectors of FIPS 180-4 ------------------------------------------------------ */

static void sha_hex(char hex[65], const char *text, size_t n, size_t piece) {
    vl_sha256 s;
    uint8_t d[32];
    vl_sha256_init(&s);
    for (size_t at = 0; at < n; at += piece)
        vl_sha256_add(&s, text + at, n - at < piece ? n - at : piece);
    vl_sha256_end(&s, d);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", d[i]);
}

static void test_sha256(void) {
    static const char *const VECTORS[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqr"
         "lmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    char hex[65], again[65];
    for (size_t i = 0; i < sizeof VECTORS / sizeof *VECTORS; i++)
        for (size_t piece = 1; piece < 130; piece += 9) {
            sha_hex(hex, VECTORS[i][0], strlen(VECTORS[i][0]), piece);
            CHECK(strcmp(hex, VECTORS[i][1]) == 0, "\"%s\" by %zu: %s", VECTORS[i][0], piece, hex);
        }
    static char million[1000000];
    memset(million, 'a', sizeof million);
    sha_hex(hex, million, sizeof million, 4096);
    CHECK(strcmp(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0") == 0,
          "a million a: %s", hex);
    for (size_t n = 50; n < 70; n++) { /* around the padding's edge, whole and bytewise */
        sha_hex(hex, million, n, n);
        sha_hex(again, million, n, 1);
        CHECK(strcmp(hex, again) == 0, "length %zu", n);
    }
}

/* The processor's own instructions, where it has them, against plain C; any number of blocks. */
static void test_sha256_forms(void) {
    vl_rng r;
    uint8_t data[64 * 9];
    vl_rng_seed(&r, 11);
    for (size_t n = 0; n < 10; n++) {
        uint32_t a[8], b[8];
        for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)vl_rng_u64(&r);
        for (int i = 0; i < 8; i++) a[i] = b[i] = (uint32_t)vl_rng_u64(&r);
        if (!vl_sha256_blocks_ni(b, data, n)) {
            test_skip("this processor has no SHA instructions");
            return;
        }
        vl_sha256_blocks_c(a, data, n);
        CHECK(!memcmp(a, b, sizeof a), "%zu blocks differ", n);
    }
}

/* ---- items on threads ------------------------------------------------------------------------- */

typedef struct counts { int item[1000], thread[16]; } counts;
static void count_item(void *arg, int item, int thread) {
    counts *c = arg;
    __atomic_fetch_add(&c->item[item], 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&c->thread[thread], 1, __ATOMIC_RELAXED);
}

static void test_items(void) {
    static const int N[] = {0, 1, 3, 1000}, THREADS[] = {-1, 1, 2, 5, 99};
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 5; b++) {
            counts c = {0};
            int wrong = 0, all = 0, most = vl_items_threads(THREADS[b]);
            vl_items(N[a], THREADS[b], count_item, &c);
            for (int i = 0; i < 1000; i++) wrong += c.item[i] != (i < N[a]);
            for (int i = 0; i < 16; i++) all += c.thread[i], wrong += i >= most && c.thread[i];
            CHECK(!wrong && all == N[a], "%d items on %d threads: %d wrong, %d runs", N[a], THREADS[b], wrong, all);
        }
}

/* ---- random numbers -------------------------------------------------------------------------- */

static void test_rng(void) {
    vl_rng a, b;
    vl_rng_seed(&a, 0);
    /* splitmix64 from 0, by its authors */
    CHECK(a.s[0] == 0xe220a8397b1dcdafu && a.s[1] == 0x6e789e6aa1b965f4u &&
              a.s[2] == 0x06c45d188009454fu && a.s[3] == 0xf88bb8a8724c81ecu, "seeding");
    vl_rng fixed = {{1, 2, 3, 4}}; /* xoshiro256** from 1, 2, 3, 4, by hand: rotl(2*5, 7)*9, ... */
    CHECK(vl_rng_u64(&fixed) == 11520 && vl_rng_u64(&fixed) == 0 &&
              vl_rng_u64(&fixed) == 1509978240, "the first three");
    vl_rng_seed(&a, 7);
    vl_rng_seed(&b, 7);
    bool same = true, in_range = true;
    double sum = 0, normal = 0, square = 0;
    enum { N = 200000 };
    for (int i = 0; i < N; i++) {
        double u = vl_rng_uniform(&a), n = vl_rng_normal(&a);
        same &= u == vl_rng_uniform(&b) && n == vl_rng_normal(&b);
        in_range &= u >= 0 && u < 1;
        sum += u;
        normal += n;
        square += n * n;
    }
    CHECK(same, "two generators of one seed differ");
    CHECK(in_range && fabs(sum / N - 0.5) < 0.005, "uniform mean %g", sum / N);
    CHECK(fabs(normal / N) < 0.02 && fabs(square / N - 1) < 0.02, "normal %g, %g", normal / N,
          square / N);
}

/* ---- arena, checked sizes, errors ------------------------------------------------------------ */

static void overflow_count(vl_arena *a) { vl_carve(a, SIZE_MAX / 2, 4); }
static void overflow_total(vl_arena *a) {
    a->used = SIZE_MAX / 2 - 100;
    vl_carve(a, 200, 1);
}
static void overflow_rounding(vl_arena *a) { vl_carve(a, SIZE_MAX, 1); }

/* A broken contract ends the process with a message. */
static bool aborts(void (*fn)(vl_arena *)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        vl_arena a = {0};
        fclose(stderr);
        fn(&a);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_arena(void) {
    vl_arena measure = {0};
    CHECK(!vl_carve(&measure, 3, 5) && !vl_carve(&measure, 0, 8) && !vl_carve(&measure, 65, 1),
          "measuring hands out memory");
    CHECK(measure.used == 64 + 0 + 128, "used %zu", measure.used);
    uint8_t *block = aligned_alloc(64, measure.used);
    vl_arena place = {.base = block};
    uint8_t *first = vl_carve(&place, 3, 5);
    vl_carve(&place, 0, 8);
    uint8_t *last = vl_carve(&place, 65, 1);
    CHECK(first == block && last == block + 64 && place.used == measure.used, "placement");
    free(block);
    CHECK(aborts(overflow_count) && aborts(overflow_total) && aborts(overflow_rounding),
          "an overflow was carved");
    size_t n;
    CHECK(!vl_mul_ok(SIZE_MAX, 2, &n) && vl_mul_ok(SIZE_MAX, 1, &n) && n == SIZE_MAX, "product");
    CHECK(!vl_add_ok(SIZE_MAX, 1, &n) && vl_add_ok(SIZE_MAX - 1, 1, &n) && n == SIZE_MAX, "sum");
    CHECK(!vl_calloc(SIZE_MAX / 2, 4), "an impossible block");
    uint8_t *p = vl_calloc(0, 0);
    CHECK(p, "an empty block is NULL");
    free(p);
}

static void test_errors(void) {
    vl_err err = {0};
    char text[400];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    CHECK(vl_fail(&err, VL_E_IO, "%s: %d", "file", 3) == -1 && err.code == VL_E_IO &&
              strcmp(err.msg, "file: 3") == 0, "%s", err.msg);
    CHECK(vl_fail(&err, VL_E_INPUT, "%s", text) == -1 && strlen(err.msg) == sizeof err.msg - 1,
          "an error is cut to its size");
    CHECK(vl_fail(NULL, VL_E_INPUT, "%s", text) == -1, "without an error object");
    for (int t = 0; t < VL_DTYPES; t++)
        CHECK(vl_dtype_size((vl_dtype)t) > 0 && vl_dtype_name((vl_dtype)t), "dtype %d", t);
    double start = vl_now();
    CHECK(vl_now() >= start, "the clock runs backwards");
}

int main(void) {
    test_round_trips();
    test_rounding();
    test_widen();
    test_sha256();
    test_sha256_forms();
    test_items();
    test_rng();
    test_arena();
    test_errors();
    return test_end();
}
