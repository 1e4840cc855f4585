#include "sha256.h"

#include <string.h>

#include "fast_path.h"

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

typedef void compress_fn(uint32_t state[8], const unsigned char *data, size_t blocks);

static uint32_t rotate(uint32_t value, int by)
{
    return (value >> by) | (value << (32 - by));
}

static void compress_portable(uint32_t state[8], const unsigned char *data, size_t blocks)
{
    for (; blocks > 0; blocks--, data += FL_SHA256_BLOCK) {
        uint32_t w[64];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 |
                   (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
        for (int i = 16; i < 64; i++) {
            uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3);
            uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10);
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        uint32_t v[8];
        memcpy(v, state, sizeof v);
        for (int i = 0; i < 64; i++) {
            uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
            uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
            uint32_t t1 = v[7] + s1 + choice + K[i] + w[i];
            uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
            uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            memmove(v + 1, v, 7 * sizeof v[0]);
            v[4] += t1;
            v[0] = t1 + s0 + majority;
        }
        for (int i = 0; i < 8; i++)
            state[i] += v[i];
    }
}

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

/* Four rounds per step; the schedule is Intel's ("Intel SHA Extensions", 2013). */
__attribute__((target("sha,sse4.1"))) static void
compress_x86(uint32_t state[8], const unsigned char *data, size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i low = _mm_loadu_si128((const __m128i *)&state[0]);
    __m128i high = _mm_loadu_si128((const __m128i *)&state[4]);
    low = _mm_shuffle_epi32(low, 0xB1);
    high = _mm_shuffle_epi32(high, 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8);
    __m128i cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; blocks > 0; blocks--, data += FL_SHA256_BLOCK) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 16; i++) {
            __m128i now;
            if (i < 4) {
                now = _mm_loadu_si128((const __m128i *)(const void *)(data + 16 * i));
                now = _mm_shuffle_epi8(now, swap);
            } else {
                __m128i older = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
                __m128i shifted = _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4);
                now = _mm_sha256msg2_epu32(_mm_add_epi32(older, shifted), w[(i + 3) & 3]);
            }
            w[i & 3] = now;
            __m128i sum = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)&K[4 * i]));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    low = _mm_shuffle_epi32(abef, 0x1B);
    high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)&state[0], _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)&state[4], _mm_alignr_epi8(high, low, 8));
}

static compress_fn *best(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    int sse = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_1) && (c & bit_SSSE3);
    int sha = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
    return sse && sha ? compress_x86 : compress_portable;
}

#elif defined(__aarch64__)

#include <arm_neon.h>
#include <sys/auxv.h>

__attribute__((target("+crypto"))) static void
compress_arm(uint32_t state[8], const unsigned char *data, size_t blocks)
{
    uint32x4_t abcd = vld1q_u32(&state[0]);
    uint32x4_t efgh = vld1q_u32(&state[4]);
    for (; blocks > 0; blocks--, data += FL_SHA256_BLOCK) {
        const uint32x4_t abcd_before = abcd, efgh_before = efgh;
        uint32x4_t w[4];
        for (int i = 0; i < 16; i++) {
            uint32x4_t now;
            if (i < 4)
                now = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
            else
                now = vsha256su1q_u32(vsha256su0q_u32(w[i & 3], w[(i + 1) & 3]), w[(i + 2) & 3],
                                      w[(i + 3) & 3]);
            w[i & 3] = now;
            uint32x4_t sum = vaddq_u32(now, vld1q_u32(&K[4 * i]));
            uint32x4_t abcd_old = abcd;
            abcd = vsha256hq_u32(abcd, efgh, sum);
            efgh = vsha256h2q_u32(efgh, abcd_old, sum);
        }
        abcd = vaddq_u32(abcd, abcd_before);
        efgh = vaddq_u32(efgh, efgh_before);
    }
    vst1q_u32(&state[0], abcd);
    vst1q_u32(&state[4], efgh);
}

static compress_fn *best(void)
{
    const unsigned long sha2 = 1UL << 6; /* HWCAP_SHA2 */
    return getauxval(AT_HWCAP) & sha2 ? compress_arm : compress_portable;
}

#else

static compress_fn *best(void)
{
    return compress_portable;
}

#endif

static compress_fn
    *compress; /* chosen at the first use: asking the processor is slow in a virtual machine */

void fl_sha256_begin(struct fl_sha256 *hash)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    if (compress == NULL)
        compress = best();
    memcpy(hash->state, start, sizeof start);
    hash->size = 0;
}

void fl_sha256_add(struct fl_sha256 *hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    size_t held = hash->size % FL_SHA256_BLOCK;
    hash->size += size;
    if (held > 0) {
        size_t missing = FL_SHA256_BLOCK - held;
        if (size < missing) {
            memcpy(hash->block + held, bytes, size);
            return;
        }
        memcpy(hash->block + held, bytes, missing);
        compress(hash->state, hash->block, 1);
        bytes += missing;
        size -= missing;
    }
    size_t blocks = size / FL_SHA256_BLOCK;
    compress(hash->state, bytes, blocks);
    memcpy(hash->block, bytes + blocks * FL_SHA256_BLOCK, size % FL_SHA256_BLOCK);
}

void fl_sha256_end(struct fl_sha256 *hash, unsigned char digest[FL_SHA256_BYTES])
{
    uint64_t bits = hash->size * 8;
    size_t held = hash->size % FL_SHA256_BLOCK;
    hash->block[held++] = 0x80;
    if (held > FL_SHA256_BLOCK - 8) {
        memset(hash->block + held, 0, FL_SHA256_BLOCK - held);
        compress(hash->state, hash->block, 1);
        held = 0;
    }
    memset(hash->block + held, 0, FL_SHA256_BLOCK - 8 - held);
    for (int i = 0; i < 8; i++)
        hash->block[FL_SHA256_BLOCK - 1 - i] = (unsigned char)(bits >> (8 * i));
    compress(hash->state, hash->block, 1);
    for (int i = 0; i < 32; i++)
        digest[i] = (unsigned char)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}

void fl_sha256(const char *data, size_t size, unsigned char *digest, int portable)
{
    struct fl_sha256 hash;
    fl_sha256_begin(&hash);
    compress_fn *chosen = compress;
    if (portable)
        compress = compress_portable;
    fl_sha256_add(&hash, data, size);
    fl_sha256_end(&hash, digest);
    compress = chosen;
}

void fl_hex(const unsigned char *bytes, size_t size, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
}
