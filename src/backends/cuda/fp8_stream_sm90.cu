// Dense products of few rows with 8-bit weights on Hopper, and MLPs: several weights side by side, cut along
// their inputs where tiles are few.
#include "backends/cuda/fp8_stream_launch.cuh"

namespace minimax::cuda {
namespace {

using namespace fp8_stream;

StreamArgs dense_args(const SmallLinearArgs& s, int multiprocessors) {
  StreamArgs a;
  a.x = s.x;
  a.out = s.out;
  a.addend = s.addend;
  a.applies_silu = s.applies_silu;
  a.count = s.count;
  a.depth = static_cast<int>(s.weights[0].columns);
  a.has_blocks = has_blocks(s.weights[0]);
  for (int i = 0; i < s.count; ++i) {
    a.weights[i] = s.weights[i];
    a.tiles += static_cast<int>(ceil_div(s.weights[i].rows, kTileRows));
  }
  cut(a, steps_for(a.depth), 1, multiprocessors);
  return a;
}

}  // namespace

bool can_linear_stream(const SmallLinearArgs& s) {
  if (s.count == 0 || s.x.rows > most_rows(s.weights[0]) || !can_stream(s.x)) return false;
  for (int i = 0; i < s.count; ++i) {
    if (!can_stream(s.weights[i]) || !are_alike(s.weights[i], s.weights[0])) return false;
  }
  StreamArgs a = dense_args(s, 1);
  return with_shape(is_mx(s.weights[0]), s.x.rows,
                    [&]<bool kIsMx, typename S>() { return choose_stages<S, kIsMx>(a); });
}

void launch_linear_stream(const SmallLinearArgs& s, int multiprocessors, cudaStream_t stream) {
  if (s.x.rows == 0) return;
  StreamArgs a = dense_args(s, multiprocessors);
  DenseMaps maps;
  for (int i = 0; i < s.count; ++i) {
    const WeightView& w = s.weights[i];
    maps.map[i] = make_code_map(w.values, w.rows, w.columns, w.stride, kTileRows);
  }
  const int blocks = a.cluster > 1 ? a.tiles * a.cluster : blocks_for(a.tiles, multiprocessors);
  with_shape(is_mx(s.weights[0]), s.x.rows, [&]<bool kIsMx, typename S>() {
    choose_stages<S, kIsMx>(a);
    launch_stream<Kind::kDense, kIsMx, S>(a, maps, blocks, stream);
  });
}

namespace {

StreamArgs mlp_up_args(const MlpSmallArgs& m, int multiprocessors) {
  StreamArgs a;
  a.x = m.x;
  a.out = m.hidden;
  a.swiglu = m.swiglu;
  a.depth = static_cast<int>(m.w1.columns);
  a.has_blocks = has_blocks(m.w1);
  a.weights[0] = m.w1;
  a.weights[1] = m.w3;
  a.tiles = static_cast<int>(ceil_div(m.w1.rows, kHalfRows));
  cut(a, steps_for(a.depth), 1, multiprocessors);
  return a;
}
SmallLinearArgs mlp_down_args(const MlpSmallArgs& m) { return {m.hidden, {m.w2}, 1, false, m.addend, m.out}; }

}  // namespace

bool can_mlp_stream(const MlpSmallArgs& m) {
  if (m.x.rows > most_rows(m.w1) || !can_stream(m.x) || !can_stream(m.w1) || !can_stream(m.w3) ||
      !are_alike(m.w1, m.w3) || !can_linear_stream(mlp_down_args(m)))
    return false;
  StreamArgs a = mlp_up_args(m, 1);
  return with_shape(is_mx(m.w1), m.x.rows,
                    [&]<bool kIsMx, typename S>() { return choose_stages<S, kIsMx>(a); });
}

void launch_mlp_stream(const MlpSmallArgs& m, int multiprocessors, cudaStream_t stream) {
  if (m.x.rows == 0) return;
  StreamArgs a = mlp_up_args(m, multiprocessors);
  DenseMaps maps;
  maps.map[0] = make_code_map(m.w1.values, m.w1.rows, m.w1.columns, m.w1.stride, kHalfRows);
  maps.map[1] = make_code_map(m.w3.values, m.w3.rows, m.w3.columns, m.w3.stride, kHalfRows);
  const int blocks = a.cluster > 1 ? a.tiles * a.cluster : blocks_for(a.tiles, multiprocessors);
  with_shape(is_mx(m.w1), m.x.rows, [&]<bool kIsMx, typename S>() {
    choose_stages<S, kIsMx>(a);
    launch_stream<Kind::kMlpUp, kIsMx, S>(a, maps, blocks, stream);
  });
  launch_linear_stream(mlp_down_args(m), multiprocessors, stream);
}

}  // namespace minimax::cuda
