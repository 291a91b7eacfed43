/* What propose() in proposal.py does, compiled: numpy goes through a vocabulary a dozen times where this does three.

   Every loop over tokens does one thing, without a branch, so that compilers make vector instructions of it. Sums are
   floats within a block and doubles across blocks. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 256
#define LANES 16
#define LEAST (-88.0f) /* The exponential of this is the first that exponential() makes 0. */

/* proposal.PROPOSAL, field by field. */
struct proposal {
    double uniform, coldness, top_p, min_p;
    float top, refused;
    int64_t row, top_k, token, allowed;
};

/* exp(x) for x from LEAST to 0, to 1e-7 + |x| * 1e-7 of itself: 2**power by a float's exponent bits, the rest, which
   is at most log(2) / 2 from 0, by Taylor's polynomial. */
static inline float exponential(float x)
{
    int32_t power = (int32_t)(x * (float)M_LOG2E - 0.5f), bits = (power + 127) << 23;
    float f = x - power * (float)M_LN2, scale;
    memcpy(&scale, &bits, sizeof scale);
    return scale * (1 + f * (1 + f * (1 / 2.f + f * (1 / 6.f + f * (1 / 24.f + f * (1 / 120.f + f * (1 / 720.f)))))));
}

static inline void weigh(const float *restrict logits, int64_t n, float top, float coldness, float *restrict weights)
{
    for (int64_t i = 0; i < n; i++) {
        float x = (logits[i] - top) * coldness;
        weights[i] = x > LEAST ? x : LEAST;
    }
    for (int64_t i = 0; i < n; i++)
        weights[i] = exponential(weights[i]);
}

/* In lanes of its own: a single maximum is not made of vectors where some numbers may be none. */
static inline void raise_to(const float *restrict logits, int64_t n, float *restrict tops)
{
    for (int64_t i = 0; i + LANES <= n; i += LANES)
        for (int64_t lane = 0; lane < LANES; lane++)
            tops[lane] = logits[i + lane] > tops[lane] ? logits[i + lane] : tops[lane];
    for (int64_t i = n - n % LANES; i < n; i++)
        tops[0] = logits[i] > tops[0] ? logits[i] : tops[0];
}

static inline int32_t count_wrong(const float *restrict logits, int64_t n)
{
    int32_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += !(logits[i] < INFINITY);
    return count;
}

static inline float sum(const float *restrict weights, int64_t n)
{
    float all = 0;
    for (int64_t i = 0; i < n; i++)
        all += weights[i];
    return all;
}

/* Takes the weight of tokens that are not above `logit`. */
static inline void keep_above(const float *restrict logits, int64_t n, float logit, float *restrict weights)
{
    for (int64_t i = 0; i < n; i++)
        weights[i] = logits[i] > logit ? weights[i] : 0;
}

static inline float sum_above(const float *restrict logits, const float *restrict weights, int64_t n, float logit)
{
    float all = 0;
    for (int64_t i = 0; i < n; i++)
        all += logits[i] > logit ? weights[i] : 0;
    return all;
}

static int64_t count_above(const float *restrict logits, int64_t n, float logit)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += logits[i] > logit;
    return count;
}

static inline int64_t block_end(int64_t start, int64_t n) { return start + BLOCK < n ? start + BLOCK : n; }

/* The highest logit; no number if one of them is none, or has no end. */
static float top_of(const float *logits, int64_t n)
{
    float tops[LANES], top = -INFINITY;
    for (int64_t lane = 0; lane < LANES; lane++)
        tops[lane] = -INFINITY;
    for (int64_t i = 0; i < n; i += BLOCK) {
        raise_to(logits + i, block_end(i, n) - i, tops);
        if (count_wrong(logits + i, block_end(i, n) - i))
            return NAN;
    }
    for (int64_t lane = 0; lane < LANES; lane++)
        top = tops[lane] > top ? tops[lane] : top;
    return top;
}

/* The token at which the cumulative sum passes `target`; rounding may have put that behind the last one. */
static int64_t invert(const float *weights, const double *edges, int64_t n, double target)
{
    int64_t block = 0, token = 0;
    while (edges[block] <= target && (block + 1) * BLOCK < n)
        block++;
    double passed = block ? edges[block - 1] : 0;
    for (int64_t i = block * BLOCK, end = block_end(i, n); i < end && passed <= target; i++)
        if (weights[i] > 0) {
            passed += weights[i];
            token = i;
        }
    return token;
}

static int is_allowed(const struct proposal *it, const float *logits, const float *weights, int64_t n, double whole)
{
    float logit = logits[it->token];
    double mass = 0;
    if (logit == it->top)
        return 1;
    if (it->min_p > 0 && exp((logit - it->top) * it->coldness) < it->min_p)
        return 0;
    if (it->top_k && count_above(logits, n, logit) >= it->top_k)
        return 0;
    if (it->top_p >= 1)
        return 1;
    for (int64_t i = 0; i < n; i += BLOCK)
        mass += sum_above(logits + i, weights + i, block_end(i, n) - i, logit);
    return mass < it->top_p * whole;
}

/* Fills `count` proposals for `logits`, [rows, n]; `weights` holds n numbers, `edges` one for each block of them. */
void propose(const float *logits, int64_t n, struct proposal *proposals, int64_t count, float *weights, double *edges)
{
    for (struct proposal *it = proposals; it < proposals + count; it++) {
        const float *row = logits + it->row * n;
        double whole = 0, left = 0;
        if (isnan(it->top))
            it->top = top_of(row, n);
        if (!isfinite(it->top))
            continue;
        for (int64_t i = 0; i < n; i += BLOCK) {
            weigh(row + i, block_end(i, n) - i, it->top, it->coldness, weights + i);
            edges[i / BLOCK] = whole += sum(weights + i, block_end(i, n) - i);
        }
        for (int64_t i = 0; i < n && it->refused > -INFINITY; i += BLOCK) {
            keep_above(row + i, block_end(i, n) - i, it->refused, weights + i);
            edges[i / BLOCK] = left += sum(weights + i, block_end(i, n) - i);
        }
        it->token = invert(weights, edges, n, it->uniform * edges[(n - 1) / BLOCK]);
        it->allowed = is_allowed(it, row, weights, n, whole);
    }
}
