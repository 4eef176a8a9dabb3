/* Gather rows of a memory map into a batch, as they are, normalized or augmented on the way, in one pass over memory.
 * pipeline/load/kernels.py, normalize.py and augment_rows.py call this through ctypes where it was compiled when the package was
 * installed, and have PyTorch do it where not: the same bits. */

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

static void run_in_team(void (*work)(void *), void *job, team_start *start, unsigned threads)
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
    run_in_team(copy, &job, start, threads);
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
    run_in_team(stream, &job, start, threads);
}

/* 1/255 as a sum of two floats, the first of 17 bits. An 8-bit number times the first is exact (at most 0xffffff), so the
 * one rounding of the sum gives x / 255 as division does, for all 256 numbers, at a fraction of its cost. */
#define HIGH 0x1.0101p-8f
#define LOW 0x1.010102p-32f

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default"))) /* that the processor has, chosen when loaded */
#else
#define WIDEST
#endif

WIDEST void normalize_plane(const uint8_t *restrict x, int64_t pixels, float m, float s, float *restrict y)
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
    run_in_team(normalize, &job, start, threads);
}

/* Lines of an image are normalized and resampled across; two at a time are blended into a line of the batch. The struct is that
 * of pipeline/load/augment_rows.py, which says what its arrays hold. */
typedef struct {
    batch rows;
    int64_t is_float, height, width, out_height, out_width;
    const int32_t *y, *x;
    const float *y_part, *x_part, *factors;
    const int64_t *step;
    float *memory;
    int64_t thread_floats, memories_taken;
} augmented;

#define LANES 8
#define PADDED(pixels) (((pixels) + LANES - 1) / LANES * LANES)

#if defined(__GNUC__) && !defined(__clang__)
typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t numbers __attribute__((vector_size(4 * LANES), aligned(4)));

/* Pixel i lies between line[x[i]] and the next one by `step`. Eight that lie close together are read at once and shuffled. */
WIDEST void resample(const float *line, const int32_t *x, const float *part, int64_t step, int64_t pixels, float *restrict y)
{
    for (int64_t i = 0; i < pixels; i += LANES) {
        const int64_t first = x[step < 0 ? i + LANES - 1 : i], last = x[step < 0 ? i : i + LANES - 1];
        const floats *at = (const floats *)(line + first), *next = (const floats *)(line + first + step);
        const numbers lanes = *(const numbers *)(x + i) - (int32_t)first;
        floats a, b;
        if (last - first < LANES)
            a = __builtin_shuffle(at[0], lanes), b = __builtin_shuffle(next[0], lanes);
        else if (last - first < 2 * LANES)
            a = __builtin_shuffle(at[0], at[1], lanes), b = __builtin_shuffle(next[0], next[1], lanes);
        else
            for (int l = 0; l < LANES; l++)
                a[l] = line[x[i + l]], b[l] = line[x[i + l] + step];
        *(floats *)(y + i) = a + (b - a) * *(const floats *)(part + i);
    }
}
#else
void resample(const float *line, const int32_t *x, const float *part, int64_t step, int64_t pixels, float *restrict y)
{
    for (int64_t i = 0; i < pixels; i++)
        y[i] = line[x[i]] + (line[x[i] + step] - line[x[i]]) * part[i];
}
#endif

WIDEST void blend(const float *restrict a, const float *restrict b, float part, int64_t pixels, float *restrict y)
{
    for (int64_t i = 0; i < pixels; i++)
        y[i] = a[i] + (b[i] - a[i]) * part;
}

static void read_line(const augmented *job, int64_t row, int64_t channel, int64_t y, int64_t x, int64_t pixels, float *line)
{
    const int64_t place = ((3 * row + channel) * job->height + y) * job->width + x;
    if (job->is_float)
        memcpy(line, (const float *)job->rows.images + place, 4 * pixels);
    else
        normalize_plane(job->rows.images + place, pixels, job->rows.mean[channel], job->rows.std[channel], line);
}

static void crop(const augmented *job, int64_t i, float *memory, float *out)
{
    const int64_t width = job->out_width, height = job->out_height, row = job->rows.rows[i], step = job->step[i];
    const int32_t *y = job->y + i * height, *x = job->x + i * PADDED(width);
    const int64_t left = x[step < 0 ? width - 1 : 0], right = x[step < 0 ? 0 : width - 1];
    const int64_t from = left - (step < 0 && left > 0), pixels = right + (step > 0 && right < job->width - 1) - from + 1;
    float *lines[2] = {memory, memory + PADDED(width)}, *line = memory + 2 * PADDED(width) + 1;
    for (int64_t channel = 0; channel < 3; channel++) {
        int64_t held[2] = {-1, -1}; /* the resampled lines: an even and an odd one */
        for (int64_t j = 0; j < height; j++, out += width) {
            if (!job->x_part) {
                read_line(job, row, channel, y[j], left, width, step < 0 ? memory : out);
                for (int64_t k = 0; step < 0 && k < width; k++)
                    out[k] = memory[width - 1 - k];
                continue;
            }
            const int64_t second = y[j] + 1 < job->height ? y[j] + 1 : y[j];
            for (int64_t n = y[j]; n <= second; n++)
                if (held[n & 1] != n) {
                    read_line(job, row, channel, held[n & 1] = n, from, pixels, line);
                    line[-1] = line[0], line[pixels] = line[pixels - 1]; /* beyond the image, with weight 0 */
                    resample(line - from, x, job->x_part + i * PADDED(width), step, width, lines[n & 1]);
                }
            blend(lines[y[j] & 1], lines[second & 1], job->y_part[i * height + j], width, out);
        }
    }
}

static inline float clamp(float x) { x = x > 0 ? x : 0; return x < 1 ? x : 1; }

WIDEST void change_colors(float *restrict r, float *restrict g, float *restrict b, int64_t pixels, const float *factors,
                          const float *mean, const float *std)
{
    const float grey[3] = {0.2989f, 0.587f, 0.114f}, contrast = factors[1], saturation = factors[2];
    double sum = 0;
    for (int channel = 0; channel < 3; channel++) {
        float *x = channel == 0 ? r : channel == 1 ? g : b;
        const float scale = std[channel] * factors[0], offset = mean[channel] * factors[0];
        int64_t steps = 0; /* of 2**-24: a sum of integers is the same in any order */
        for (int64_t i = 0; i < pixels; i++)
            x[i] = clamp(x[i] * scale + offset);
        for (int64_t i = 0; i < pixels; i++)
            steps += (int32_t)(x[i] * 0x1p24f);
        sum += steps * (double)grey[channel];
    }
    const float added = (1 - contrast) * (float)(sum / (0x1p24 * pixels));
    for (int64_t i = 0; i < pixels; i++) {
        const float x = clamp(r[i] * contrast + added), y = clamp(g[i] * contrast + added), z = clamp(b[i] * contrast + added);
        const float w = (x * grey[0] + y * grey[1] + z * grey[2]) * (1 - saturation);
        r[i] = (clamp(x * saturation + w) - mean[0]) / std[0];
        g[i] = (clamp(y * saturation + w) - mean[1]) / std[1];
        b[i] = (clamp(z * saturation + w) - mean[2]) / std[2];
    }
}

static void augment(void *given)
{
    augmented *job = given;
    const int64_t pixels = job->out_height * job->out_width;
    float *memory = job->memory + __atomic_fetch_add(&job->memories_taken, 1, __ATOMIC_RELAXED) * job->thread_floats;
    for (int64_t i; (i = next_row(&job->rows)) >= 0;) {
        float *out = (float *)job->rows.out + 3 * i * pixels;
        crop(job, i, memory, out);
        if (job->factors)
            change_colors(out, out + pixels, out + 2 * pixels, pixels, job->factors + 3 * i, job->rows.mean, job->rows.std);
    }
}

void augment_rows(augmented *job, team_start *start, unsigned threads) { run_in_team(augment, job, start, threads); }
