// Expert MLPs. Pairs (token, choice) are sorted by expert; each expert's rows then form two matrix products,
// whose column blocks are the tasks. Nothing depends on the order in which tasks run.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "backends/cpu/cpu_ops.h"

namespace minimax::cpu {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t bytes) { return ceil_div(bytes, 64) * 64; }

// The rows of one expert.
struct ExpertGroup {
  const ops::MlpWeights* weights = nullptr;
  int64_t first_row = 0;  // in the sorted order
  int64_t rows = 0;
  PreparedRows x;
  PreparedRows hidden;
  // Prefix sums over groups of the tasks of each phase.
  int64_t first_x_unit = 0;
  int64_t first_hidden_unit = 0;
  int64_t first_up_block = 0;
  int64_t first_down_block = 0;
};

struct Shape {
  int64_t pairs;  // rows in the sorted order
  int64_t max_groups;
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t tokens;
};

// Hands out the pieces of a workspace; with a null base it only measures.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  T* take(int64_t count) {
    std::byte* result = base_ + used_;
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)));
    return reinterpret_cast<T*>(result);
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

// Bytes that hold the prepared rows of all groups, however the pairs fall to experts.
int64_t prepared_bytes(const Shape& shape, int64_t k, const ProductPath& path) {
  const int64_t tile_row = path.kernel->tile_bytes(k) / path.kernel->mr;
  const int64_t padded_rows = shape.pairs + shape.max_groups * std::max(path.kernel->mr, kMaxLanes);
  const int64_t few = std::min(padded_rows, shape.max_groups * path.max_row_products());
  const int64_t either = padded_rows * std::max(tile_row, path.row_bytes(k));
  return std::min(either, padded_rows * tile_row + few * path.row_bytes(k)) + shape.max_groups * 64;
}

struct Buffers {
  ExpertGroup* groups;
  std::byte* x;
  float* hidden;  // [pairs, intermediate_size]
  std::byte* prepared_hidden;
  std::byte* panels;

  static Buffers carve(Carver& carver, const Shape& shape, const ProductPath& up, const ProductPath& down,
                       int num_threads) {
    const int64_t panel = std::max(panel_memory_bytes(shape.hidden_size, 2, *up.kernel),
                                   panel_memory_bytes(shape.intermediate_size, 1, *down.kernel));
    Buffers buffers{};
    buffers.groups = carver.take<ExpertGroup>(shape.max_groups);
    buffers.x = carver.take<std::byte>(prepared_bytes(shape, shape.hidden_size, up));
    buffers.hidden = carver.take<float>(shape.pairs * shape.intermediate_size);
    buffers.prepared_hidden = carver.take<std::byte>(prepared_bytes(shape, shape.intermediate_size, down));
    buffers.panels = carver.take<std::byte>(num_threads * round_up(panel));
    return buffers;
  }
};

// Stretches that a phase of `units` units is cut into. Row products go in long ones, since a read that jumps
// starts slowly: one a thread where every group has one row and takes as long as the next, more where rows
// differ or arithmetic takes longer than reading. Packed products go unit by unit.
int64_t stretches(std::span<const ExpertGroup> groups, int64_t units, int num_threads) {
  int64_t rows = 0;
  for (const ExpertGroup& group : groups) {
    if (group.x.is_packed() || group.hidden.is_packed()) return units;
    rows += group.rows;
  }
  const auto count = static_cast<int64_t>(groups.size());
  const int64_t each = rows == count ? 1 : 8;
  return std::min(units, each * num_threads);
}

// Runs one phase of `work` operations over all groups, whose units follow one another: body(group, first
// unit, units, the group that comes next on this thread or null, thread) for stretches of a group, and before
// the first of them begin(group, first unit, units).
template <typename Units, typename Begin, typename Body>
void for_groups(ThreadPool& pool, std::span<ExpertGroup> groups, int64_t ExpertGroup::*first, int64_t work,
                const Units& units, const Begin& begin, const Body& body) {
  int64_t total = 0;
  for (ExpertGroup& group : groups) {
    group.*first = total;
    total += units(group);
  }
  const int64_t pieces = stretches(groups, total, pool.num_threads());
  const auto run = [&](int64_t task, int thread) {
    int64_t unit = total * task / pieces;
    const int64_t end = total * (task + 1) / pieces;
    auto group = std::upper_bound(groups.begin(), groups.end(), unit,
                                  [first](int64_t value, const ExpertGroup& g) { return value < g.*first; });
    --group;
    begin(*group, unit - (*group).*first, std::min(end, (*group).*first + units(*group)) - unit);
    for (; unit < end; ++group) {
      const int64_t stop = std::min(end, (*group).*first + units(*group));
      body(*group, unit - (*group).*first, stop - unit, stop < end ? &*(group + 1) : nullptr, thread);
      unit = stop;
    }
  };
  pool.parallel_for(pieces, run, work);
}

// Asks for the first weights of `count` blocks from `block` on of a product of n columns.
void fetch_columns(const PreparedRows& x, const quant::Weight& weight, int64_t block, int64_t count,
                   int64_t n) {
  const int64_t first = block * x.unit_columns();
  fetch(x, {&weight, first}, std::min(count * x.unit_columns(), n - first));
}

struct GroupedMlp {
  ThreadPool& pool;
  ProductPath up;
  ProductPath down;
  Shape shape;
  Buffers buffers;
  RowView x;  // in sorted order, gathered
  ops::Swiglu swiglu;

  // Whether all groups multiply the same single row, which is then prepared once.
  bool share_row(std::span<const ExpertGroup> groups) const {
    return shape.tokens == 1 &&
           std::all_of(groups.begin(), groups.end(), [](const ExpertGroup& g) { return g.rows == 1; });
  }

  // Assigns memory to groups whose weights, first_row and rows are set.
  void place(std::span<ExpertGroup> groups) const {
    int64_t x_offset = 0;
    int64_t hidden_offset = 0;
    for (ExpertGroup& group : groups) {
      group.x = {group.rows, shape.hidden_size, up, buffers.x + x_offset};
      if (!share_row(groups)) x_offset += round_up(group.x.bytes());
      group.hidden = {group.rows, shape.intermediate_size, down, buffers.prepared_hidden + hidden_offset};
      hidden_offset += round_up(group.hidden.bytes());
    }
  }

  // out[sorted row] = ffn(x[sorted row]).
  void run(std::span<ExpertGroup> groups, const ProductOutput& out) const {
    const int64_t hidden_stride = shape.intermediate_size;
    const int64_t panel_stride =
        round_up(std::max(panel_memory_bytes(shape.hidden_size, 2, *up.kernel),
                          panel_memory_bytes(shape.intermediate_size, 1, *down.kernel)));
    const int64_t product_work = shape.pairs * shape.hidden_size * shape.intermediate_size;
    place(groups);
    const auto prepared = share_row(groups) ? groups.first(std::min<size_t>(groups.size(), 1)) : groups;
    for_groups(
        pool, prepared, &ExpertGroup::first_x_unit, 8 * shape.pairs * shape.hidden_size,
        [](const ExpertGroup& g) { return g.x.units(); }, [](const ExpertGroup&, int64_t, int64_t) {},
        [&](const ExpertGroup& g, int64_t first, int64_t count, const ExpertGroup*, int) {
          RowView rows = x;
          if (rows.indices != nullptr) rows.indices += g.first_row;
          for (int64_t unit = first; unit < first + count; ++unit) g.x.prepare(rows, unit);
        });
    for_groups(
        pool, groups, &ExpertGroup::first_up_block, 2 * product_work,
        [&](const ExpertGroup& g) { return ceil_div(shape.intermediate_size, g.x.unit_columns()); },
        [&](const ExpertGroup& g, int64_t block, int64_t count) {
          fetch_columns(g.x, g.weights->w1, block, count, shape.intermediate_size);
        },
        [&](const ExpertGroup& g, int64_t block, int64_t count, const ExpertGroup* next, int thread) {
          float* rows = buffers.hidden + g.first_row * hidden_stride;
          const ProductOutput output{
              reinterpret_cast<std::byte*>(rows), hidden_stride * 4, DType::kF32, false, true, swiglu};
          const std::array<const quant::Weight*, 2> weights = {&g.weights->w1, &g.weights->w3};
          const int64_t first = block * g.x.unit_columns();
          const int64_t columns = std::min(count * g.x.unit_columns(), shape.intermediate_size - first);
          multiply_block(g.x, weights, first, columns, 0, 1, buffers.panels + thread * panel_stride, output,
                         {next != nullptr ? &next->weights->w1 : nullptr});
        });
    for_groups(
        pool, groups, &ExpertGroup::first_hidden_unit, 8 * shape.pairs * shape.intermediate_size,
        [](const ExpertGroup& g) { return g.hidden.units(); }, [](const ExpertGroup&, int64_t, int64_t) {},
        [&](const ExpertGroup& g, int64_t first, int64_t count, const ExpertGroup*, int) {
          const auto* rows = reinterpret_cast<const std::byte*>(buffers.hidden + g.first_row * hidden_stride);
          const RowView view{rows, hidden_stride * 4, DType::kF32, nullptr};
          for (int64_t unit = first; unit < first + count; ++unit) g.hidden.prepare(view, unit);
        });
    for_groups(
        pool, groups, &ExpertGroup::first_down_block, product_work,
        [&](const ExpertGroup& g) { return ceil_div(shape.hidden_size, g.hidden.unit_columns()); },
        [&](const ExpertGroup& g, int64_t block, int64_t count) {
          fetch_columns(g.hidden, g.weights->w2, block, count, shape.hidden_size);
        },
        [&](const ExpertGroup& g, int64_t block, int64_t count, const ExpertGroup* next, int thread) {
          ProductOutput output = out;
          output.data += g.first_row * out.stride_bytes;
          const std::array<const quant::Weight*, 1> weights = {&g.weights->w2};
          const int64_t first = block * g.hidden.unit_columns();
          const int64_t columns = std::min(count * g.hidden.unit_columns(), shape.hidden_size - first);
          multiply_block(g.hidden, weights, first, columns, 0, 1, buffers.panels + thread * panel_stride,
                         output, {next != nullptr ? &next->weights->w2 : nullptr});
        });
  }
};

Shape shape_of(const ops::Moe& args) {
  const int64_t pairs = args.expert_ids.numel();
  return {pairs, std::min(pairs, args.num_experts()), args.x.dim(1), args.intermediate_size(), args.x.dim(0)};
}

// Tiles multiply one row of e4m3 weights with plain scales, and two of MXFP8, faster than row products do.
// Steps that are to have the bits of single rows keep to row products.
ProductPath expert_path(const ops::Moe& args, const quant::Weight& weight, const CpuOptions& options) {
  ProductPath path = product_path(args.x.dtype(), args.precision, weight, options);
  if (args.x.dim(0) <= kInvariantRows) return path;
  if (weight.format == quant::WeightFormat::kFp8) path.min_tile_rows = 1;
  if (weight.format == quant::WeightFormat::kMxfp8) path.min_tile_rows = 2;
  return path;
}

// What sorting adds to the buffers of the products.
struct Sorting {
  int32_t* tokens;     // [pairs] token of a sorted row
  int32_t* positions;  // [tokens, k] sorted row of a pair, -1 for none
  int64_t* starts;     // [experts + 1]
  float* results;      // [pairs, hidden_size]

  static Sorting carve(Carver& carver, const ops::Moe& args) {
    const Shape shape = shape_of(args);
    return {carver.take<int32_t>(shape.pairs), carver.take<int32_t>(shape.pairs),
            carver.take<int64_t>(args.num_experts() + 1),
            carver.take<float>(shape.pairs * shape.hidden_size)};
  }

  // A stable counting sort of the pairs by expert.
  void sort(const ops::Moe& args) const {
    const int32_t* ids = args.expert_ids.data<int32_t>();
    const int64_t pairs = args.expert_ids.numel();
    const int64_t k = args.expert_ids.dim(1);
    std::fill(starts, starts + args.num_experts() + 1, 0);
    // The expert of a pair, or -1 when it is none of those here.
    const auto expert = [&](int64_t i) {
      const int64_t e = ids[i] - args.first_expert;
      return e < args.num_experts() ? std::max<int64_t>(e, -1) : -1;
    };
    for (int64_t i = 0; i < pairs; ++i) {
      if (expert(i) >= 0) ++starts[expert(i) + 1];
    }
    std::partial_sum(starts, starts + args.num_experts() + 1, starts);
    for (int64_t i = 0; i < pairs; ++i) {
      positions[i] = expert(i) >= 0 ? static_cast<int32_t>(starts[expert(i)]++) : -1;
      if (positions[i] >= 0) tokens[positions[i]] = static_cast<int32_t>(i / k);
    }
    for (int64_t e = args.num_experts(); e > 0; --e) starts[e] = starts[e - 1];
    starts[0] = 0;
  }
};

template <typename T>
void combine_row(const ops::Moe& args, const Sorting& sorting, int64_t t) {
  constexpr int64_t kChunk = 64;
  const int64_t k = args.expert_ids.dim(1);
  const int64_t hidden = args.x.dim(1);
  T* out = args.out.row<T>(t);
  for (int64_t first = 0; first < hidden; first += kChunk) {
    const int64_t count = std::min(kChunk, hidden - first);
    std::array<float, kChunk> sum{};
    for (int64_t j = 0; j < k; ++j) {
      const int32_t position = sorting.positions[t * k + j];
      if (position < 0) continue;
      const float weight = args.expert_weights.row<float>(t)[j];
      const float* y = sorting.results + position * hidden + first;
      for (int64_t i = 0; i < count; ++i) sum[i] += weight * y[i];
    }
    for (int64_t i = 0; i < count; ++i) out[first + i] = from_float<T>(sum[i]);
  }
}

}  // namespace

int64_t CpuBackend::workspace_bytes(const ops::Moe& args) const {
  if (args.experts.empty()) return 0;
  const ProductPath up = expert_path(args, args.experts.front().w1, options_);
  const ProductPath down = expert_path(args, args.experts.front().w2, options_);
  Carver carver(nullptr);
  Buffers::carve(carver, shape_of(args), up, down, pool_.num_threads());
  Sorting::carve(carver, args);
  return carver.used();
}

void CpuBackend::run(const ops::Moe& args, ops::Workspace workspace) {
  if (args.experts.empty()) {
    const int64_t row_bytes = args.out.dim(1) * size_of(args.out.dtype());
    return for_rows(args.out.dim(0), args.out.dim(1), [&](int64_t t) {
      const int64_t offset = t * args.out.stride(0) * size_of(args.out.dtype());
      std::fill_n(static_cast<std::byte*>(args.out.raw()) + offset, row_bytes, std::byte{});
    });
  }
  const ProductPath up = expert_path(args, args.experts.front().w1, options_);
  const ProductPath down = expert_path(args, args.experts.front().w2, options_);
  Carver carver(workspace.data);
  const Buffers buffers = Buffers::carve(carver, shape_of(args), up, down, pool_.num_threads());
  const Sorting sorting = Sorting::carve(carver, args);
  sorting.sort(args);

  int64_t count = 0;
  for (int64_t e = 0; e < args.num_experts(); ++e) {
    const int64_t rows = sorting.starts[e + 1] - sorting.starts[e];
    if (rows > 0) buffers.groups[count++] = {&args.experts[e], sorting.starts[e], rows, {}, {}};
  }
  RowView x = rows_of(args.x);
  x.indices = sorting.tokens;
  const GroupedMlp product{pool_, up, down, shape_of(args), buffers, x, args.swiglu};
  const ProductOutput results{reinterpret_cast<std::byte*>(sorting.results), args.x.dim(1) * 4, DType::kF32};
  product.run({buffers.groups, static_cast<size_t>(count)}, results);
  for_rows(args.x.dim(0), args.x.dim(1) * args.expert_ids.dim(1), [&](int64_t t) {
    args.out.dtype() == DType::kBF16 ? combine_row<bf16>(args, sorting, t)
                                     : combine_row<float>(args, sorting, t);
  });
}

int64_t CpuBackend::workspace_bytes(const ops::Mlp& args) const {
  const ProductPath up = product_path(args.x.dtype(), args.precision, args.weights.w1, options_);
  const ProductPath down = product_path(args.x.dtype(), args.precision, args.weights.w2, options_);
  Carver carver(nullptr);
  Buffers::carve(carver, {args.x.dim(0), 1, args.x.dim(1), args.weights.w1.out_features(), args.x.dim(0)}, up,
                 down, pool_.num_threads());
  return carver.used();
}

void CpuBackend::run(const ops::Mlp& args, ops::Workspace workspace) {
  if (args.x.dim(0) == 0) return;
  const ProductPath up = product_path(args.x.dtype(), args.precision, args.weights.w1, options_);
  const ProductPath down = product_path(args.x.dtype(), args.precision, args.weights.w2, options_);
  const Shape shape{args.x.dim(0), 1, args.x.dim(1), args.weights.w1.out_features(), args.x.dim(0)};
  Carver carver(workspace.data);
  const Buffers buffers = Buffers::carve(carver, shape, up, down, pool_.num_threads());
  buffers.groups[0] = {&args.weights, 0, args.x.dim(0), {}, {}};
  const GroupedMlp product{pool_, up, down, shape, buffers, rows_of(args.x), args.swiglu};
  ProductOutput out{static_cast<std::byte*>(args.out.raw()), args.out.stride(0) * size_of(args.out.dtype()),
                    args.out.dtype()};
  if (args.addend.defined()) {
    out.addend = static_cast<const std::byte*>(args.addend.raw());
    out.addend_stride_bytes = args.addend.stride(0) * size_of(args.addend.dtype());
  }
  product.run({buffers.groups, 1}, out);
}

namespace {

// ids = the k largest of key(0) .. key(num_experts - 1) (ties: lowest index), in descending order, and keys
// theirs.
template <typename Key>
void choose(int64_t num_experts, int64_t k, const Key& key, int32_t* ids, float* keys) {
  int64_t count = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    const float value = key(e);
    if (count == k && !(value > keys[k - 1])) continue;
    int64_t place = count < k ? count++ : k - 1;
    for (; place > 0 && value > keys[place - 1]; --place) {
      ids[place] = ids[place - 1];
      keys[place] = keys[place - 1];
    }
    ids[place] = static_cast<int32_t>(e);
    keys[place] = value;
  }
}

// weights = p(chosen expert) normalised to the sum `scale`.
template <typename Probability>
void weigh(const int32_t* ids, int64_t k, float scale, const Probability& p, float* weights) {
  float sum = 0;
  for (int64_t j = 0; j < k; ++j) sum += weights[j] = p(ids[j]);
  for (int64_t j = 0; j < k; ++j) weights[j] *= scale / sum;
}

template <typename T>
void mix_row(const ops::MixShared& args, int64_t t) {
  const float c = 1.0F / (1.0F + std::exp(-args.coefficient.row<float>(t)[0]));
  const T* routed = args.routed.row<T>(t);
  const T* shared = args.shared.row<T>(t);
  T* out = args.out.row<T>(t);
  for (int64_t i = 0; i < args.out.dim(1); ++i) {
    out[i] = from_float<T>(to_float(routed[i]) * (1.0F - c) + to_float(shared[i]) * c);
  }
}

}  // namespace

void CpuBackend::run(const ops::RouteSoftmax& args, ops::Workspace) {
  const int64_t k = args.expert_ids.dim(1);
  for_rows(args.logits.dim(0), args.logits.dim(1) * 4, [&](int64_t t) {
    const float* logits = args.logits.row<float>(t);
    auto* ids = args.expert_ids.row<int32_t>(t);
    auto* weights = args.expert_weights.row<float>(t);
    choose(
        args.logits.dim(1), k, [&](int64_t e) { return logits[e]; }, ids, weights);
    weigh(
        ids, k, 1, [&](int64_t e) { return std::exp(logits[e] - logits[ids[0]]); }, weights);
  });
}

void CpuBackend::run(const ops::RouteSigmoid& args, ops::Workspace) {
  const int64_t k = args.expert_ids.dim(1);
  const auto bias = [&args](int64_t e) {
    if (!args.bias.defined()) return 0.0F;
    return args.bias.dtype() == DType::kBF16 ? to_float(args.bias.data<bf16>()[e])
                                             : args.bias.data<float>()[e];
  };
  for_rows(args.logits.dim(0), args.logits.dim(1) * 32, [&](int64_t t) {
    const float* logits = args.logits.row<float>(t);
    auto* ids = args.expert_ids.row<int32_t>(t);
    auto* weights = args.expert_weights.row<float>(t);
    const auto p = [&](int64_t e) { return 1.0F / (1.0F + std::exp(-logits[e])); };
    choose(
        args.logits.dim(1), k, [&](int64_t e) { return p(e) + bias(e); }, ids, weights);
    weigh(ids, k, args.scale, p, weights);
  });
}

void CpuBackend::run(const ops::MixShared& args, ops::Workspace) {
  for_rows(args.out.dim(0), args.out.dim(1), [&](int64_t t) {
    args.out.dtype() == DType::kBF16 ? mix_row<bf16>(args, t) : mix_row<float>(args, t);
  });
}

}  // namespace minimax::cpu
