// Attention of one new token a row over keys and values that are padded at the beginning: what stands before a row's own
// first position is not read, so that no mask is needed and no length is planned for. CUDA only. attention.py defines
// D (the size of a head), G (heads of queries that look at one head of keys), W (warps of a block), TYPE (0 float32,
// 1 float16, 2 bfloat16), KIND (0 whole, 1 part, 2 merged: what is compiled).
//
// queries [rows, heads of keys * G, D]; keys, values [rows, heads of keys, room, D], of which end positions are filled;
// starts [rows]; scale is a float's bits, since MLX hands no floats over. A block has one row, one head of keys and one part of the row's positions. Half a warp has a position,
// each lane E neighbouring values of it; TURN positions are read at once.

typedef unsigned int u32;
typedef unsigned short u16;
#if TYPE == 0
typedef float Value;
__device__ inline float read(Value x) { return x; }
__device__ inline Value written(float x) { return x; }
#elif TYPE == 1
typedef u16 Value;
__device__ inline float read(Value x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
__device__ inline Value written(float x) {
  u16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
#else
typedef u16 Value;
__device__ inline float read(Value x) { return __uint_as_float(u32(x) << 16); }
__device__ inline Value written(float x) {
  const u32 y = __float_as_uint(x);
  return x != x ? 0x7fc0 : (y + 0x7fff + (y >> 16 & 1)) >> 16;
}
#endif

#define E (D / 16)
#define TURN (G * E > 32 ? 2 : 4)
#define NONE __int_as_float(0xff800000)
struct alignas((E & (E - 1)) || E * sizeof(Value) > 16 ? sizeof(Value) * (E % 8 ? 2 : 8) : E * sizeof(Value)) Pack {
  Value its[E];
};

__device__ inline float factor(float top, float highest) { return top == NONE ? 0.0f : exp2f(top - highest); }

template <bool WHOLE, typename Out>
__device__ inline void attend(const Value* queries, const Value* keys, const Value* values, const int* starts,
                              Out* outputs, int room, int end, float scale) {
  const int lane = threadIdx.x % 16;
  const int half = threadIdx.x / 16;
  const int head = blockIdx.y;
  const int row = blockIdx.z;
  const int begin = starts[row];
  const int span = (end - begin + int(gridDim.x) - 1) / int(gridDim.x);
  const int first = begin + int(blockIdx.x) * span;
  const int last = min(end, first + span);
  const long long place = row * int(gridDim.y) + head;

  float query[G][E], heard[G][E], top[G], sum[G];
  for (int g = 0; g < G; ++g) {
    const Pack it = *reinterpret_cast<const Pack*>(queries + (place * G + g) * D + lane * E);
    for (int e = 0; e < E; ++e) {
      query[g][e] = read(it.its[e]) * scale;
      heard[g][e] = 0;
    }
    top[g] = NONE;
    sum[g] = 0;
  }

  keys += place * room * D + lane * E;
  values += place * room * D + lane * E;
  for (int base = first; base < last; base += TURN * W * 2) {
    Pack k[TURN], v[TURN];
#pragma unroll
    for (int t = 0; t < TURN; ++t) {
      const long long position = min(base + t * W * 2 + half, last - 1);
      k[t] = *reinterpret_cast<const Pack*>(keys + position * D);
      v[t] = *reinterpret_cast<const Pack*>(values + position * D);
    }
#pragma unroll
    for (int g = 0; g < G; ++g) {
      float score[TURN], highest = top[g];
#pragma unroll
      for (int t = 0; t < TURN; ++t) {
        float dot = 0;
#pragma unroll
        for (int e = 0; e < E; ++e) dot += query[g][e] * read(k[t].its[e]);
#pragma unroll
        for (int other = 8; other; other /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, other);
        score[t] = base + t * W * 2 + half < last ? dot : NONE;
        highest = fmaxf(highest, score[t]);
      }
      const float kept = factor(top[g], highest);
      top[g] = highest;
      sum[g] *= kept;
#pragma unroll
      for (int e = 0; e < E; ++e) heard[g][e] *= kept;
#pragma unroll
      for (int t = 0; t < TURN; ++t) {
        const float weight = factor(score[t], highest);
        sum[g] += weight;
#pragma unroll
        for (int e = 0; e < E; ++e) heard[g][e] += weight * read(v[t].its[e]);
      }
    }
  }

  __shared__ float all_heard[W][G][D];
  __shared__ float all_tops[W][G];
  __shared__ float all_sums[W][G];
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int g = 0; g < G; ++g) {  // both halves of a warp as one
    const float highest = fmaxf(top[g], __shfl_xor_sync(0xffffffffu, top[g], 16));
    const float kept = factor(top[g], highest);
    sum[g] *= kept;
    sum[g] += __shfl_xor_sync(0xffffffffu, sum[g], 16);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const float mine = heard[g][e] * kept;
      heard[g][e] = mine + __shfl_xor_sync(0xffffffffu, mine, 16);
    }
    if (threadIdx.x % 32 < 16) {
      for (int e = 0; e < E; ++e) all_heard[warp][g][lane * E + e] = heard[g][e];
      if (lane == 0) {
        all_tops[warp][g] = highest;
        all_sums[warp][g] = sum[g];
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < G * D; i += W * 32) {
    const int g = i / D, d = i % D;
    float highest = NONE, total = 0, mixed = 0;
    for (int w = 0; w < W; ++w) highest = fmaxf(highest, all_tops[w][g]);
    for (int w = 0; w < W; ++w) {
      const float weight = factor(all_tops[w][g], highest);
      total += weight * all_sums[w][g];
      mixed += weight * all_heard[w][g][d];
    }
    if constexpr (WHOLE) {
      outputs[(place * G + g) * D + d] = written(mixed / total);
    } else {
      Out* part = outputs + ((place * G + g) * int(gridDim.x) + int(blockIdx.x)) * (D + 2);
      part[d] = mixed;
      if (d == 0) {
        part[D] = highest;
        part[D + 1] = total;
      }
    }
  }
}

#if KIND == 0
extern "C" __global__ void __launch_bounds__(W * 32) whole(const Value* queries, const Value* keys, const Value* values,
                                                           const int* starts, Value* outputs, int room, int end,
                                                           int scale) {
  attend<true>(queries, keys, values, starts, outputs, room, end, __int_as_float(scale));
}
#elif KIND == 1
extern "C" __global__ void __launch_bounds__(W * 32) part(const Value* queries, const Value* keys, const Value* values,
                                                          const int* starts, float* outputs, int room, int end,
                                                          int scale) {
  attend<false>(queries, keys, values, starts, outputs, room, end, __int_as_float(scale));
}
#else
// What `part` has made, [heads, count, D + 2]: values, the highest score, the sum of weights. A block has one head.
extern "C" __global__ void merged(const float* parts, Value* outputs, int count) {
  const float* part = parts + (long long)blockIdx.x * count * (D + 2);
  float highest = NONE, total = 0, mixed = 0;
  for (int i = 0; i < count; ++i) highest = fmaxf(highest, part[i * (D + 2) + D]);
  for (int i = 0; i < count; ++i) {
    const float weight = factor(part[i * (D + 2) + D], highest);
    total += weight * part[i * (D + 2) + D + 1];
    mixed += weight * part[i * (D + 2) + threadIdx.x];
  }
  outputs[(long long)blockIdx.x * D + threadIdx.x] = written(mixed / total);
}
#endif
