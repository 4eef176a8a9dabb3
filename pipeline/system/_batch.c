/* Gather rows of a memory map into a batch, as they are or normalized on the way, in one pass over memory. pipeline/load/kernels.py
 * and pipeline/load/normalize.py call this through ctypes where it was compiled when the package was installed, and have PyTorch
 * do it where not: the same bits. */

#include <stdint.h>
#include <string.h>

/* GOMP_parallel of PyTorch's OpenMP: its threads, and this one, all call work(batch). */
typedef void team_start(void (*work)(void *), void *batch, unsigned threads, unsigned flags);

typedef struct {
    const uint8_t *images;
    const int64_t *rows;
    int64_t count, row_bytes, next;
    uint8_t *out;
    const float *mean, *std;
} batch;

static void together(void (*work)(void *), batch *job, team_start *start, unsigned threads)
{
    if (start && threads > 1)
        start(work, job, threads, 0);
    else
        work(job);
}

/* Whoever is free takes the next row: a thread that comes late, or never, leaves its share to the others. */
static int64_t next_row(batch *job)
{
    int64_t i = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
    return i < job->count ? i : -1;
}

static void copy(void *given)
{
    batch *job = given;
    for (int64_t i; (i = next_row(job)) >= 0;)
        memcpy(job->out + i * job->row_bytes, job->images + job->rows[i] * job->row_bytes, job->row_bytes);
}

void copy_rows(const uint8_t *images, const int64_t *rows, int64_t count, int64_t row_bytes, uint8_t *out,
               team_start *start, unsigned threads)
{
    batch job = {.images = images, .rows = rows, .count = count, .row_bytes = row_bytes, .out = out};
    together(copy, &job, start, threads);
}

#ifdef __SSE2__
#include <emmintrin.h>

#define AHEAD 2048 /* bytes that are asked for before they are needed; where there are none, nothing happens */

static void stream_row(uint8_t *out, const uint8_t *row, int64_t bytes)
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

static void stream(void *given)
{
    batch *job = given;
    for (int64_t i; (i = next_row(job)) >= 0;)
        stream_row(job->out + i * job->row_bytes, job->images + job->rows[i] * job->row_bytes, job->row_bytes);
    _mm_sfence(); /* before it, other cores may not see what was streamed */
}
#else
#define stream copy
#endif

/* An ordinary store reads what it is about to overwrite, a third of what a copy moves; a streaming store does not. */
void stream_rows(const uint8_t *images, const int64_t *rows, int64_t count, int64_t row_bytes, uint8_t *out,
                 team_start *start, unsigned threads)
{
    batch job = {.images = images, .rows = rows, .count = count, .row_bytes = row_bytes, .out = out};
    together(stream, &job, start, threads);
}

/* 1/255 as a sum of two floats, the first of 17 bits. An 8-bit number times the first is exact (at most 0xffffff), so the
 * one rounding of the sum gives x / 255 as division does, for all 256 numbers, at a fraction of its cost. */
#define HIGH 0x1.0101p-8f
#define LOW 0x1.010102p-32f

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default"))) /* the widest that the processor has, chosen when loaded */
#endif
void normalize_plane(const uint8_t *restrict x, int64_t pixels, float m, float s, float *restrict y)
{
    for (int64_t i = 0; i < pixels; i++)
        y[i] = (x[i] * HIGH + x[i] * LOW - m) / s;
}

static void normalize(void *given)
{
    batch *job = given;
    const int64_t pixels = job->row_bytes / 3;
    for (int64_t i; (i = next_row(job)) >= 0;)
        for (int64_t channel = 0; channel < 3; channel++) {
            const uint8_t *plane = job->images + (3 * job->rows[i] + channel) * pixels;
            float *out = (float *)job->out + (3 * i + channel) * pixels;
            normalize_plane(plane, pixels, job->mean[channel], job->std[channel], out);
        }
}

void normalize_rows(const uint8_t *images, const int64_t *rows, int64_t count, int64_t row_bytes, uint8_t *out,
                    team_start *start, unsigned threads, const float *mean, const float *std)
{
    batch job = {.images = images, .rows = rows, .count = count, .row_bytes = row_bytes, .out = out,
                 .mean = mean, .std = std};
    together(normalize, &job, start, threads);
}
