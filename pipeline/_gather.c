/* Gather rows of a memory map into a batch that is too large for the processor's cache. An ordinary store reads what it is
 * about to overwrite, a third of what such a copy moves; a streaming store does not. pipeline/gather.py calls this through
 * ctypes where it was compiled when the package was installed, and copies by PyTorch where not. */

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

#define AHEAD 2048 /* bytes that are asked for before they are needed; where there are none, nothing happens */

static void copy_row(uint8_t *out, const uint8_t *row, int64_t bytes)
{
    int64_t i = -(uintptr_t)out & 15; /* streaming stores are aligned */
    i = i < bytes ? i : bytes;
    memcpy(out, row, i);
    for (; i + 64 <= bytes; i += 64) {
        _mm_prefetch((const char *)row + i + AHEAD, _MM_HINT_T0);
        for (int part = 0; part < 64; part += 16)
            _mm_stream_si128((__m128i *)(out + i + part), _mm_loadu_si128((const __m128i *)(row + i + part)));
    }
    memcpy(out + i, row + i, bytes - i);
}

static void finish(void)
{
    _mm_sfence(); /* before it, other cores may not see what was streamed */
}
#else
static void copy_row(uint8_t *out, const uint8_t *row, int64_t bytes)
{
    memcpy(out, row, bytes);
}

static void finish(void)
{
}
#endif

void gather_rows(const uint8_t *images, const int64_t *rows, int64_t count, int64_t row_bytes, uint8_t *out)
{
    for (int64_t i = 0; i < count; i++)
        copy_row(out + i * row_bytes, images + rows[i] * row_bytes, row_bytes);
    finish();
}
