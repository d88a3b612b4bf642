// Prefill with Hopper's copy engine and warpgroup products; the scheme is told in
// lightning_prefill_common.cuh. A block has two warpgroups, so that the chain from state to state is as short
// as can be:
//   warps 0 to 3  the state: they publish what it was before a chunk, then add the chunk to it
//   warps 4 to 7  P, and the output from P and the published state; here O is not transposed
// One lane of the first starts the copies of q, k and v, some chunks ahead. The first kernel has no second
// warpgroup.
#include "backends/cuda/launch.cuh"
#include "backends/cuda/lightning_prefill_common.cuh"
#include "backends/cuda/lightning_prefill_kernels.h"
#include "backends/cuda/tensor_map.h"

namespace minimax::cuda {
namespace {

constexpr int kGroupThreads = 128;
constexpr int kStages = 4;

struct Maps {
  CUtensorMap q, k, v;  // [heads, tokens, D], read in boxes of 64 x 64
};

template <int D, bool kPartial>
struct Shape {
  static constexpr int kTiles = D / 64;
  static constexpr int kGroups = kPartial ? 1 : 2;
  static constexpr int kThreads = kGroups * kGroupThreads;
  static constexpr int kQueryBytes = kPartial ? 0 : kTiles * kTileBytes;
  static constexpr int kStageBytes = kQueryBytes + (kTiles + 1) * kTileBytes;
  static constexpr int kStateBytes = kPartial ? 0 : kTiles * kTileBytes;
  static constexpr int kBytes = kStages * kStageBytes + 2 * kStateBytes + (kPartial ? 0 : kTileBytes) + 1024;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct Barriers {
  uint64_t full[kStages];   // q, k, v of a chunk have arrived
  uint64_t empty[kStages];  // and are no longer needed
  uint64_t published[2];    // the state before a chunk is there
  uint64_t consumed[2];     // and no longer needed
};

__device__ __forceinline__ uint32_t at(uint64_t& barrier) { return ptx::shared_address(&barrier); }

// One arrival of this warp, once all its lanes are here.
__device__ __forceinline__ void arrive_warp(uint64_t& barrier) {
  __syncwarp();
  if ((threadIdx.x & 31) == 0) ptx::barrier_arrive(at(barrier));
}

// The compiler may not move uses of these across this point: wgmma wrote them behind its back.
template <int N>
__device__ __forceinline__ void keep(float (&c)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

template <int D, bool kPartial, bool kStops>
struct Block {
  using S = Shape<D, kPartial>;
  Barriers& barriers;
  const float (&decays)[kChunkTokens + 1];
  const Maps& maps;
  uint32_t stages;
  int first_row;
  int head;
  int first_value;
  ChunkWalk<kStops> walk;  // at the first chunk
  int chunks;

  __device__ uint32_t queries(int chunk) const { return stages + chunk % kStages * S::kStageBytes; }
  __device__ uint32_t keys(int chunk) const { return queries(chunk) + S::kQueryBytes; }
  __device__ uint32_t values(int chunk) const { return keys(chunk) + S::kTiles * kTileBytes; }
  // The state before a chunk, transposed: 64 values, D keys in BF16.
  __device__ uint32_t state(int chunk) const {
    return stages + kStages * S::kStageBytes + chunk % 2 * S::kStateBytes;
  }
  __device__ uint32_t staged() const { return stages + kStages * S::kStageBytes + 2 * S::kStateBytes; }
  __device__ void wait_full(int chunk) const {
    ptx::barrier_wait(at(barriers.full[chunk % kStages]), chunk / kStages & 1);
  }

  __device__ void copy(int chunk, ChunkWalk<kStops>& to_copy) const;
  __device__ void clear_tail(int chunk, int rows) const;
  __device__ void publish(int chunk, const float (&s)[D / 2]) const;
  // leave(slot, s): the state at a checkpoint.
  template <typename Leave>
  __device__ void advance(float (&s)[D / 2], float rate, ChunkWalk<kStops> to_copy, const Leave& leave) const;
  __device__ void start_scores(int chunk, float (&p)[32]) const;
  __device__ void write_out(int rows, const float (&from_state)[32], const float (&from_chunk)[32],
                            __nv_bfloat16* to, int64_t token_stride) const;
  __device__ void attend(__nv_bfloat16* to, int64_t token_stride) const;
};

// One lane, chunk by chunk. Waits until nobody needs the one that was there before.
template <int D, bool kPartial, bool kStops>
__device__ __forceinline__ void Block<D, kPartial, kStops>::copy(int chunk,
                                                                 ChunkWalk<kStops>& to_copy) const {
  if (to_copy.is_done()) return;
  if (chunk >= kStages) ptx::barrier_wait(at(barriers.empty[chunk % kStages]), (chunk / kStages - 1) & 1);
  const uint32_t full = at(barriers.full[chunk % kStages]);
  const int row = first_row + to_copy.first();
  to_copy.advance();
  ptx::barrier_arrive_expect(full, S::kStageBytes);
#pragma unroll
  for (int tile = 0; tile < S::kTiles; ++tile) {
    if (!kPartial) ptx::copy_box(queries(chunk) + tile * kTileBytes, &maps.q, full, 64 * tile, row, head);
    ptx::copy_box(keys(chunk) + tile * kTileBytes, &maps.k, full, 64 * tile, row, head);
  }
  ptx::copy_box(values(chunk), &maps.v, full, first_value, row, head);
}

// Zeros over the keys and values behind a chunk's last: 0 times whatever they are is not 0.
template <int D, bool kPartial, bool kStops>
__device__ void Block<D, kPartial, kStops>::clear_tail(int chunk, int rows) const {
  const int first = rows * 8;
  // The copy already waited for the reads of the chunk before; a race checker that does not follow its
  // barriers sees this one.
  ptx::named_barrier(1, kGroupThreads);
  for (int i = first + static_cast<int>(threadIdx.x); i < kChunkTokens * 8; i += kGroupThreads) {
    for (int tile = 0; tile <= S::kTiles; ++tile)
      ptx::store_shared_zero16(keys(chunk) + tile * kTileBytes + i * 16);
  }
  ptx::fence_shared_async();
  ptx::named_barrier(1, kGroupThreads);
}

// The state to shared memory in BF16, for the products of the other warpgroup.
template <int D, bool kPartial, bool kStops>
__device__ __forceinline__ void Block<D, kPartial, kStops>::publish(int chunk,
                                                                    const float (&s)[D / 2]) const {
  const int lane = threadIdx.x & 31;
  const uint32_t row = 16 * (threadIdx.x / 32) + lane % 16;
  if (chunk >= 2) ptx::barrier_wait(at(barriers.consumed[chunk % 2]), (chunk / 2 - 1) & 1);
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    uint32_t packed[4];
    left_operand(packed, s, step);
    ptx::store_matrix_x4(state(chunk) + step / 4 * kTileBytes + ptx::swizzled(row, step % 4 * 2 + lane / 16),
                         packed[0], packed[1], packed[2], packed[3]);
  }
  ptx::fence_shared_async();
  arrive_warp(barriers.published[chunk % 2]);
}

template <int D, bool kPartial, bool kStops>
template <typename Leave>
__device__ __forceinline__ void Block<D, kPartial, kStops>::advance(float (&s)[D / 2], float rate,
                                                                    ChunkWalk<kStops> to_copy,
                                                                    const Leave& leave) const {
  const int warp = threadIdx.x / 32;
  ValueDecays value_decays;
  value_decays.fill(decays, kChunkTokens);
  float decay_minus_one = expm1f(-rate * static_cast<float>(kChunkTokens));
  ChunkWalk<kStops> here = walk;
  int decayed_rows = kChunkTokens;
  for (int chunk = 0; chunk < chunks; here.advance(), ++chunk) {
    wait_full(chunk);
    const int rows = here.rows();
    if (rows < kChunkTokens) clear_tail(chunk, rows);
    if (rows != decayed_rows) {
      value_decays.fill(decays, rows);
      decay_minus_one = expm1f(-rate * static_cast<float>(rows));
      decayed_rows = rows;
    }
    if (!kPartial) publish(chunk, s);
    // The other group has consumed the state of the chunk two back, and so that chunk: this wait is short.
    const int next = kPartial ? chunk - 1 + kStages : chunk - 2 + kStages;
    if (threadIdx.x == 0 && next >= kStages) copy(next, to_copy);
    __syncwarp();
    uint32_t value_operand[4][4];
    uint32_t decayed[4][4];
    uint32_t rest[4][4];
    load_values(value_operand, values(chunk), warp);
    decay_values(decayed, rest, value_operand, value_decays);
    decay_state(s, decay_minus_one);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const uint64_t right = ptx::operand_across_k(keys(chunk) + step * 16 * 128, kTileBytes);
      ptx::wgmma_across_k(s, decayed[step], right, true);
      ptx::wgmma_across_k(s, rest[step], right, true);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    keep(s);
    arrive_warp(barriers.empty[chunk % kStages]);
    if (kStops) leave(here.checkpoint_slot(), s);
  }
}

template <int D, bool kPartial, bool kStops>
__device__ __forceinline__ void Block<D, kPartial, kStops>::start_scores(int chunk, float (&p)[32]) const {
  wait_full(chunk);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    const uint32_t offset = step / 4 * kTileBytes + step % 4 * 32;
    ptx::wgmma_64x64(p, ptx::operand_along_k(queries(chunk) + offset),
                     ptx::operand_along_k(keys(chunk) + offset), step > 0);
  }
  ptx::wgmma_commit();
}

// A warp's 16 rows of the output.
template <int D, bool kPartial, bool kStops>
__device__ __forceinline__ void Block<D, kPartial, kStops>::write_out(int rows, const float (&from_state)[32],
                                                                      const float (&from_chunk)[32],
                                                                      __nv_bfloat16* to,
                                                                      int64_t token_stride) const {
  const int lane = threadIdx.x & 31;
  const int first = threadIdx.x / 32 % 4 * 16;
  const float decay[] = {decays[first + lane / 4 + 1], decays[first + lane / 4 + 9]};
  __syncwarp();
#pragma unroll
  for (int tile = 0; tile < 8; tile += 2) {
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * tile + 2 * i;
      packed[i] = ptx::pack_bf16(fmaf(from_state[at], decay[i % 2], from_chunk[at]),
                                 fmaf(from_state[at + 1], decay[i % 2], from_chunk[at + 1]));
    }
    ptx::store_matrix_x4(staged() + ptx::swizzled(first + lane % 16, tile + lane / 16), packed[0], packed[1],
                         packed[2], packed[3]);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = first + 4 * i + lane / 8;
    const uint4 vector = ptx::load_shared16(staged() + ptx::swizzled(row, lane % 8));
    if (row < rows) reinterpret_cast<uint4*>(to + row * token_stride)[lane % 8] = vector;
  }
}

template <int D, bool kPartial, bool kStops>
__device__ __forceinline__ void Block<D, kPartial, kStops>::attend(__nv_bfloat16* to,
                                                                   int64_t token_stride) const {
  PairDecays pair_decays;
  pair_decays.fill(decays, threadIdx.x / 32 % 4);
  float p[32];
  float from_state[32];
  float from_chunk[32];
  if (chunks == 0) return;
  start_scores(0, p);
  ChunkWalk<kStops> here = walk;
  for (int chunk = 0; chunk < chunks; here.advance(), ++chunk) {
    ptx::wgmma_wait<0>();
    keep(p);
    uint32_t scores[4][4];
#pragma unroll
    for (int tile = 0; tile < 8; ++tile) pair_decays.scale(p + 4 * tile, tile);
#pragma unroll
    for (int step = 0; step < 4; ++step) left_operand(scores[step], p, step);
    ptx::barrier_wait(at(barriers.published[chunk % 2]), chunk / 2 & 1);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      const uint32_t offset = step / 4 * kTileBytes + step % 4 * 32;
      ptx::wgmma_64x64(from_state, ptx::operand_along_k(queries(chunk) + offset),
                       ptx::operand_along_k(state(chunk) + offset), step > 0);
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      ptx::wgmma_across_k(from_chunk, scores[step],
                          ptx::operand_across_k(values(chunk) + step * 16 * 128, kTileBytes), step > 0);
    }
    ptx::wgmma_commit();
    start_scores(min(chunk + 1, chunks - 1),
                 p);  // the last ones are not used: a branch here would serialize all
    ptx::wgmma_wait<1>();
    keep(from_state);
    keep(from_chunk);
    arrive_warp(barriers.consumed[chunk % 2]);
    arrive_warp(barriers.empty[chunk % kStages]);
    write_out(here.rows(), from_state, from_chunk, to + here.first() * token_stride, token_stride);
  }
  ptx::wgmma_wait<0>();
}

template <int D, bool kPartial, bool kStops>
__device__ void run(const PrefillParams& params, const Maps& maps) {
  using S = Shape<D, kPartial>;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ float decays[kChunkTokens + 1];
  __shared__ Barriers barriers;

  const int units = params.num_heads * S::kTiles;
  const int item = blockIdx.x / units;
  const int head = blockIdx.x % units / S::kTiles;
  const int first_value = blockIdx.x % S::kTiles * kBlockValues;
  const int warp = threadIdx.x / 32;
  ptx::wait_for_previous_kernel();
  if (!kPartial && warp < 4) clear_unowned_rows(params, item, head, first_value, threadIdx.x);
  const Segment segment = find_segment<kPartial>(params, item);
  if (segment.sequence < 0) return;

  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::barrier_init(at(barriers.full[i]), 1);
      ptx::barrier_init(at(barriers.empty[i]), S::kGroups * 4);
    }
    for (int i = 0; i < 2; ++i) {
      ptx::barrier_init(at(barriers.published[i]), 4);
      ptx::barrier_init(at(barriers.consumed[i]), 4);
    }
    ptx::barrier_init_fence();
  }
  const float rate = params.decay[head];
  fill_decays(decays, rate);
  __syncthreads();

  const bool is_copy = kPartial && segment.index == segment.count - 1;
  const ChunkWalk<kStops> walk(params, segment, is_copy ? 0 : segment.rows);
  const Block<D, kPartial, kStops> block{
      barriers,          decays, maps,        (ptx::shared_address(shared_bytes) + 1023) / 1024 * 1024,
      segment.first_row, head,   first_value, walk,
      walk.count()};
  ChunkWalk<kStops> to_copy = walk;
  if (threadIdx.x == 0) {
    for (int chunk = 0; chunk < kStages; ++chunk) block.copy(chunk, to_copy);
  }
  __syncwarp();
  if (!kPartial && warp >= 4) {
    block.attend(params.out + segment.first_row * params.out_token_stride + head * params.out_head_stride +
                     first_value,
                 params.out_token_stride);
  } else {
    const int value = first_value + 16 * warp + (threadIdx.x & 31) / 4;
    float s[D / 2];
    if (kPartial) {
      load_partial_state<D>(s, params, segment, head, value);
    } else {
      load_entering_state<D>(s, params, segment, head, value);
    }
    block.advance(s, rate, to_copy, [&](int slot, const float(&state)[D / 2]) {
      if (slot >= 0) store_state<D>(state, params.state + head_offset<D>(params, slot, head), value);
    });
    float* leaving = leaving_state<D, kPartial>(params, segment, head);
    if (leaving != nullptr) store_state<D>(s, leaving, value);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int D, bool kPartial, bool kStops>
__global__ void __launch_bounds__(Shape<D, kPartial>::kThreads, 1)
    lightning_prefill_sm90(PrefillParams params, const __grid_constant__ Maps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  run<D, kPartial, kStops>(params, maps);
#else
  __trap();
#endif
}

cudaError_t make_map(CUtensorMap& map, const __nv_bfloat16* rows, int64_t token_stride, int64_t head_stride,
                     const PrefillParams& params, int head_dim) {
  const EncodeTiled encode = encode_tiled();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(head_dim), static_cast<cuuint64_t>(params.num_tokens),
                              static_cast<cuuint64_t>(params.num_heads)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(token_stride) * 2,
                                static_cast<cuuint64_t>(head_stride) * 2};
  const cuuint32_t box[] = {64, kChunkTokens, 1};
  const cuuint32_t steps[] = {1, 1, 1};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<__nv_bfloat16*>(rows), sizes, strides, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <int D, bool kPartial, bool kStops>
cudaError_t launch(const PrefillParams& params, const Maps& maps, int items, cudaStream_t stream) {
  using S = Shape<D, kPartial>;
  const cudaError_t error = cudaFuncSetAttribute(lightning_prefill_sm90<D, kPartial, kStops>,
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (error != cudaSuccess) return error;
  const int64_t blocks = int64_t{items} * params.num_heads * S::kTiles;
  return launch_early(lightning_prefill_sm90<D, kPartial, kStops>, static_cast<unsigned>(blocks), S::kThreads,
                      S::kBytes, stream, params, maps);
}

template <int D>
cudaError_t launch_both(const PrefillParams& params, int cut_items, cudaStream_t stream) {
  Maps maps;
  cudaError_t error = make_map(maps.q, params.q, params.q_token_stride, params.q_head_stride, params, D);
  if (error == cudaSuccess)
    error = make_map(maps.k, params.k, params.k_token_stride, params.k_head_stride, params, D);
  if (error == cudaSuccess)
    error = make_map(maps.v, params.v, params.v_token_stride, params.v_head_stride, params, D);
  if (error == cudaSuccess && cut_items > 0) error = launch<D, true, false>(params, maps, cut_items, stream);
  if (error != cudaSuccess) return error;
  const auto main_kernel = params.num_checkpoints > 0 ? launch<D, false, true> : launch<D, false, false>;
  return main_kernel(params, maps, params.num_items, stream);
}

}  // namespace

cudaError_t launch_prefill_sm90(const PrefillParams& params, int head_dim, int cut_items,
                                cudaStream_t stream) {
  return head_dim == 64 ? launch_both<64>(params, cut_items, stream)
                        : launch_both<128>(params, cut_items, stream);
}

}  // namespace minimax::cuda
