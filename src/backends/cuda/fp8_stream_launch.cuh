// On the host: what can be streamed, and how a stream is cut and launched.
#pragma once

#include "backends/cuda/fp8_stream.cuh"

namespace minimax::cuda::fp8_stream {

using FourTokens = Shape<4>;
using EightTokens = Shape<8>;
// Dense products: more rows take longer to become codes in every block than to be multiplied as BF16 numbers.
inline int64_t most_rows(const WeightView& w) {
  return w.scale_scalar == Scalar::kE8m0 ? EightTokens::kTokens : FourTokens::kTokens;
}

inline bool is_mx(const WeightView& w) { return w.scale_scalar == Scalar::kE8m0; }
inline bool has_blocks(const WeightView& w) { return w.block_columns < w.columns + w.column_offset; }
inline bool is_aligned(const void* data, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

inline bool can_stream(const WeightView& w) {
  if (!is_mx(w)) return can_multiply_codes(w);
  return w.scalar == Scalar::kE4m3 && w.block_rows == 1 && w.block_columns == 32 && w.columns > 0 &&
         w.columns % kStageDepth == 0 && w.stride % 16 == 0 && is_aligned(w.values, 16) &&
         w.scale_stride % 8 == 0 && is_aligned(w.scales, 8) && w.column_offset % kStageDepth == 0;
}
inline bool can_stream(const Matrix& x) { return x.stride % 8 == 0 && is_aligned(x.data, 16); }
inline bool are_alike(const WeightView& x, const WeightView& y) {
  return is_mx(x) == is_mx(y) && x.columns == y.columns && (is_mx(x) || has_blocks(x) == has_blocks(y));
}

// Room for two blocks on a multiprocessor, of one kernel or of two, so that one's ring is filled while the
// other ends; or for one block.
constexpr int kHalfBytes = 113 << 10;
constexpr int kWholeBytes = 226 << 10;

// As many stages as there is room and use for; the warpgroups that take them in turn need an even number.
template <typename S, bool kIsMx>
bool choose_stages(StreamArgs& a, int room) {
  constexpr int kLeastStages = 4;
  const int used = a.most_steps + a.most_steps % kWarpgroups;
  a.stages = used < kMostStages ? used : kMostStages;
  const int least = used < kLeastStages ? used : kLeastStages;
  while (a.stages >= least && layout_of<S, kIsMx>(a).bytes > room) a.stages -= kWarpgroups;
  return a.stages >= least;
}
template <typename S, bool kIsMx>
bool choose_stages(StreamArgs& a) {
  return choose_stages<S, kIsMx>(a, kHalfBytes) || choose_stages<S, kIsMx>(a, kWholeBytes);
}

template <Kind kKind, bool kIsMx, typename S>
void launch_stream(const StreamArgs& a, const DenseMaps& maps, int blocks, cudaStream_t stream) {
  const auto kernel = stream_kernel<kKind, kIsMx, S>;
  const int bytes = layout_of<S, kIsMx>(a).bytes;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(a.cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = a.cluster > 1 ? 2 : 1;
  static_cast<void>(cudaLaunchKernelEx(&config, kernel, a, maps));
}

// Calls f.operator()<kIsMx, Shape>() with what takes so many tokens, or eight at a time.
template <typename F>
auto with_shape(bool is_mx, int64_t tokens, F&& f) {
  const auto with_tokens = [&]<bool kIsMx>() {
    return tokens <= FourTokens::kTokens ? f.template operator()<kIsMx, FourTokens>()
                                         : f.template operator()<kIsMx, EightTokens>();
  };
  return is_mx ? with_tokens.template operator()<true>() : with_tokens.template operator()<false>();
}

// Blocks that share tiles evenly, up to two on a multiprocessor.
inline int blocks_for(int tiles, int multiprocessors) {
  const int each = static_cast<int>(ceil_div(tiles, 2 * multiprocessors));
  return static_cast<int>(ceil_div(tiles, each));
}
// Cuts a product of few tiles along its `parts` of so many stages, so that it has blocks for all
// multiprocessors.
inline void cut(StreamArgs& a, int parts, int steps, int multiprocessors) {
  while (a.cluster < 4 && a.tiles * a.cluster * 4 < multiprocessors * 5 && parts * steps >= 4 * a.cluster &&
         parts > a.cluster)
    a.cluster *= 2;
  a.most_steps = (parts + a.cluster - 1) / a.cluster * steps;
}
inline int steps_for(int64_t depth) { return static_cast<int>(ceil_div(depth, kStageDepth)); }

}  // namespace minimax::cuda::fp8_stream
