/* Resize 8-bit RGB images as Pillow's filters do, and turn them grey, with the same bits: the arithmetic of its Resample.c (weights in float64,
 * rounded to 22 bits; sums of integers; rows and columns one after the other, rounded in between) in vector instructions.
 * Only the box that is kept of the result is computed. pipeline/decode/resize.py calls this through ctypes where it was compiled, and asks Pillow where not. */

#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))
#define BITS (32 - 8 - 2) /* of a weight: eight more are the pixel's, two are room for the sum */
#define LANES 16          /* values of a line that are mixed at once */
#define SLACK 8           /* bytes behind a line of pixels that may be touched, and mean nothing */

/* Output i is the mean of `count[i]` inputs from `first[i]` on, weighted by weights[i * most], weights[i * most + 1], ... */
typedef struct {
    int64_t *first, *count, most;
    int32_t *weights;
} Filter;

typedef struct {
    double radius;
    double (*weight)(double);
} Kernel;

static double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

static double bilinear(double x) { return fabs(x) < 1.0 ? 1.0 - fabs(x) : 0.0; }

static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

static double sinc(double x)
{
    if (x == 0.0)
        return 1.0;
    x *= M_PI;
    return sin(x) / x;
}

static double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

static const Kernel KERNELS[] = {{0.5, box}, {1.0, bilinear}, {2.0, bicubic}, {3.0, lanczos}};

/* Of the outputs 0..to those from `start` on, `kept` of them. */
static int make_filter(Filter *filter, const Kernel *kernel, int64_t from, int64_t to, int64_t start, int64_t kept)
{
    const double scale = (double)from / to, filterscale = scale < 1.0 ? 1.0 : scale;
    const double support = kernel->radius * filterscale, step = 1.0 / filterscale;
    filter->most = 2 * (int64_t)ceil(support) + 2; /* with a weight of zero behind them: they are taken in pairs */
    filter->first = malloc(2 * kept * sizeof(int64_t));
    filter->count = filter->first + kept;
    filter->weights = calloc(kept * filter->most, sizeof(int32_t));
    double *exact = malloc(filter->most * sizeof(double));
    const int made = filter->first && filter->weights && exact;
    for (int64_t i = 0; made && i < kept; i++) {
        const double center = (start + i + 0.5) * scale;
        int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > from ? from : end;
        double sum = 0.0;
        for (int64_t x = first; x < end; x++)
            sum += exact[x - first] = kernel->weight((x - center + 0.5) * step);
        for (int64_t k = 0; k < end - first; k++) {
            const double weight = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << BITS);
            filter->weights[i * filter->most + k] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
        filter->first[i] = first;
        filter->count[i] = end - first;
    }
    free(exact);
    return made;
}

static void free_filter(Filter *filter)
{
    free(filter->first);
    free(filter->weights);
}

/* A line of pixels becomes one of `to` pixels; touches up to SLACK bytes behind both. */
AVX2 static void resize_row(const uint8_t *in, const Filter *filter, int64_t to, uint8_t *out)
{
    const __m128i spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i join = _mm_setr_epi8(0, 4, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i each = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    for (int64_t i = 0; i < to; i++) {
        const uint8_t *pixels = in + 3 * filter->first[i];
        const int32_t *weights = filter->weights + i * filter->most;
        __m256i sums = _mm256_setzero_si256(); /* of even inputs in the lower half, of odd ones in the upper */
        for (int64_t k = 0; k < filter->count[i]; k += 2) {
            const __m128i two = _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)(pixels + 3 * k)), spread);
            const __m256i by = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(weights + k)));
            const __m256i values = _mm256_cvtepu8_epi32(two), weight = _mm256_permutevar8x32_epi32(by, each);
            sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(values, weight));
        }
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        sum = _mm_srai_epi32(_mm_add_epi32(sum, _mm_set1_epi32(1 << (BITS - 1))), BITS);
        sum = _mm_max_epi32(_mm_min_epi32(sum, _mm_set1_epi32(255)), _mm_setzero_si128());
        const int32_t pixel = _mm_cvtsi128_si32(_mm_shuffle_epi8(sum, join));
        memcpy(out + 3 * i, &pixel, sizeof pixel); /* the fourth byte is the next pixel's, and written after this one */
    }
}

static void resize_rows(const uint8_t *in, int64_t lines, int64_t from, const Filter *filter, int64_t to, uint8_t *out,
                        uint8_t *last_in, uint8_t *last_out)
{
    for (int64_t y = 0; y < lines - 1; y++)
        resize_row(in + 3 * from * y, filter, to, out + 3 * to * y);
    memcpy(last_in, in + 3 * from * (lines - 1), 3 * from);
    resize_row(last_in, filter, to, last_out);
    memcpy(out + 3 * to * (lines - 1), last_out, 3 * to);
}

/* LANES values of `count` lines, `width` apart, become one. */
AVX2 static void mix(const uint8_t *in, int64_t width, const int32_t *weights, int64_t count, uint8_t *out)
{
    __m256i low = _mm256_set1_epi32(1 << (BITS - 1)), high = low;
    for (int64_t k = 0; k < count; k++) {
        const __m256i weight = _mm256_set1_epi32(weights[k]);
        const __m128i values = _mm_loadu_si128((const __m128i *)(in + k * width));
        const __m256i first = _mm256_cvtepu8_epi32(values), second = _mm256_cvtepu8_epi32(_mm_srli_si128(values, 8));
        low = _mm256_add_epi32(low, _mm256_mullo_epi32(first, weight));
        high = _mm256_add_epi32(high, _mm256_mullo_epi32(second, weight));
    }
    const __m256i words = _mm256_packus_epi32(_mm256_srai_epi32(low, BITS), _mm256_srai_epi32(high, BITS));
    const __m256i sorted = _mm256_permute4x64_epi64(words, 0xd8); /* packing has put the quarters in the order 0 2 1 3 */
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(sorted), _mm256_extracti128_si256(sorted, 1));
    _mm_storeu_si128((__m128i *)out, bytes);
}

AVX2 static void resize_columns(const uint8_t *in, int64_t width, const Filter *filter, int64_t to, uint8_t *out)
{
    for (int64_t y = 0; y < to; y++) {
        const uint8_t *lines = in + width * filter->first[y];
        const int32_t *weights = filter->weights + y * filter->most;
        for (int64_t i = 0; i < width; i += LANES) {
            const int64_t at = i <= width - LANES ? i : width - LANES; /* the last ones overlap those before them */
            mix(lines + at, width, weights, filter->count[y], out + width * y + at);
        }
    }
}

/* Resize (height, width, 3) to (to_height, to_width, 3), and keep (kept_height, kept_width, 3) of it from (top, left) on.
 * `width` and `kept_width` are at least 6; along the columns first where `columns_first`.
 * Returns 1, or 0 where there is no memory for it or the processor lacks the instructions. */
int resize(const uint8_t *in, int64_t height, int64_t width, int64_t to_height, int64_t to_width, int64_t top, int64_t left,
           int64_t kept_height, int64_t kept_width, int kernel, int columns_first, uint8_t *out)
{
    if (!__builtin_cpu_supports("avx2"))
        return 0;
    Filter along_x = {0}, along_y = {0};
    const int made_x = make_filter(&along_x, &KERNELS[kernel], width, to_width, left, kept_width);
    const int made_y = make_filter(&along_y, &KERNELS[kernel], height, to_height, top, kept_height);
    /* Only these lines matter. */
    const int64_t start = made_y ? along_y.first[0] : 0;
    const int64_t lines = made_y ? along_y.first[kept_height - 1] + along_y.count[kept_height - 1] - start : 0;
    uint8_t *between = malloc(columns_first ? 3 * width * kept_height : 3 * kept_width * lines + 1);
    uint8_t *last_in = calloc(3 * width + SLACK, 1), *last_out = malloc(3 * kept_width + SLACK);
    const int made = made_x && made_y && between && last_in && last_out;
    if (made && columns_first) {
        resize_columns(in, 3 * width, &along_y, kept_height, between);
        resize_rows(between, kept_height, width, &along_x, kept_width, out, last_in, last_out);
    } else if (made) {
        resize_rows(in + 3 * width * start, lines, width, &along_x, kept_width, between, last_in, last_out);
        for (int64_t i = 0; i < kept_height; i++)
            along_y.first[i] -= start;
        resize_columns(between, 3 * kept_width, &along_y, kept_height, out);
    }
    free_filter(&along_x);
    free_filter(&along_y);
    free(between);
    free(last_in);
    free(last_out);
    return made;
}

/* Of four pixels the products of the channels, in pairs; green is taken twice by half its weight, which needs 16 bits. */
AVX2 static inline __m256i weigh(const uint8_t *rgb)
{
    const __m128i spread = _mm_setr_epi8(0, 1, 2, 1, 3, 4, 5, 4, 6, 7, 8, 7, 9, 10, 11, 10);
    const __m128i pixels = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)rgb), spread);
    const int64_t weights = 19595ll | 19235ll << 16 | 7471ll << 32 | 19235ll << 48;
    return _mm256_madd_epi16(_mm256_cvtepu8_epi16(pixels), _mm256_set1_epi64x(weights));
}

/* RGB pixels become grey ones as in Pillow's convert("L"). Returns 1, or 0 where the processor lacks the instructions. */
AVX2 int grey(const uint8_t *rgb, int64_t pixels, uint8_t *out)
{
    if (!__builtin_cpu_supports("avx2"))
        return 0;
    int64_t i = 0;
    for (; i + 10 <= pixels; i += 8) { /* reads to the tenth pixel */
        const __m256i sums = _mm256_hadd_epi32(weigh(rgb + 3 * i), weigh(rgb + 3 * i + 12)); /* pixels 0 1 4 5 2 3 6 7 */
        const __m256i values = _mm256_srli_epi32(_mm256_add_epi32(sums, _mm256_set1_epi32(1 << 15)), 16);
        const __m256i sorted = _mm256_permute4x64_epi64(values, 0xd8);
        const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(sorted), _mm256_extracti128_si256(sorted, 1));
        _mm_storel_epi64((__m128i *)(out + i), _mm_packus_epi16(words, words));
    }
    for (; i < pixels; i++)
        out[i] = (rgb[3 * i] * 19595 + rgb[3 * i + 1] * 38470 + rgb[3 * i + 2] * 7471 + (1 << 15)) >> 16;
    return 1;
}

#else

int grey(const uint8_t *rgb, int64_t pixels, uint8_t *out)
{
    (void)rgb, (void)pixels, (void)out;
    return 0;
}

int resize(const uint8_t *in, int64_t height, int64_t width, int64_t to_height, int64_t to_width, int64_t top, int64_t left,
           int64_t kept_height, int64_t kept_width, int kernel, int columns_first, uint8_t *out)
{
    (void)in, (void)height, (void)width, (void)to_height, (void)to_width, (void)top, (void)left;
    (void)kept_height, (void)kept_width, (void)kernel, (void)columns_first, (void)out;
    return 0;
}

#endif
