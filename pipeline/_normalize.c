/* Gather rows of 8-bit images and normalize them in one pass over memory. pipeline/normalize.py calls this through ctypes
 * where it was compiled when the package was installed, and does the same in several passes where not: the same bits. */

#include <stdint.h>

/* 1/255 as a sum of two floats, the first of 17 bits. An 8-bit number times the first is exact (at most 0xffffff), so the
 * one rounding of the sum gives x / 255 as division does, for all 256 numbers, at a fraction of its cost. */
#define HIGH 0x1.0101p-8f
#define LOW 0x1.010102p-32f

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default"))) /* the widest that the processor has, chosen when loaded */
#endif
void normalize_rows(const uint8_t *images, const int64_t *rows, int64_t count, int64_t pixels,
                    const float *mean, const float *std, float *out)
{
    for (int64_t plane = 0; plane < 3 * count; plane++) {
        const uint8_t *restrict x = images + (3 * rows[plane / 3] + plane % 3) * pixels;
        const float m = mean[plane % 3], s = std[plane % 3];
        float *restrict y = out + plane * pixels;
        for (int64_t i = 0; i < pixels; i++)
            y[i] = (x[i] * HIGH + x[i] * LOW - m) / s;
    }
}
