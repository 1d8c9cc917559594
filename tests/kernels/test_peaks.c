/* test_peaks.c: the measured ceilings are plausible: positive, ordered, and above what an op reaches. */
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
    setenv("VL_CPU", "scalar", 1);
    double scalar = vl_peak_fma_gflops(1);
    CHECK(scalar > 0.01 && scalar < fma, "VL_CPU=scalar: %g GFLOP/s, %g with all", scalar, fma);
    unsetenv("VL_CPU");
    return test_end();
}
