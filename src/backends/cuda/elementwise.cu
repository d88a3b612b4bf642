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
