// Row gathers, conversions, rotary embedding, cache writes.
#include "backends/cuda/device.cuh"

namespace minimax::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(int64_t count) { return static_cast<unsigned>(ceil_div(count, kThreads)); }
__device__ int64_t global_index() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

int64_t bytes_of(Scalar scalar) { return scalar == Scalar::kF32 ? 4 : 2; }

// Rows [first, first + rows) of a matrix; none stays none.
Matrix rows_from(Matrix m, int64_t first, int64_t rows) {
  if (m.data != nullptr) m.data = static_cast<uint8_t*>(m.data) + first * m.stride * bytes_of(m.scalar);
  m.rows = rows;
  return m;
}

// Calls f(first, rows) for parts that a grid's second dimension can count.
template <typename F>
void for_row_parts(int64_t rows, F&& f) {
  constexpr int64_t kMostRows = 65535;
  for (int64_t first = 0; first < rows; first += kMostRows)
    f(first, rows - first < kMostRows ? rows - first : kMostRows);
}

template <typename T, typename Out>
__global__ void embedding_kernel(const int32_t* ids, Matrix table, Matrix out, int64_t first_id) {
  ptx::wait_for_previous_kernel();
  const int64_t row = static_cast<int64_t>(ids[blockIdx.x]) - first_id;
  const bool is_there = row >= 0 && row < table.rows;
  const T* from = static_cast<const T*>(table.data) + (is_there ? row : 0) * table.stride;
  Out* to = static_cast<Out*>(out.data) + static_cast<int64_t>(blockIdx.x) * out.stride;
  for (int64_t i = blockIdx.y * blockDim.x + threadIdx.x; i < out.columns; i += gridDim.y * blockDim.x) {
    to[i] = from_f32<Out>(is_there ? to_f32(from[i]) : 0.0F);
  }
}

template <typename From, typename To>
__global__ void convert_kernel(Matrix from, Matrix to) {
  ptx::wait_for_previous_kernel();
  const From* x = static_cast<const From*>(from.data) + static_cast<int64_t>(blockIdx.y) * from.stride;
  To* y = static_cast<To*>(to.data) + static_cast<int64_t>(blockIdx.y) * to.stride;
  const int64_t i = global_index();
  if (i < from.columns) y[i] = from_f32<To>(to_f32(x[i]));
}

// Eight numbers a thread.
__global__ void convert_f32_to_bf16_kernel(const float4* from, uint4* to, int64_t count) {
  ptx::wait_for_previous_kernel();
  const int64_t i = global_index();
  if (i >= count) return;
  const float4 a = from[2 * i], b = from[2 * i + 1];
  to[i] = {pack_bf16(a.x, a.y), pack_bf16(a.z, a.w), pack_bf16(b.x, b.y), pack_bf16(b.z, b.w)};
}

template <typename T>
__global__ void silu_kernel(Matrix x) {
  T* row = static_cast<T*>(x.data) + static_cast<int64_t>(blockIdx.y) * x.stride;
  const int64_t i = global_index();
  if (i < x.columns) row[i] = from_f32<T>(silu(to_f32(row[i])));
}

// A dense matrix as one run, sixteen bytes a thread.
__global__ void silu_run_kernel(uint4* x, int64_t count) {
  const int64_t i = global_index();
  if (i >= count) return;
  uint4 v = x[i];
  const auto apply = [](uint32_t pair) {
    return pack_bf16(silu(ptx::low_float(pair)), silu(ptx::high_float(pair)));
  };
  x[i] = {apply(v.x), apply(v.y), apply(v.z), apply(v.w)};
}

template <typename Hidden>
__global__ void swiglu_kernel(Matrix gate, Matrix up, SwigluParams params, Matrix hidden) {
  ptx::wait_for_previous_kernel();
  const int64_t row = blockIdx.y;
  const int64_t i = global_index();
  if (i >= hidden.columns) return;
  const float g = static_cast<const float*>(gate.data)[row * gate.stride + i];
  const float u = static_cast<const float*>(up.data)[row * up.stride + i];
  static_cast<Hidden*>(hidden.data)[row * hidden.stride + i] = from_f32<Hidden>(swiglu(params, g, u));
}

template <typename Y, typename Out>
__global__ void add_kernel(Matrix x, Matrix y, Matrix out) {
  ptx::wait_for_previous_kernel();
  const int64_t row = blockIdx.y;
  const int64_t i = global_index();
  if (i >= out.columns) return;
  const float sum = static_cast<const float*>(x.data)[row * x.stride + i] +
                    to_f32(static_cast<const Y*>(y.data)[row * y.stride + i]);
  static_cast<Out*>(out.data)[row * out.stride + i] = from_f32<Out>(sum);
}

template <typename T>
__global__ void mix_shared_kernel(Matrix routed, Matrix shared, const float* coefficient, int64_t stride,
                                  Matrix out) {
  const int64_t row = blockIdx.y;
  const int64_t i = global_index();
  if (i >= out.columns) return;
  const float c = sigmoid(coefficient[row * stride]);
  const float a = to_f32(static_cast<const T*>(routed.data)[row * routed.stride + i]);
  const float b = to_f32(static_cast<const T*>(shared.data)[row * shared.stride + i]);
  static_cast<T*>(out.data)[row * out.stride + i] = from_f32<T>(a * (1.0F - c) + b * c);
}

template <typename T>
__global__ void rope_kernel(Heads x, const int32_t* positions, const float* inv_freq, int64_t half) {
  ptx::wait_for_previous_kernel();
  const int64_t i = global_index();
  if (i >= x.tokens * x.heads * half) return;
  const int64_t c = i % half;
  const int64_t head = i / half % x.heads;
  const int64_t token = i / half / x.heads;
  T* p = static_cast<T*>(x.data) + token * x.token_stride + head * x.head_stride;
  float sine, cosine;
  sincosf(static_cast<float>(positions[token]) * inv_freq[c], &sine, &cosine);
  const float a = to_f32(p[c]), b = to_f32(p[c + half]);
  p[c] = from_f32<T>(a * cosine - b * sine);
  p[c + half] = from_f32<T>(b * cosine + a * sine);
}

template <typename T, typename Cache>
__global__ void kv_write_kernel(Heads k, Heads v, const int64_t* slots, PagedKv cache) {
  ptx::wait_for_previous_kernel();
  const int64_t token = blockIdx.x;
  const int64_t slot = slots[token];
  if (slot < 0) return;
  const int64_t width = cache.kv_heads * cache.dim;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    const int64_t head = i / cache.dim, d = i % cache.dim;
    const T* from_k = static_cast<const T*>(k.data) + token * k.token_stride + head * k.head_stride;
    const T* from_v = static_cast<const T*>(v.data) + token * v.token_stride + head * v.head_stride;
    static_cast<Cache*>(cache.k)[slot * width + i] = from_f32<Cache>(to_f32(from_k[d]));
    static_cast<Cache*>(cache.v)[slot * width + i] = from_f32<Cache>(to_f32(from_v[d]));
  }
}

// Heads of 128 in chunks of eight numbers, eight threads a head: a thread has two chunks, which its angles
// pair if they turn at all. All that a thread reads it asks for at once, and all but the row itself before
// the kernel that makes the row is done.
constexpr int kHeadDim = 128;
constexpr int kHeadThreads = 8;
constexpr int kHeadsThreads = 256;

struct Eight {
  float at[8];
};
__device__ Eight unpack(const uint4& v) {
  return {ptx::low_float(v.x), ptx::high_float(v.x), ptx::low_float(v.y), ptx::high_float(v.y),
          ptx::low_float(v.z), ptx::high_float(v.z), ptx::low_float(v.w), ptx::high_float(v.w)};
}
__device__ float squares_of(const uint4& v) {
  const Eight x = unpack(v);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += x.at[i] * x.at[i];
  return sum;
}
// Not to be put off until its first use.
__device__ uint4 load_now(const bf16_t* p) {
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p)
               : "memory");
  return v;
}
__device__ Eight load_weights(const Vector& weight, int64_t at) {
  if (weight.scalar == Scalar::kBF16)
    return unpack(*reinterpret_cast<const uint4*>(static_cast<const bf16_t*>(weight.data) + at));
  const float* from = static_cast<const float*>(weight.data) + at;
  const float4 low = load_four(from), high = load_four(from + 4);
  return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
}

// One of a row's heads, in the order queries, keys, values, index queries, the index key: its weights and
// where it goes.
struct HeadUnit {
  bool is_there = false, is_q = false, is_k = false, is_v = false, is_flat = false, by_slot = false,
       is_bf16 = true;
  uint8_t* to = nullptr;
  int64_t stride = 0;  // bytes between tokens, or slots
  const Vector* weight = nullptr;
  int64_t weight_at = 0;

  __device__ HeadUnit() {}
  __device__ HeadUnit(const QkNormRopeArgs& a, int unit) {
    const int q = static_cast<int>(a.q_out.heads), kv = static_cast<int>(a.cache.kv_heads);
    const int index = a.index_q_out.data == nullptr ? -1 : static_cast<int>(a.index_q_out.heads);
    is_there = unit <= q + 2 * kv + index;
    is_q = unit < q;
    is_k = !is_q && unit < q + kv;
    is_v = !is_q && !is_k && unit < q + 2 * kv;
    is_flat = is_q ? a.q_is_flat : is_k && a.k_is_flat;
    if (is_q) {
      place(a.q_out, unit);
      weight = &a.q_norm;
    } else if (is_k || is_v) {
      const int head = unit - (is_k ? q : q + kv);
      place_by_slot(is_k ? a.cache.k : a.cache.v, a.cache.scalar, head, kv);
      weight = is_k ? &a.k_norm : nullptr;
    } else if (unit < q + 2 * kv + index) {
      place(a.index_q_out, unit - q - 2 * kv);
      weight = &a.index_q_norm;
    } else if (is_there) {
      place_by_slot(a.index_cache, a.index_scalar, 0, 1);
      weight = &a.index_k_norm;
    }
    weight_at = is_flat ? (is_q ? unit : unit - q) * kHeadDim : 0;
  }
  __device__ void place(const Heads& x, int head) {
    is_bf16 = x.scalar == Scalar::kBF16;
    const int bytes = is_bf16 ? 2 : 1;
    to = static_cast<uint8_t*>(x.data) + head * x.head_stride * bytes;
    stride = x.token_stride * bytes;
  }
  __device__ void place_by_slot(void* cache, Scalar scalar, int head, int heads) {
    is_bf16 = scalar == Scalar::kBF16;
    by_slot = true;
    const int bytes = (is_bf16 ? 2 : 1) * kHeadDim;
    to = static_cast<uint8_t*>(cache) + head * bytes;
    stride = static_cast<int64_t>(heads) * bytes;
  }
  __device__ void store(int64_t row, int chunk, const Eight& x) const {
    uint8_t* at = to + row * stride;
    if (is_bf16) {
      *reinterpret_cast<uint4*>(at + chunk * 16) = {pack_bf16(x.at[0], x.at[1]), pack_bf16(x.at[2], x.at[3]),
                                                    pack_bf16(x.at[4], x.at[5]), pack_bf16(x.at[6], x.at[7])};
      return;
    }
    alignas(8) e4m3_t codes[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) codes[i] = from_f32<e4m3_t>(x.at[i]);
    *reinterpret_cast<uint2*>(at + chunk * 8) = *reinterpret_cast<const uint2*>(codes);
  }
};

// A block has kRounds heads for every eight threads: all heads of a token (kIsWhole), or as many of them;
// then each block sums up the squares of all heads that are normed together.
template <int kRounds, bool kIsWhole>
__global__ void __launch_bounds__(2 * kHeadsThreads)
    qk_norm_rope_heads_kernel(const __grid_constant__ QkNormRopeArgs a) {
  __shared__ __align__(16) float cosines[kHeadDim / 2], sines[kHeadDim / 2];
  __shared__ float2 sums[32];
  if (a.lets_next_start) ptx::start_next_kernel();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int heads_a_round = static_cast<int>(blockDim.x) / kHeadThreads;
  const int first_unit =
      static_cast<int>(blockIdx.y) * heads_a_round + static_cast<int>(threadIdx.x) / kHeadThreads;
  const int64_t token = blockIdx.x;
  const int q_width = static_cast<int>(a.q_out.heads) * kHeadDim,
            k_width = static_cast<int>(a.cache.kv_heads) * kHeadDim;
  // A power of two of chunks turns with as many behind them.
  const int away = static_cast<int>(a.half) / 8, place = threadIdx.x % kHeadThreads;
  const int low = (place & ~(away - 1)) * 2 + (place & (away - 1)), high = low + away;
  // Positions, slots and weights are inputs of the step: no kernel writes them.
  if (threadIdx.x < a.half) {
    sincosf(static_cast<float>(a.positions[token]) * a.inv_freq[threadIdx.x], &sines[threadIdx.x],
            &cosines[threadIdx.x]);
  }
  const int64_t slot = a.slots[token];
  HeadUnit unit;
  Eight low_weights, high_weights;
  const auto prepare = [&](int r) {
    unit = HeadUnit(a, first_unit + r * heads_a_round);
#pragma unroll
    for (int i = 0; i < 8; ++i) low_weights.at[i] = high_weights.at[i] = 1;
    if (unit.weight == nullptr) return;
    low_weights = load_weights(*unit.weight, unit.weight_at + low * 8);
    high_weights = load_weights(*unit.weight, unit.weight_at + high * 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      low_weights.at[i] += a.weight_offset;
      high_weights.at[i] += a.weight_offset;
    }
  };
  if (kRounds == 1) prepare(0);
  const bool has_squares = a.squares != nullptr;
  const bool sums_here = !has_squares && (a.q_is_flat || a.k_is_flat);
  const float q_part = __fdividef(1.0F, static_cast<float>(has_squares ? a.q_norm_width : q_width));
  const float k_part = __fdividef(1.0F, static_cast<float>(has_squares ? a.k_norm_width : k_width));
  ptx::wait_for_previous_kernel();

  const bf16_t* row = static_cast<const bf16_t*>(a.qkv.data) + token * a.qkv.stride;
  const int units = (q_width + 2 * k_width) / kHeadDim +
                    (a.index_q_out.data == nullptr ? 0 : static_cast<int>(a.index_q_out.heads) + 1);
  uint4 lows[kRounds], highs[kRounds];
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    // Heads behind the last are read as the last one and not stored.
    const bf16_t* from = row + min(first_unit + r * heads_a_round, units - 1) * kHeadDim;
    lows[r] = load_now(from + low * 8);
    highs[r] = load_now(from + high * 8);
  }
  float2 squares = {0, 0};
  if (sums_here && !kIsWhole) {
    // Of queries only, of keys only, or of both, as the block's own heads need them.
    const int first = static_cast<int>(blockIdx.y) * heads_a_round, q_heads = q_width / kHeadDim;
    const int begin = a.q_is_flat && first < q_heads ? 0 : q_width;
    const int end = a.k_is_flat && first + heads_a_round > q_heads ? q_width + k_width : q_width;
    constexpr int kAhead = 4;
    const int step = static_cast<int>(blockDim.x) * 8;
    for (int base = begin + static_cast<int>(threadIdx.x) * 8; base < end; base += kAhead * step) {
      uint4 chunks[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) chunks[i] = load_now(row + min(base + i * step, end - 8));
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const float sum = base + i * step < end ? squares_of(chunks[i]) : 0;
        squares.x += base + i * step < q_width ? sum : 0;
        squares.y += base + i * step < q_width ? 0 : sum;
      }
    }
  } else if (sums_here) {
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int unit = first_unit + r * heads_a_round;
      const float sum = squares_of(lows[r]) + squares_of(highs[r]);
      squares.x += unit * kHeadDim < q_width ? sum : 0;
      squares.y += unit * kHeadDim >= q_width && unit * kHeadDim < q_width + k_width ? sum : 0;
    }
  }
  if (sums_here) {
    squares = {warp_sum(squares.x), warp_sum(squares.y)};
    if (lane == 0) sums[warp] = squares;
  }
  __syncthreads();
  if (sums_here) {
    const float2 own = lane < static_cast<int>(blockDim.x) / 32 ? sums[lane] : float2{0, 0};
    squares = {warp_sum(own.x), warp_sum(own.y)};
  } else if (has_squares) {
    squares = {a.squares[2 * token], a.squares[2 * token + 1]};
  }
  const float q_factor = rsqrtf(squares.x * q_part + a.eps), k_factor = rsqrtf(squares.y * k_part + a.eps);
  Eight cosine, sine;
  if (place < away) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      cosine.at[i] = cosines[place * 8 + i];
      sine.at[i] = sines[place * 8 + i];
    }
  }
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    if (kRounds > 1) prepare(r);
    float factor = unit.is_v ? 1 : unit.is_q ? q_factor : k_factor;
    if (!a.q_is_flat || !a.k_is_flat) {
      float sum = squares_of(lows[r]) + squares_of(highs[r]);
#pragma unroll
      for (int i = 1; i < kHeadThreads; i <<= 1) sum += __shfl_xor_sync(0xffffffffU, sum, i);
      const float own = rsqrtf(sum * (1.0F / kHeadDim) + a.eps);
      factor = unit.is_v || unit.is_flat ? factor : own;
    }
    Eight x = unpack(lows[r]), y = unpack(highs[r]);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      x.at[i] *= factor * low_weights.at[i];
      y.at[i] *= factor * high_weights.at[i];
    }
    if (place < away && !unit.is_v) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float before = x.at[i];
        x.at[i] = before * cosine.at[i] - y.at[i] * sine.at[i];
        y.at[i] = y.at[i] * cosine.at[i] + before * sine.at[i];
      }
    }
    const int64_t to_row = unit.by_slot ? slot : token;
    if (!unit.is_there || to_row < 0) continue;
    unit.store(to_row, low, x);
    unit.store(to_row, high, y);
  }
}

// Heads of 128 in BF16 whose angles pair chunks of eight.
bool has_whole_heads(const QkNormRopeArgs& a) {
  const auto fits = [](const void* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 16 == 0;
  };
  const auto is_narrow = [](Scalar scalar) { return scalar == Scalar::kBF16 || scalar == Scalar::kE4m3; };
  const Heads& index = a.index_q_out;
  const bool index_fits = index.data == nullptr ||
                          (index.dim == kHeadDim && is_narrow(index.scalar) && is_narrow(a.index_scalar) &&
                           fits(index.data, index.token_stride) && fits(a.index_cache, index.head_stride) &&
                           fits(a.index_q_norm.data, 0) && fits(a.index_k_norm.data, 0));
  return a.qkv.scalar == Scalar::kBF16 && a.q_out.scalar == Scalar::kBF16 && is_narrow(a.cache.scalar) &&
         a.q_out.dim == kHeadDim && (a.half == 8 || a.half == 16 || a.half == 32 || a.half == 64) &&
         index_fits && a.qkv.stride % 8 == 0 && fits(a.qkv.data, 0) &&
         fits(a.q_out.data, a.q_out.token_stride) && a.q_out.head_stride % 8 == 0 && fits(a.cache.k, 0) &&
         fits(a.cache.v, 0) && fits(a.q_norm.data, 0) && fits(a.k_norm.data, 0);
}

constexpr int kMostHeadDim = 512;
constexpr int kQkWarps = 8;

// One block a token, or several when there are few tokens. Warps take heads in turn: queries, keys, values,
// index queries, the index key.
template <typename T, typename Q, typename Cache>
__global__ void qk_norm_rope_kernel(QkNormRopeArgs a, int32_t index_scalar) {
  ptx::wait_for_previous_kernel();
  __shared__ float scratch[33];
  __shared__ float rows[kQkWarps][kMostHeadDim];
  __shared__ float sines[kMostHeadDim / 2], cosines[kMostHeadDim / 2];
  const int64_t token = blockIdx.x;
  const int64_t dim = a.q_out.dim, heads = a.q_out.heads, kv_heads = a.cache.kv_heads;
  const int64_t index_heads = a.index_q_out.data == nullptr ? 0 : a.index_q_out.heads;
  const int64_t index_dim = a.index_q_out.dim;
  const T* row = static_cast<const T*>(a.qkv.data) + token * a.qkv.stride;
  // All heads turn by the same angles.
  const float position = static_cast<float>(a.positions[token]);
  for (int64_t c = threadIdx.x; c < a.half; c += blockDim.x)
    sincosf(position * a.inv_freq[c], &sines[c], &cosines[c]);
  float q_factor = 0, k_factor = 0;
  const auto flat_factor = [&](int64_t begin, int64_t count, int which, int64_t width) {
    float sum = 0;
    if (a.squares != nullptr) {
      sum = a.squares[2 * token + which];
    } else {
#pragma unroll 8
      for (int64_t i = threadIdx.x; i < count; i += kQkWarps * 32) {
        const float v = to_f32(row[begin + i]);
        sum += v * v;
      }
      sum = block_sum(sum, scratch);
    }
    return rsqrtf(sum / static_cast<float>(a.squares != nullptr ? width : count) + a.eps);
  };
  if (a.q_is_flat) q_factor = flat_factor(0, heads * dim, 0, a.q_norm_width);
  if (a.k_is_flat) k_factor = flat_factor(heads * dim, kv_heads * dim, 1, a.k_norm_width);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t slot = a.slots[token];
  const int64_t units = heads + 2 * kv_heads + (index_heads > 0 ? index_heads + 1 : 0);
  __syncthreads();
  for (int64_t unit = blockIdx.y * kQkWarps + warp; unit < units; unit += gridDim.y * kQkWarps) {
    const bool is_q = unit < heads;
    const bool is_k = !is_q && unit < heads + kv_heads;
    const bool is_v = !is_q && !is_k && unit < heads + 2 * kv_heads;
    const bool is_index = unit >= heads + 2 * kv_heads;
    const int64_t index_head = unit - heads - 2 * kv_heads;
    const bool is_index_k = is_index && index_head == index_heads;
    const int64_t n = is_index ? index_dim : dim;
    const T* from = row + (is_index ? (heads + 2 * kv_heads) * dim + index_head * index_dim : unit * dim);
    float* x = rows[warp];
    float sum = 0;
    for (int64_t i = lane; i < n; i += 32) {
      x[i] = to_f32(from[i]);
      sum += x[i] * x[i];
    }
    if (!is_v) {
      const Vector& weight = is_q ? a.q_norm : is_k ? a.k_norm : is_index_k ? a.index_k_norm : a.index_q_norm;
      const bool is_flat = is_q ? a.q_is_flat : is_k && a.k_is_flat;
      const float factor =
          is_flat ? (is_q ? q_factor : k_factor) : rsqrtf(warp_sum(sum) / static_cast<float>(n) + a.eps);
      const int64_t first = is_flat ? (is_q ? unit : unit - heads) * dim : 0;
      for (int64_t i = lane; i < n; i += 32)
        x[i] *= factor * (a.weight_offset + load_scalar(weight.data, weight.scalar, first + i));
      __syncwarp();
      for (int64_t c = lane; c < a.half; c += 32) {
        const float sine = sines[c], cosine = cosines[c];
        const float low = x[c], high = x[c + a.half];
        x[c] = low * cosine - high * sine;
        x[c + a.half] = high * cosine + low * sine;
      }
    }
    __syncwarp();
    for (int64_t i = lane; i < n; i += 32) {
      if (is_q) {
        static_cast<Q*>(a.q_out.data)[token * a.q_out.token_stride + unit * a.q_out.head_stride + i] =
            from_f32<Q>(x[i]);
      } else if (is_k || is_v) {
        if (slot < 0) continue;
        const int64_t head = unit - heads - (is_v ? kv_heads : 0);
        Cache* cache = static_cast<Cache*>(is_v ? a.cache.v : a.cache.k);
        cache[(slot * kv_heads + head) * dim + i] = from_f32<Cache>(x[i]);
      } else {
        if (is_index_k && slot < 0) continue;
        void* to = is_index_k ? a.index_cache : a.index_q_out.data;
        const int64_t at =
            is_index_k ? slot * index_dim + i
                       : token * a.index_q_out.token_stride + index_head * a.index_q_out.head_stride + i;
        const Scalar scalar = is_index_k ? static_cast<Scalar>(index_scalar) : a.index_q_out.scalar;
        if (scalar == Scalar::kBF16) {
          static_cast<bf16_t*>(to)[at] = from_f32<bf16_t>(x[i]);
        } else if (scalar == Scalar::kE4m3) {
          static_cast<e4m3_t*>(to)[at] = from_f32<e4m3_t>(x[i]);
        } else {
          static_cast<float*>(to)[at] = x[i];
        }
      }
    }
    __syncwarp();
  }
}

}  // namespace

void launch_embedding(const int32_t* ids, const Matrix& table, const Matrix& out, int64_t first_id,
                      cudaStream_t stream) {
  if (out.rows * out.columns == 0) return;
  // Few rows are spread over blocks; many fill the chip as they are.
  const dim3 grid(static_cast<unsigned>(out.rows), out.rows < 256 ? blocks_for(out.columns) : 1);
  with_table(table.scalar, [&](auto t) {
    with_activation(out.scalar, [&](auto o) {
      launch(embedding_kernel<decltype(t), decltype(o)>, grid, kThreads, 0, stream, ids, table, out,
             first_id);
    });
  });
}

void launch_convert(const Matrix& from, const Matrix& to, cudaStream_t stream) {
  if (from.rows * from.columns == 0) return;
  const bool is_dense = from.stride == from.columns && to.stride == to.columns;
  const auto address = reinterpret_cast<uintptr_t>(from.data) | reinterpret_cast<uintptr_t>(to.data);
  if (is_dense && from.scalar == Scalar::kF32 && to.scalar == Scalar::kBF16 && address % 16 == 0 &&
      from.rows * from.columns % 8 == 0) {
    const int64_t count = from.rows * from.columns / 8;
    launch(convert_f32_to_bf16_kernel, blocks_for(count), kThreads, 0, stream,
           static_cast<const float4*>(from.data), static_cast<uint4*>(to.data), count);
    return;
  }
  for_row_parts(from.rows, [&](int64_t first, int64_t rows) {
    with_activation(from.scalar, [&](auto f) {
      with_activation(to.scalar, [&](auto t) {
        launch(convert_kernel<decltype(f), decltype(t)>,
               dim3(blocks_for(from.columns), static_cast<unsigned>(rows)), kThreads, 0, stream,
               rows_from(from, first, rows), rows_from(to, first, rows));
      });
    });
  });
}

void launch_silu(const Matrix& x, cudaStream_t stream) {
  const int64_t numbers = x.rows * x.columns;
  if (numbers == 0) return;
  if (x.scalar == Scalar::kBF16 && x.stride == x.columns && numbers % 8 == 0 &&
      reinterpret_cast<uintptr_t>(x.data) % 16 == 0) {
    silu_run_kernel<<<blocks_for(numbers / 8), kThreads, 0, stream>>>(static_cast<uint4*>(x.data),
                                                                      numbers / 8);
    return;
  }
  for_row_parts(x.rows, [&](int64_t first, int64_t rows) {
    with_activation(x.scalar, [&](auto t) {
      silu_kernel<decltype(t)>
          <<<dim3(blocks_for(x.columns), static_cast<unsigned>(rows)), kThreads, 0, stream>>>(
              rows_from(x, first, rows));
    });
  });
}

void launch_swiglu(const Matrix& gate, const Matrix& up, const SwigluParams& params, const Matrix& hidden,
                   cudaStream_t stream) {
  if (hidden.rows * hidden.columns == 0) return;
  for_row_parts(hidden.rows, [&](int64_t first, int64_t rows) {
    with_activation(hidden.scalar, [&](auto t) {
      launch(swiglu_kernel<decltype(t)>, dim3(blocks_for(hidden.columns), static_cast<unsigned>(rows)),
             kThreads, 0, stream, rows_from(gate, first, rows), rows_from(up, first, rows), params,
             rows_from(hidden, first, rows));
    });
  });
}

void launch_add(const Matrix& x, const Matrix& y, const Matrix& out, cudaStream_t stream) {
  if (out.rows * out.columns == 0) return;
  for_row_parts(out.rows, [&](int64_t first, int64_t rows) {
    with_activation(y.scalar, [&](auto in) {
      with_activation(out.scalar, [&](auto o) {
        launch(add_kernel<decltype(in), decltype(o)>,
               dim3(blocks_for(out.columns), static_cast<unsigned>(rows)), kThreads, 0, stream,
               rows_from(x, first, rows), rows_from(y, first, rows), rows_from(out, first, rows));
      });
    });
  });
}

void launch_mix_shared(const Matrix& routed, const Matrix& shared, const float* coefficient,
                       int64_t coefficient_stride, const Matrix& out, cudaStream_t stream) {
  if (out.rows * out.columns == 0) return;
  for_row_parts(out.rows, [&](int64_t first, int64_t rows) {
    with_activation(out.scalar, [&](auto t) {
      mix_shared_kernel<decltype(t)>
          <<<dim3(blocks_for(out.columns), static_cast<unsigned>(rows)), kThreads, 0, stream>>>(
              rows_from(routed, first, rows), rows_from(shared, first, rows),
              coefficient + first * coefficient_stride, coefficient_stride, rows_from(out, first, rows));
    });
  });
}

void launch_rope(const Heads& x, const int32_t* positions, const float* inv_freq, int64_t half,
                 cudaStream_t stream) {
  const int64_t count = x.tokens * x.heads * half;
  if (count == 0) return;
  with_activation(x.scalar, [&](auto t) {
    launch(rope_kernel<decltype(t)>, blocks_for(count), kThreads, 0, stream, x, positions, inv_freq, half);
  });
}

void launch_paged_kv_write(const Heads& k, const Heads& v, const int64_t* slots, const PagedKv& cache,
                           cudaStream_t stream) {
  if (k.tokens == 0) return;
  with_activation(k.scalar, [&](auto t) {
    with_cache(cache.scalar, [&](auto c) {
      launch(kv_write_kernel<decltype(t), decltype(c)>, static_cast<unsigned>(k.tokens), kThreads, 0, stream,
             k, v, slots, cache);
    });
  });
}

void launch_qk_norm_rope_kv_write(const QkNormRopeArgs& a, cudaStream_t stream) {
  if (a.qkv.rows == 0) return;
  constexpr int64_t kFewTokens = 64;
  const int64_t index_heads = a.index_q_out.data == nullptr ? 0 : a.index_q_out.heads + 1;
  const int64_t units = a.q_out.heads + 2 * a.cache.kv_heads + index_heads;
  if (has_whole_heads(a)) {
    const auto tokens = static_cast<unsigned>(a.qkv.rows);
    const int64_t whole = ceil_div(ceil_div(units, 2) * kHeadThreads, 32) * 32;
    if (a.qkv.rows > kFewTokens && whole <= 2 * kHeadsThreads)
      return launch(qk_norm_rope_heads_kernel<2, true>, tokens, static_cast<unsigned>(whole), 0, stream, a);
    const dim3 grid(tokens, static_cast<unsigned>(ceil_div(units * kHeadThreads, kHeadsThreads)));
    return launch(qk_norm_rope_heads_kernel<1, false>, grid, kHeadsThreads, 0, stream, a);
  }
  const dim3 grid(static_cast<unsigned>(a.qkv.rows),
                  static_cast<unsigned>(a.qkv.rows <= kFewTokens ? ceil_div(units, kQkWarps) : 1));
  with_activation(a.qkv.scalar, [&](auto t) {
    with_activation(a.q_out.scalar, [&](auto q) {
      with_cache(a.cache.scalar, [&](auto c) {
        launch(qk_norm_rope_kernel<decltype(t), decltype(q), decltype(c)>, grid, kQkWarps * 32, 0, stream, a,
               static_cast<int32_t>(a.index_scalar));
      });
    });
  });
}

}  // namespace minimax::cuda
