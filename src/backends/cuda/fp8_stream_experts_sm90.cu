// Experts of few tokens with 8-bit weights on Hopper: gate and up, down, and of one token down with the
// weighted sum.
#include <cstring>

#include "backends/cuda/expert_sum.h"
#include "backends/cuda/fp8_stream_launch.cuh"

namespace minimax::cuda {

using namespace fp8_stream;

bool can_stream_experts(const ExpertPointers& e) {
  return can_stream(e.w1) && can_stream(e.w3) && can_stream(e.w2) && are_alike(e.w1, e.w3) &&
         is_mx(e.w1) == is_mx(e.w2);
}

std::vector<std::byte> make_expert_maps(const ExpertPointers* experts, int64_t count) {
  std::vector<std::byte> bytes(static_cast<size_t>(count) * kMapsOfExpert * sizeof(CUtensorMap));
  std::byte* at = bytes.data();
  const auto add = [&](const WeightView& w, int rows) {
    const CUtensorMap map = make_code_map(w.values, w.rows, w.columns, w.stride, rows);
    std::memcpy(at, &map, sizeof(map));
    at += sizeof(map);
  };
  for (int64_t i = 0; i < count; ++i) {
    add(experts[i].w1, kHalfRows);
    add(experts[i].w3, kHalfRows);
    add(experts[i].w2, kTileRows);
  }
  return bytes;
}

namespace {

StreamArgs up_args(const MoeArgs& m) {
  StreamArgs a;
  a.moe = m;
  a.swiglu = m.swiglu;
  a.maps = static_cast<const CUtensorMap*>(m.maps);
  a.pairs = static_cast<int>(m.x.rows * m.top_k);
  a.is_ordered = needs_expert_order(m);
  a.x = m.x;
  a.depth = static_cast<int>(m.x.columns);
  a.has_blocks = has_blocks(m.first.w1);
  a.tiles = static_cast<int>(ceil_div(m.intermediate, kHalfRows));
  a.most_steps = steps_for(a.depth);
  return a;
}
StreamArgs down_args(const MoeArgs& m) {
  StreamArgs a = up_args(m);
  a.x = {m.hidden, a.pairs, m.intermediate, m.intermediate, Scalar::kBF16};
  a.out = m.out;
  a.depth = static_cast<int>(m.intermediate);
  a.has_blocks = has_blocks(m.first.w2);
  a.tiles = static_cast<int>(ceil_div(m.out.columns, kTileRows));
  a.most_steps = steps_for(a.depth);
  return a;
}
// Of one token, whose experts are one product.
StreamArgs sum_args(const MoeArgs& m, int multiprocessors) {
  StreamArgs a = down_args(m);
  cut(a, a.pairs, steps_for(a.depth), multiprocessors);
  return a;
}
// Whether that pays: more tiles have blocks enough without.
bool can_sum(const MoeArgs& m, int multiprocessors) {
  return m.x.rows == 1 && !needs_expert_order(m) && (is_mx(m.first.w2) || has_blocks(m.first.w2)) &&
         ceil_div(m.out.columns, kTileRows) * 2 <= multiprocessors;
}
// Experts' products of one token are so short that blocks which share a multiprocessor end at different
// times.
template <typename S, bool kIsMx>
bool choose_expert_stages(StreamArgs& a) {
  if (a.moe.x.rows == 1) return choose_stages<S, kIsMx>(a, kWholeBytes);
  return choose_stages<S, kIsMx>(a);
}

}  // namespace

bool can_moe_stream(const MoeArgs& m) {
  constexpr int64_t kMostPairs = 512;
  if (m.maps == nullptr || m.x.rows > kMostSmallMoeTokens || m.x.rows * m.top_k > kMostPairs ||
      !can_stream(m.x) || !can_stream_experts(m.first) || m.intermediate % 8 != 0 || m.out.columns % 4 != 0)
    return false;
  StreamArgs up = up_args(m), down = down_args(m);
  return with_shape(is_mx(m.first.w1), m.x.rows, [&]<bool kIsMx, typename S>() {
    return choose_expert_stages<S, kIsMx>(up) && choose_expert_stages<S, kIsMx>(down);
  });
}

void launch_moe_stream(const MoeArgs& m, int multiprocessors, cudaStream_t stream) {
  if (m.x.rows == 0) return;
  StreamArgs up = up_args(m), down = down_args(m), sum = sum_args(m, multiprocessors);
  const int64_t most_items = up.pairs < m.experts ? up.pairs : m.experts;
  // As many blocks as have room, which share the tiles of as many items as there may be evenly.
  const auto blocks = [&](const StreamArgs& a, int bytes) {
    const int64_t tiles = most_items * a.tiles;
    if (bytes > kHalfBytes) return static_cast<int>(ceil_div(tiles, ceil_div(tiles, multiprocessors)));
    return static_cast<int>(tiles < 2 * multiprocessors ? tiles : 2 * multiprocessors);
  };
  with_shape(is_mx(m.first.w1), m.x.rows, [&]<bool kIsMx, typename S>() {
    choose_expert_stages<S, kIsMx>(up);
    launch_stream<Kind::kUp, kIsMx, S>(up, {}, blocks(up, layout_of<S, kIsMx>(up).bytes), stream);
    if constexpr (S::kTokens == FourTokens::kTokens) {
      if (can_sum(m, multiprocessors) && choose_stages<S, kIsMx>(sum)) {
        const int all = sum.cluster > 1 ? sum.tiles * sum.cluster : blocks_for(sum.tiles, multiprocessors);
        return launch_stream<Kind::kSum, kIsMx, S>(sum, {}, all, stream);
      }
    }
    choose_expert_stages<S, kIsMx>(down);
    launch_stream<Kind::kDown, kIsMx, S>(down, {}, blocks(down, layout_of<S, kIsMx>(down).bytes), stream);
    launch_combine_pairs(m, stream);
  });
}

}  // namespace minimax::cuda
