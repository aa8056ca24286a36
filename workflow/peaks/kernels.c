/* Reading memory, and multiplying in registers with what the target has.
 *
 * The multiplying kernels do nothing but multiply and add: no loads, no scales, no rounding back. A matrix product of
 * the same instructions cannot be faster. HIDE keeps the compiler from computing a product once that is asked for
 * many times; it costs no instruction.
 */
#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#define HIDE(value) __asm__ volatile("" : "+x"(value))
#elif defined(__aarch64__)
#include <arm_neon.h>
#define HIDE(value) __asm__ volatile("" : "+w"(value))
#endif

/* Rounds of a pass: some milliseconds. */
#define ROUNDS 1000000

/* Independent sums, enough to hide the latency of a multiply-add on two or more units. */
#define CHAINS 12
#define EACH(statement) for (int k = 0; k < CHAINS; k++) { statement; }

typedef uint64_t vector __attribute__((vector_size(32), aligned(32)));

static double pass_bytes(void) { return (double)PASS_BYTES; }

static const vector *next_part(struct load *load) {
    const vector *part = (const vector *)(load->data + load->at);
    load->at = (load->at + PASS_BYTES) % load->bytes;
    return part;
}

static void keep(struct load *load, vector *sum, int count) {
    for (int k = 1; k < count; k++) sum[0] ^= sum[k];
    load->sink ^= sum[0][0] ^ sum[0][1] ^ sum[0][2] ^ sum[0][3];
}

/* One stream from the first byte to the last. */
static void read_one(struct load *load) {
    const vector *at = next_part(load), *end = at + PASS_BYTES / sizeof(vector);
    vector sum[8] = {{0}};
    for (; at < end; at += 8) {
        for (int k = 0; k < 8; k++) sum[k] ^= at[k];
    }
    keep(load, sum, 8);
}

/* Four streams at once: a core may have more reads in flight so. */
static void read_four(struct load *load) {
    const size_t quarter = PASS_BYTES / 4 / sizeof(vector);
    const vector *at = next_part(load);
    vector sum[8] = {{0}};
    for (size_t i = 0; i < quarter; i += 2) {
        for (size_t k = 0; k < 8; k++) sum[k] ^= at[(k / 2) * quarter + i + k % 2];
    }
    keep(load, sum, 8);
}

#if defined(__AVX2__)

static double int8_operations(void) { return 2.0 * 32 * CHAINS * ROUNDS; }

/* Unsigned by signed bytes to pairs in 16 bits, as ggml multiplies Q4_0 and Q8_0; the sums stay in 16 bits, which
 * spares the widening that a real product needs. */
static void int8_pairs(struct load *load) {
    __m256i sum[CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
    EACH(sum[k] = _mm256_setzero_si256())
    for (uint64_t i = 0; i < ROUNDS; i++) {
        EACH(HIDE(a); sum[k] = _mm256_add_epi16(sum[k], _mm256_maddubs_epi16(a, b)))
    }
    for (int k = 1; k < CHAINS; k++) sum[0] = _mm256_xor_si256(sum[0], sum[k]);
    load->sink ^= (uint64_t)_mm256_extract_epi64(sum[0], 0);
}

#if defined(__FMA__)
static double f32_operations(void) { return 2.0 * 8 * CHAINS * ROUNDS; }

static void f32_fma(struct load *load) {
    __m256 sum[CHAINS], a = _mm256_set1_ps(1.0009765625f), b = _mm256_set1_ps(0.5f);
    EACH(sum[k] = _mm256_set1_ps((float)k))
    for (uint64_t i = 0; i < ROUNDS; i++) {
        EACH(HIDE(a); sum[k] = _mm256_fmadd_ps(sum[k], b, a))
    }
    for (int k = 1; k < CHAINS; k++) sum[0] = _mm256_add_ps(sum[0], sum[k]);
    load->sink ^= (uint64_t)_mm256_cvtss_f32(sum[0]);
}
#endif

#elif defined(__aarch64__)

#if defined(__ARM_FEATURE_DOTPROD)
static double int8_operations(void) { return 2.0 * 16 * CHAINS * ROUNDS; }

/* Four bytes by four bytes to each of four 32-bit sums. */
static void int8_dot(struct load *load) {
    int32x4_t sum[CHAINS];
    int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-5);
    EACH(sum[k] = vdupq_n_s32(k))
    for (uint64_t i = 0; i < ROUNDS; i++) {
        EACH(HIDE(a); sum[k] = vdotq_s32(sum[k], a, b))
    }
    for (int k = 1; k < CHAINS; k++) sum[0] = veorq_s32(sum[0], sum[k]);
    load->sink ^= (uint64_t)(uint32_t)vgetq_lane_s32(sum[0], 0);
}
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
static double int8_matrix_operations(void) { return 2.0 * 32 * CHAINS * ROUNDS; }

/* Two rows of eight bytes by two columns of eight. */
static void int8_matrix(struct load *load) {
    int32x4_t sum[CHAINS];
    int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-5);
    EACH(sum[k] = vdupq_n_s32(k))
    for (uint64_t i = 0; i < ROUNDS; i++) {
        EACH(HIDE(a); sum[k] = vmmlaq_s32(sum[k], a, b))
    }
    for (int k = 1; k < CHAINS; k++) sum[0] = veorq_s32(sum[0], sum[k]);
    load->sink ^= (uint64_t)(uint32_t)vgetq_lane_s32(sum[0], 0);
}
#endif

#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
static double f16_operations(void) { return 2.0 * 8 * CHAINS * ROUNDS; }

static void f16_fma(struct load *load) {
    float16x8_t sum[CHAINS], a = vdupq_n_f16((float16_t)0.25f), b = vdupq_n_f16((float16_t)0.5f);
    EACH(sum[k] = vdupq_n_f16((float16_t)0.0f))
    for (uint64_t i = 0; i < ROUNDS; i++) {
        EACH(HIDE(a); sum[k] = vfmaq_f16(sum[k], a, b))
    }
    for (int k = 1; k < CHAINS; k++) sum[0] = vaddq_f16(sum[0], sum[k]);
    load->sink ^= (uint64_t)vgetq_lane_u16(vreinterpretq_u16_f16(sum[0]), 0);
}
#endif

static double f32_operations(void) { return 2.0 * 4 * CHAINS * ROUNDS; }

static void f32_fma(struct load *load) {
    float32x4_t sum[CHAINS], a = vdupq_n_f32(1.0009765625f), b = vdupq_n_f32(0.5f);
    EACH(sum[k] = vdupq_n_f32((float)k))
    for (uint64_t i = 0; i < ROUNDS; i++) {
        EACH(HIDE(a); sum[k] = vfmaq_f32(sum[k], a, b))
    }
    for (int k = 1; k < CHAINS; k++) sum[0] = vaddq_f32(sum[0], sum[k]);
    load->sink ^= (uint64_t)vgetq_lane_u32(vreinterpretq_u32_f32(sum[0]), 0);
}

#endif

const struct kernel kernels[] = {
    {"reading, one stream a thread", 1, read_one, pass_bytes},
    {"reading, four streams a thread", 1, read_four, pass_bytes},
#if defined(__AVX2__)
    {"int8 multiply-add (AVX2 vpmaddubsw)", 0, int8_pairs, int8_operations},
#if defined(__FMA__)
    {"float32 multiply-add (FMA, 256 bit)", 0, f32_fma, f32_operations},
#endif
#elif defined(__aarch64__)
#if defined(__ARM_FEATURE_DOTPROD)
    {"int8 dot product (sdot)", 0, int8_dot, int8_operations},
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
    {"int8 matrix multiply (smmla)", 0, int8_matrix, int8_matrix_operations},
#endif
#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
    {"float16 multiply-add (128 bit)", 0, f16_fma, f16_operations},
#endif
    {"float32 multiply-add (128 bit)", 0, f32_fma, f32_operations},
#endif
};
const size_t kernel_count = sizeof kernels / sizeof kernels[0];
