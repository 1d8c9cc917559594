/* image.c: the compiled kernels inside the binary. The Makefile names the file, which is empty when
 * there was no nvcc. */
#include "kernels/cuda/backend.h"

__asm__(".section .rodata\n"
        ".balign 64\n"
        ".globl cuda_image\n.hidden cuda_image\n"
        ".globl cuda_image_bytes\n.hidden cuda_image_bytes\n"
        "cuda_image:\n"
        ".incbin \"" VL_IMAGE_FILE "\"\n"
        "1:\n.balign 8\n"
        "cuda_image_bytes:\n.quad 1b - cuda_image\n"
        ".previous\n");
