/* test_peaks.c: the measured ceilings are plausible: positive, ordered, and above what an op reaches. */
#include <math.h>
#include <stdint.h>

#include "kernels/peaks.h"
#include "tests/test.h"

int main(void) {
    double fma = vl_peak_fma_gflops(1), read = vl_peak_read_gbs(1);
    double bf16 = vl_peak_bf16_gflops(1), int8 = vl_peak_int8_gops(1);
    CHECK(fma > 0.05 && fma < 2000, "%g GFLOP/s on one thread", fma);
    CHECK(read > 0.05 && read < 2000, "%g GB/s on one thread", read);
    CHECK(bf16 >= 0 && bf16 < 8000, "%g", bf16);
    CHECK(int8 >= 0 && int8 < 16000, "%g", int8);
    CHECK(vl_peak_fma_gflops(0) > 0, "0 threads counts as one");
    if (!getenv("VL_CPU")) {
        setenv("VL_CPU", "scalar", 1);
        double scalar = vl_peak_fma_gflops(1);
        CHECK(scalar > 0.01 && scalar < fma, "VL_CPU=scalar: %g GFLOP/s, %g with all", scalar, fma);
        unsetenv("VL_CPU");
    }
    static _Alignas(64) uint8_t memory[3 << 20]; /* smaller than a pass, and no multiple of one */
    for (int threads = 1; threads <= 3; threads++)
        for (int own = 0; own < 2; own++) {
            vl_reader *r = vl_reader_open(threads, own ? NULL : memory, own ? 0 : sizeof memory);
            CHECK(r != NULL, "%d threads: no reader", threads);
            for (int i = 0; r && i < 6; i++) {
                double rate = vl_reader_pass(r);
                CHECK(rate > 0 && isfinite(rate), "%d threads, pass %d: %g GB/s", threads, i, rate);
            }
            vl_reader_close(r);
        }
    return test_end();
}
