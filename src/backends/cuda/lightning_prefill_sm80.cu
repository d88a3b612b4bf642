// Prefill with mma.sync and cp.async; the scheme is told in lightning_prefill_common.cuh. Four warps share
// the work of a chunk: each computes 16 rows of P and 16 value columns of everything else.
#include "backends/cuda/launch.cuh"
#include "backends/cuda/lightning_prefill_common.cuh"
#include "backends/cuda/lightning_prefill_kernels.h"

namespace minimax::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kStages = 2;

template <int D>
struct Tiles {
  static constexpr int kPerRow = D / 64;
  static constexpr int kStageBytes = (2 * kPerRow + 1) * kTileBytes;  // q, k, v
  static constexpr int kBytes = kStages * kStageBytes + 2 * kTileBytes + 1024;
};

// kTiles tiles of 64 rows, 64 columns each, in the background. Rows at or beyond `rows` become zero.
template <int kTiles>
__device__ __forceinline__ void copy_rows(uint32_t to, const __nv_bfloat16* from, int64_t token_stride,
                                          int rows) {
#pragma unroll
  for (int i = 0; i < 4 * kTiles; ++i) {
    const int index = i * kThreads + threadIdx.x;
    const int row = index / (8 * kTiles);
    const int chunk = index % (8 * kTiles);
    const bool is_valid = row < rows;
    ptx::copy_async_16(to + chunk / 8 * kTileBytes + ptx::swizzled(row, chunk % 8),
                       from + (is_valid ? row * token_stride : 0) + chunk * 8, is_valid);
  }
}

// Rows 16 warp .. 16 warp + 15 of P, to `scores` in BF16.
template <int D>
__device__ __forceinline__ void compute_scores(uint32_t scores, uint32_t q, uint32_t k,
                                               const PairDecays& decays, int warp) {
  const int lane = threadIdx.x & 31;
  const int row = 16 * warp + lane % 16;
  uint32_t queries[D / 16][4];
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    ptx::load_matrix_x4(queries[step],
                        q + step / 4 * kTileBytes + ptx::swizzled(row, step % 4 * 2 + lane / 16));
  }
#pragma unroll
  for (int block = 0; block < 4; ++block) {
    float p[8] = {};
    if (block <= warp) {
#pragma unroll
      for (int step = 0; step < D / 16; ++step) {
        uint32_t keys[4];
        ptx::load_matrix_x4(
            keys, k + step / 4 * kTileBytes +
                      ptx::swizzled(16 * block + lane / 16 * 8 + lane % 8, step % 4 * 2 + (lane / 8 & 1)));
        ptx::mma_16x8x16(p, queries[step], keys[0], keys[1]);
        ptx::mma_16x8x16(p + 4, queries[step], keys[2], keys[3]);
      }
      decays.scale(p, 2 * block);
      decays.scale(p + 4, 2 * block + 1);
    }
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      const uint32_t at = scores + lane % 4 * 4;
      ptx::store_shared(at + ptx::swizzled(16 * warp + lane / 4, 2 * block + tile),
                        ptx::pack_bf16(p[4 * tile], p[4 * tile + 1]));
      ptx::store_shared(at + ptx::swizzled(16 * warp + lane / 4 + 8, 2 * block + tile),
                        ptx::pack_bf16(p[4 * tile + 2], p[4 * tile + 3]));
    }
  }
}

// out^T [16 values, 64 tokens] += left [16, 16] right^T, where right holds 64 rows along the reduced
// dimension: 16 columns of a tile from chunk `chunk` on. Rows below 16 first_block are left out.
__device__ __forceinline__ void multiply_along(float (&out)[32], const uint32_t (&left)[4], uint32_t tile,
                                               int chunk, int first_block) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int block = first_block; block < 4; ++block) {
    uint32_t right[4];
    ptx::load_matrix_x4(right,
                        tile + ptx::swizzled(16 * block + lane / 16 * 8 + lane % 8, chunk + (lane / 8 & 1)));
    ptx::mma_16x8x16(out + 8 * block, left, right[0], right[1]);
    ptx::mma_16x8x16(out + 8 * block + 4, left, right[2], right[3]);
  }
}

template <int D>
__device__ __forceinline__ void update_state(float (&s)[D / 2], const uint32_t (&decayed)[4][4],
                                             const uint32_t (&rest)[4][4], uint32_t k) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int step = 0; step < 4; ++step) {
#pragma unroll
    for (int pair = 0; pair < D / 16; ++pair) {
      uint32_t keys[4];
      ptx::load_matrix_x4_trans(
          keys, k + pair / 4 * kTileBytes + ptx::swizzled(16 * step + lane % 16, pair % 4 * 2 + lane / 16));
      ptx::mma_16x8x16(s + 8 * pair, decayed[step], keys[0], keys[1]);
      ptx::mma_16x8x16(s + 8 * pair + 4, decayed[step], keys[2], keys[3]);
      ptx::mma_16x8x16(s + 8 * pair, rest[step], keys[0], keys[1]);
      ptx::mma_16x8x16(s + 8 * pair + 4, rest[step], keys[2], keys[3]);
    }
  }
}

// O^T fragments to a tile [64 tokens, 64 values].
__device__ __forceinline__ void stage_out(uint32_t tile, const float (&out)[32], int warp) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int block = 0; block < 8; ++block) {
    const uint32_t at = tile + lane % 4 * 4;
    const int row = 8 * block + lane / 4;
    ptx::store_shared(at + ptx::swizzled(row, 2 * warp),
                      ptx::transpose_8x8(ptx::pack_bf16(out[4 * block], out[4 * block + 1])));
    ptx::store_shared(at + ptx::swizzled(row, 2 * warp + 1),
                      ptx::transpose_8x8(ptx::pack_bf16(out[4 * block + 2], out[4 * block + 3])));
  }
}

// 64 or fewer rows of 64 values from a tile to out, 16 bytes at a time. 128 threads.
__device__ __forceinline__ void store_rows(__nv_bfloat16* to, int64_t token_stride, uint32_t tile, int rows) {
  const int thread = threadIdx.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = 16 * i + thread / 8;
    const uint4 values = ptx::load_shared16(tile + ptx::swizzled(row, thread % 8));
    if (row < rows) reinterpret_cast<uint4*>(to + row * token_stride)[thread % 8] = values;
  }
}

template <int D, bool kPartial, bool kStops>
__global__ void __launch_bounds__(kThreads) lightning_prefill_sm80(PrefillParams params) {
  extern __shared__ uint8_t shared_bytes[];
  __shared__ float decays[kChunkTokens + 1];
  constexpr int kTiles = Tiles<D>::kPerRow;
  const uint32_t stages = (ptx::shared_address(shared_bytes) + 1023) / 1024 * 1024;
  const uint32_t scores = stages + kStages * Tiles<D>::kStageBytes;
  const uint32_t staged = scores + kTileBytes;

  const int units = params.num_heads * kTiles;
  const int item = blockIdx.x / units;
  const int head = blockIdx.x % units / kTiles;
  const int first_value = blockIdx.x % kTiles * kBlockValues;
  const int warp = threadIdx.x / 32;
  const int value = first_value + 16 * warp + (threadIdx.x & 31) / 4;
  ptx::wait_for_previous_kernel();
  if (!kPartial) clear_unowned_rows(params, item, head, first_value, threadIdx.x);
  const Segment segment = find_segment<kPartial>(params, item);
  if (segment.sequence < 0) return;

  const float rate = params.decay[head];
  fill_decays(decays, rate);
  __syncthreads();
  PairDecays pair_decays;
  pair_decays.fill(decays, warp);

  const __nv_bfloat16* q = params.q + segment.first_row * params.q_token_stride + head * params.q_head_stride;
  const __nv_bfloat16* k = params.k + segment.first_row * params.k_token_stride + head * params.k_head_stride;
  const __nv_bfloat16* v =
      params.v + segment.first_row * params.v_token_stride + head * params.v_head_stride + first_value;
  __nv_bfloat16* to =
      params.out + segment.first_row * params.out_token_stride + head * params.out_head_stride + first_value;
  const bool is_copy = kPartial && segment.index == segment.count - 1;
  ChunkWalk<kStops> walk(params, segment, is_copy ? 0 : segment.rows);

  ChunkWalk<kStops> to_copy = walk;
  const auto start_copy = [&](int chunk) {
    if (!to_copy.is_done()) {
      const uint32_t stage = stages + chunk % kStages * Tiles<D>::kStageBytes;
      const int64_t first = to_copy.first();
      const int left = to_copy.rows();
      if (!kPartial) copy_rows<kTiles>(stage, q + first * params.q_token_stride, params.q_token_stride, left);
      copy_rows<kTiles>(stage + kTiles * kTileBytes, k + first * params.k_token_stride, params.k_token_stride,
                        left);
      copy_rows<1>(stage + 2 * kTiles * kTileBytes, v + first * params.v_token_stride, params.v_token_stride,
                   left);
      to_copy.advance();
    }
    ptx::copy_async_commit();
  };
  start_copy(0);

  float s[D / 2];
  if (kPartial) {
    load_partial_state<D>(s, params, segment, head, value);
  } else {
    load_entering_state<D>(s, params, segment, head, value);
  }

  for (int chunk = 0; !walk.is_done(); walk.advance(), ++chunk) {
    start_copy(chunk + 1);
    ptx::copy_async_wait<1>();
    __syncthreads();
    const uint32_t q_tile = stages + chunk % kStages * Tiles<D>::kStageBytes;
    const uint32_t k_tile = q_tile + kTiles * kTileBytes;
    const int chunk_rows = walk.rows();
    uint32_t values[4][4];
    load_values(values, k_tile + kTiles * kTileBytes, warp);

    if (!kPartial) {
      compute_scores<D>(scores, q_tile, k_tile, pair_decays, warp);
      float out[32] = {};
#pragma unroll
      for (int step = 0; step < D / 16; ++step) {
        uint32_t left[4];
        left_operand(left, s, step);
        multiply_along(out, left, q_tile + step / 4 * kTileBytes, step % 4 * 2, 0);
      }
#pragma unroll
      for (int i = 0; i < 32; ++i) out[i] *= decays[lane_key(i / 4) + i % 2 + 1];
      __syncthreads();
#pragma unroll
      for (int step = 0; step < 4; ++step) multiply_along(out, values[step], scores, 2 * step, step);
      stage_out(staged, out, warp);
    }
    uint32_t decayed[4][4];
    uint32_t rest[4][4];
    ValueDecays value_decays;
    value_decays.fill(decays, chunk_rows);
    decay_values(decayed, rest, values, value_decays);
    decay_state(s, expm1f(-rate * static_cast<float>(chunk_rows)));
    update_state<D>(s, decayed, rest, k_tile);
    __syncthreads();
    if (!kPartial) {
      store_rows(to + walk.first() * params.out_token_stride, params.out_token_stride, staged, chunk_rows);
      const int slot = walk.checkpoint_slot();
      if (slot >= 0) store_state<D>(s, params.state + head_offset<D>(params, slot, head), value);
    }
  }

  float* leaving = leaving_state<D, kPartial>(params, segment, head);
  if (leaving != nullptr) store_state<D>(s, leaving, value);
}

template <int D, bool kPartial, bool kStops>
cudaError_t launch(const PrefillParams& params, int items, cudaStream_t stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(lightning_prefill_sm80<D, kPartial, kStops>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, Tiles<D>::kBytes);
  if (error != cudaSuccess) return error;
  const int64_t blocks = int64_t{items} * params.num_heads * Tiles<D>::kPerRow;
  return launch_early(lightning_prefill_sm80<D, kPartial, kStops>, static_cast<unsigned>(blocks), kThreads,
                      Tiles<D>::kBytes, stream, params);
}

template <int D>
cudaError_t launch_both(const PrefillParams& params, int cut_items, cudaStream_t stream) {
  if (cut_items > 0) {
    const cudaError_t error = launch<D, true, false>(params, cut_items, stream);
    if (error != cudaSuccess) return error;
  }
  const auto main_kernel = params.num_checkpoints > 0 ? launch<D, false, true> : launch<D, false, false>;
  return main_kernel(params, params.num_items, stream);
}

}  // namespace

cudaError_t launch_prefill_sm80(const PrefillParams& params, int head_dim, int cut_items,
                                cudaStream_t stream) {
  return head_dim == 64 ? launch_both<64>(params, cut_items, stream)
                        : launch_both<128>(params, cut_items, stream);
}

}  // namespace minimax::cuda
