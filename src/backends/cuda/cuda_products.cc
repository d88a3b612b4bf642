// Products: dense ones, experts and MLPs; which kernel takes which shape, dtype and alignment.
#include <algorithm>

#include "backends/cuda/cuda_ops.h"
#include "backends/cuda/op_views.h"
#include "quant/fp8.h"

namespace minimax::cuda {
namespace {

bool rounds_inputs(ops::Precision precision, const quant::Weight& weight) {
  return precision == ops::Precision::kFp8 && quant::activation_group(weight.format) > 0;
}

bool is_mx(const quant::Weight& weight) { return weight.format == quant::WeightFormat::kMxfp8; }

// From how many rows on the library's products of codes are faster.
constexpr int64_t kLeastLibraryRows = 256;

// How a dense product runs; a function of shapes, dtypes and alignment.
enum class LinearPath : uint8_t {
  kF32,
  kSmall,
  kStream,      // few rows as e4m3 codes, in two terms
  kStreamBf16,  // few rows and very many outputs
  kGemm,
  kCodes,  // inputs as e4m3 codes
  kTiles,  // 8-bit weights unpacked to BF16
  kSplit,  // F32 numbers as two terms
};

struct LinearPlan {
  LinearPath path = LinearPath::kF32;
  DType x_dtype = DType::kF32;  // as multiplied; another than x's is a copy in the workspace
  bool copies_x = false;
};

bool is_8_bit(const quant::Weight& weight) { return quant::activation_group(weight.format) > 0; }

// Whether inputs are rounded to codes for products on Hopper's tensor cores.
bool multiplies_codes(ops::Precision precision, const WeightView& w, int architecture) {
  return precision == ops::Precision::kFp8 && architecture >= 90 && can_multiply_codes(w);
}

// Whether products of few rows may keep sums of e4m3 codes as Hopper's tensor cores do.
bool streams_codes(ops::Precision precision, int architecture) {
  return precision == ops::Precision::kFp8 && architecture >= 90;
}

// Whether a product is large enough that the time of a single tile, which grows with its inputs, is not what
// it takes.
bool is_worth_splitting(const Tensor& x, const WeightView& w) {
  constexpr int64_t kFewestOutputs = 80;  // for each input
  return x.dim(0) * w.rows >= kFewestOutputs * w.columns;
}

LinearPlan plan_linear(const Tensor& x, const quant::Weight& weight, ops::Precision precision,
                       const Tensor& out, int architecture, Rounding rounding) {
  LinearPlan plan;
  plan.x_dtype = x.dtype();
  const WeightView w = view(weight);
  const bool may_round = rounds_inputs(precision, weight) && rounding != Rounding::kNever;
  const bool may_not_round = !may_round || rounding == Rounding::kWhereFast;
  if (may_not_round && streams_codes(precision, architecture) &&
      can_linear_stream({matrix(x), {w}, 1, false, {}, matrix(out)})) {
    plan.path = LinearPath::kStream;
    return plan;
  }
  if (precision != ops::Precision::kF32 && architecture >= 90 && can_linear_stream_bf16(matrix(x), w)) {
    plan.path = LinearPath::kStreamBf16;
    return plan;
  }
  if (may_not_round && precision != ops::Precision::kF32 && can_linear_small(matrix(x), w)) {
    plan.path = LinearPath::kSmall;
    return plan;
  }
  if (may_round && x.dim(0) > kMostSmallRows && multiplies_codes(precision, w, architecture)) {
    plan.path = LinearPath::kCodes;
    return plan;
  }
  if (may_not_round && precision != ops::Precision::kF32 && is_8_bit(weight) && can_linear_tiles(w)) {
    plan.path = LinearPath::kTiles;
    plan.copies_x =
        x.dtype() != DType::kBF16 || x.stride(0) % 8 != 0 || reinterpret_cast<uintptr_t>(x.raw()) % 16 != 0;
    plan.x_dtype = DType::kBF16;
    return plan;
  }
  if (rounds_inputs(precision, weight)) {
    plan.x_dtype = DType::kF32;
    plan.copies_x = true;
    return plan;
  }
  if (precision != ops::Precision::kF32 && weight.format == quant::WeightFormat::kBF16) {
    Matrix packed = matrix(x);
    packed.scalar = Scalar::kBF16;
    packed.data = nullptr;
    packed.stride = x.dtype() == DType::kBF16 ? x.stride(0) : x.dim(1);
    if (Gemm::can_multiply(packed, w, matrix(out))) {
      plan.path = LinearPath::kGemm;
      plan.copies_x = x.dtype() != DType::kBF16;
      plan.x_dtype = DType::kBF16;
    }
    return plan;
  }
  if (weight.format != quant::WeightFormat::kF32 || x.dim(0) <= kMostSmallRows) return plan;
  if (architecture >= 90 && is_worth_splitting(x, w) && can_linear_split(matrix(x), w)) {
    plan.path = LinearPath::kSplit;
  } else if (Gemm::can_multiply(matrix(x), w, matrix(out))) {
    plan.path = LinearPath::kGemm;
  }
  return plan;
}

int64_t copy_bytes(const Tensor& x, DType dtype) { return aligned(x.numel() * size_of(dtype)); }

CodedRows coded_rows(Scratch& scratch, int64_t rows, int64_t columns) {
  CodedRows coded;
  coded.codes = scratch.take<std::byte>(rows * columns);
  coded.scales = scratch.take<float>(rows * ceil_div(columns, quant::kFp8Block.columns));
  coded.rows = rows;
  coded.columns = columns;
  coded.scale_stride = rows;
  return coded;
}

// What a call of experts needs besides its operands.
struct MoeScratch {
  ExpertOrder order;
  void* hidden = nullptr;
  float* partial = nullptr;
  void* x_bf16 = nullptr;
  float* x_rounded = nullptr;
  void* maps = nullptr;

  MoeScratch(const ops::Moe& args, std::byte* base, int64_t& bytes) {
    Scratch scratch(base);
    const int64_t tokens = args.x.dim(0), pairs = tokens * args.expert_ids.dim(1),
                  experts = args.num_experts();
    order.starts = scratch.take<int32_t>(experts + 1);
    order.tiles = scratch.take<int32_t>(experts + 1);
    order.active = scratch.take<int32_t>(experts + 1);
    order.pairs = scratch.take<int32_t>(pairs);
    order.places = scratch.take<int32_t>(pairs);
    order.counts = scratch.take<int32_t>(expert_order_counts(pairs, experts));
    hidden = scratch.take<float>(pairs * args.intermediate_size());
    partial = scratch.take<float>(pairs * args.x.dim(1));
    x_bf16 = scratch.take<bf16>(args.x.numel());
    if (is_8_bit(args.experts.front().w1)) maps = scratch.take<std::byte>(expert_map_bytes(experts));
    if (rounds_inputs(args.precision, args.experts.front().w1))
      x_rounded = scratch.take<float>(args.x.numel());
    bytes = scratch.used();
  }
};

// The same memory for products of codes, which need less of it.
MoeCodes moe_codes(const MoeArgs& a, void* maps) {
  const int64_t pairs = a.x.rows * a.top_k;
  Scratch hidden(static_cast<std::byte*>(a.hidden)), partial(reinterpret_cast<std::byte*>(a.partial));
  MoeCodes codes;
  codes.moe = a;
  codes.rows = partial.take<bf16>(pairs * a.out.columns);
  codes.x = coded_rows(partial, pairs, a.x.columns);
  codes.hidden = coded_rows(hidden, pairs, a.intermediate);
  codes.maps = maps;
  MM_CHECK(partial.used() <= aligned(pairs * a.out.columns * 4) &&
               hidden.used() <= aligned(pairs * a.intermediate * 4),
           "cuda: codes of {} pairs do not fit their room", pairs);
  return codes;
}

int64_t linear_workspace_bytes(const ops::Linear& args, int architecture, Rounding rounding) {
  const LinearPlan plan = plan_linear(args.x, args.weight, args.precision, args.out, architecture, rounding);
  // Planned shapes have no addresses, so the aligned case is planned for; an unaligned one needs no more,
  // but with 8-bit weights a copy.
  if (plan.path == LinearPath::kCodes) {
    Scratch scratch(nullptr);
    coded_rows(scratch, args.x.dim(0), args.x.dim(1));
    return scratch.used();
  }
  if (plan.path == LinearPath::kTiles) return copy_bytes(args.x, DType::kBF16);
  if (plan.path == LinearPath::kStream) return copy_bytes(args.x, DType::kF32);
  if (plan.path == LinearPath::kSplit) return linear_split_bytes(view(args.weight));
  if (plan.path == LinearPath::kSmall && is_8_bit(args.weight)) return copy_bytes(args.x, DType::kF32);
  return plan.copies_x ? copy_bytes(args.x, plan.x_dtype) : 0;
}

}  // namespace

int64_t CudaBackend::workspace_bytes(const ops::Linear& args) const {
  return linear_workspace_bytes(args, architecture_, Rounding::kWhereFast);
}

void CudaBackend::run(const ops::Linear& args, ops::Workspace workspace) {
  run_linear(args, workspace, Rounding::kWhereFast);
}

void CudaBackend::run_linear(const ops::Linear& args, ops::Workspace workspace, Rounding rounding) {
  const LinearPlan plan = plan_linear(args.x, args.weight, args.precision, args.out, architecture_, rounding);
  const WeightView w = view(args.weight);
  const bool applies_silu = args.activation == ops::Activation::kSilu;
  Matrix x = matrix(args.x);
  const Matrix out = matrix(args.out);
  if (plan.copies_x) {
    const Matrix copy = {workspace.data, x.rows, x.columns, x.columns, scalar_of(plan.x_dtype)};
    if (plan.path != LinearPath::kF32) {
      launch_convert(x, copy, stream());
    } else {
      launch_round_e4m3(x, is_mx(args.weight), copy, stream());
    }
    x = copy;
  }
  switch (plan.path) {
    case LinearPath::kSmall:
      dense_streams_ = false;
      launch_linear_small({x, {w}, 1, applies_silu, {}, out}, stream());
      break;
    case LinearPath::kStreamBf16:
      launch_linear_stream_bf16(x, w, applies_silu, out, multiprocessors_, stream());
      break;
    case LinearPath::kStream:
      dense_streams_ = true;
      launch_linear_stream({x, {w}, 1, applies_silu, {}, out}, multiprocessors_, stream());
      break;
    case LinearPath::kGemm:
      gemm_->multiply(x, w, out, stream());
      if (applies_silu) launch_silu(out, stream());
      break;
    case LinearPath::kCodes: {
      Scratch scratch(workspace.data);
      const CodedRows codes = coded_rows(scratch, x.rows, x.columns);
      launch_encode_rows(x, codes, stream());
      multiply_codes(codes, w, applies_silu, out);
      break;
    }
    case LinearPath::kTiles:
      launch_linear_tiles(x, w, applies_silu, out, architecture_, stream());
      break;
    case LinearPath::kSplit:
      launch_linear_split(x, w, applies_silu, out, workspace.data, stream());
      break;
    case LinearPath::kF32:
      launch_linear_f32(x, w, applies_silu, out, experts_stream_, stream());
  }
  check_launch(args.kName);
}

void CudaBackend::multiply_codes(const CodedRows& x, const WeightView& weight, bool applies_silu,
                                 const Matrix& out) {
  if (!applies_silu && x.rows >= kLeastLibraryRows && gemm_->multiply_codes(x, weight, out, stream())) return;
  launch_linear_codes(x, weight, applies_silu, out, stream());
}

void CudaBackend::run(const ops::Projections& args, ops::Workspace workspace) {
  static_assert(ops::Projections::kMost <= kMostSmallWeights);
  SmallLinearArgs a;
  a.x = matrix(args.x);
  a.out = matrix(args.out);
  for (const quant::Weight& weight : args.parts()) {
    if (weight.out_features() > 0) a.weights[a.count++] = view(weight);
  }
  const bool is_small = args.precision != ops::Precision::kF32 && a.count > 0 &&
                        std::all_of(a.weights, a.weights + a.count, [&](const WeightView& w) {
                          return can_linear_small(a.x, w) && w.scalar == a.weights[0].scalar &&
                                 w.scale_scalar == a.weights[0].scale_scalar;
                        });
  dense_streams_ = streams_codes(args.precision, architecture_) && can_linear_stream(a);
  if (dense_streams_) {
    launch_linear_stream(a, multiprocessors_, stream());
    return check_launch(args.kName);
  }
  if (is_small) {
    launch_linear_small(a, stream());
    return check_launch(args.kName);
  }
  // Without outputs there is nothing to round for, and no room for it.
  const bool has_codes = a.count > 0 && a.x.rows > kMostSmallRows &&
                         std::all_of(a.weights, a.weights + a.count, [&](const WeightView& w) {
                           return multiplies_codes(args.precision, w, architecture_);
                         });
  if (!has_codes) return ops::Backend::run(args, workspace);
  Scratch scratch(workspace.data);
  const CodedRows codes = coded_rows(scratch, a.x.rows, a.x.columns);
  launch_encode_rows(a.x, codes, stream());
  int64_t column = 0;
  for (const quant::Weight& weight : args.parts()) {
    multiply_codes(codes, view(weight), false,
                   matrix(args.out.slice(1, column, column + weight.out_features())));
    column += weight.out_features();
  }
  check_launch(args.kName);
}

namespace {

template <typename Op>
RouteArgs route_args(const Op& args) {
  RouteArgs a;
  a.logits = args.logits.template data<float>();
  a.logits_stride = args.logits.stride(0);
  a.tokens = args.logits.dim(0);
  a.experts = args.logits.dim(1);
  a.top_k = args.expert_ids.dim(1);
  a.ids = args.expert_ids.template data<int32_t>();
  a.ids_stride = args.expert_ids.stride(0);
  a.weights = args.expert_weights.template data<float>();
  a.weights_stride = args.expert_weights.stride(0);
  return a;
}

}  // namespace

void CudaBackend::run(const ops::RouteSoftmax& args, ops::Workspace) {
  RouteArgs a = route_args(args);
  a.lets_next_start = experts_stream_;
  launch_route(a, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::RouteSigmoid& args, ops::Workspace) {
  RouteArgs a = route_args(args);
  a.bias = vector(args.bias);
  a.scale = args.scale;
  a.is_sigmoid = true;
  a.lets_next_start = experts_stream_;
  launch_route(a, stream());
  check_launch(args.kName);
}

const ExpertTable& CudaBackend::table_of(std::span<const ops::MlpWeights> experts) {
  std::vector<ExpertPointers> wanted;
  wanted.reserve(experts.size());
  for (const ops::MlpWeights& expert : experts)
    wanted.push_back({view(expert.w1), view(expert.w3), view(expert.w2)});
  auto found = std::find_if(tables_.begin(), tables_.end(),
                            [&](const auto& entry) { return entry.first == experts.data(); });
  if (found != tables_.end() && found->second->host == wanted) return *found->second;
  auto table = std::make_unique<ExpertTable>();
  const auto bytes = static_cast<int64_t>(wanted.size() * sizeof(ExpertPointers));
  table->device = allocate(bytes);
  upload(table->device.data(), wanted.data(), bytes);
  std::vector<std::byte> maps;
  if (architecture_ >= 90 && std::all_of(wanted.begin(), wanted.end(), can_stream_experts)) {
    maps = make_expert_maps(wanted.data(), static_cast<int64_t>(wanted.size()));
    table->maps = allocate(static_cast<int64_t>(maps.size()));
    upload(table->maps.data(), maps.data(), static_cast<int64_t>(maps.size()));
  }
  synchronize();
  table->host = std::move(wanted);
  if (found == tables_.end()) found = tables_.insert(tables_.end(), {experts.data(), nullptr});
  found->second = std::move(table);
  return *found->second;
}

MoeArgs CudaBackend::moe_args(const ops::Moe& args, ops::Workspace workspace) {
  const ExpertTable& table = table_of(args.experts);
  int64_t bytes = 0;
  const MoeScratch scratch(args, workspace.data, bytes);
  MoeArgs a;
  a.x = matrix(args.x);
  a.ids = args.expert_ids.data<int32_t>();
  a.weights = args.expert_weights.data<float>();
  a.top_k = args.expert_ids.dim(1);
  a.experts = args.num_experts();
  a.first_expert = args.first_expert;
  a.intermediate = args.intermediate_size();
  a.table = reinterpret_cast<const ExpertPointers*>(table.device.data());
  a.maps = table.maps.data();
  a.first = table.host.front();
  a.swiglu = swiglu_params(args.swiglu);
  a.out = matrix(args.out);
  a.order = scratch.order;
  a.hidden = scratch.hidden;
  a.partial = scratch.partial;
  a.x_bf16 = scratch.x_bf16;
  return a;
}

int64_t CudaBackend::workspace_bytes(const ops::Moe& args) const {
  int64_t bytes = 0;
  if (args.num_experts() > 0) MoeScratch(args, nullptr, bytes);
  return bytes;
}

void CudaBackend::run(const ops::Moe& args, ops::Workspace workspace) {
  if (args.num_experts() == 0 || args.x.numel() == 0) {
    check(
        cudaMemset2DAsync(args.out.raw(), static_cast<size_t>(args.out.stride(0) * size_of(args.out.dtype())),
                          0, static_cast<size_t>(args.out.dim(1) * size_of(args.out.dtype())),
                          static_cast<size_t>(args.out.dim(0)), stream()),
        args.kName);
    return;
  }
  MoeArgs a = moe_args(args, workspace);
  const bool is_stream = streams_codes(args.precision, architecture_) && can_moe_stream(a);
  experts_stream_ = is_stream;
  a.lets_next_start = dense_streams_;
  const bool is_small = is_stream || (args.precision != ops::Precision::kF32 && can_moe_small(a));
  const bool is_bf16 = args.precision != ops::Precision::kF32 && can_moe_bf16(a);
  const bool has_tiles = args.precision != ops::Precision::kF32 && can_moe_tiles(a);
  // Few tokens gain nothing from codes, and lose what rounding loses.
  const bool has_codes = a.x.rows > kMostSmallMoeTokens && has_tiles &&
                         multiplies_codes(args.precision, a.first.w1, architecture_) && can_moe_codes(a);
  if (!is_small || needs_expert_order(a)) launch_expert_order(a, stream());
  if (!is_small && has_codes) {
    int64_t bytes = 0;
    const MoeCodes codes = moe_codes(a, MoeScratch(args, workspace.data, bytes).maps);
    launch_encode_pairs(a, codes.x, stream());
    launch_moe_codes(codes, stream());
  } else if (is_small || is_bf16 || has_tiles) {
    if (!is_small || !reads_inputs_as_they_are(a)) {
      const Matrix packed = {a.x_bf16, a.x.rows, a.x.columns, a.x.columns, Scalar::kBF16};
      launch_convert(a.x, packed, stream());
      a.x = packed;
    }
    if (is_stream) {
      launch_moe_stream(a, multiprocessors_, stream());
    } else if (is_small) {
      launch_moe_small(a, multiprocessors_, stream());
    } else {
      launch_moe_tiles(a, architecture_, stream());
    }
  } else {
    const quant::Weight& weight = args.experts.front().w1;
    if (rounds_inputs(args.precision, weight)) {
      int64_t bytes = 0;
      const Matrix rounded = {MoeScratch(args, workspace.data, bytes).x_rounded, a.x.rows, a.x.columns,
                              a.x.columns, Scalar::kF32};
      launch_round_e4m3(a.x, is_mx(weight), rounded, stream());
      a.x = rounded;
      a.rounds_hidden = true;
      a.is_mx = is_mx(weight);
    }
    launch_moe_f32(a, stream());
  }
  check_launch(args.kName);
}

namespace {

// Gate, up and hidden of a dense MLP, and what its products need.
struct MlpScratch {
  Tensor gate, up, hidden, down;
  int64_t bytes = 0;
  std::byte* rest = nullptr;

  MlpScratch(const ops::Mlp& args, std::byte* base, Device device) {
    const int64_t tokens = args.x.dim(0), width = args.weights.w1.out_features();
    // Products in BF16 arithmetic round what lies between them.
    const bool is_bf16 =
        args.precision != ops::Precision::kF32 && args.weights.w1.format == quant::WeightFormat::kBF16;
    Scratch scratch(base);
    gate = Tensor(scratch.take<float>(tokens * width), DType::kF32, {tokens, width}, "gate", device);
    up = Tensor(scratch.take<float>(tokens * width), DType::kF32, {tokens, width}, "up", device);
    hidden = Tensor(scratch.take<float>(tokens * width), is_bf16 ? DType::kBF16 : DType::kF32,
                    {tokens, width}, "hidden", device);
    down = args.out;
    if (args.addend.defined())
      down = Tensor(scratch.take<float>(args.out.numel()), DType::kF32, {tokens, args.out.dim(1)}, "down",
                    device);
    bytes = scratch.used();
    rest = base == nullptr ? nullptr : base + bytes;
  }
};

// The fastest that all three products of an MLP can do alike.
Rounding mlp_rounding(const ops::Mlp& args, int architecture) {
  const auto all = [&](auto&& can) {
    return can(view(args.weights.w1)) && can(view(args.weights.w3)) && can(view(args.weights.w2));
  };
  const bool multiply_codes = args.x.dim(0) > kMostSmallRows && all([&](const WeightView& w) {
                                return multiplies_codes(args.precision, w, architecture);
                              });
  return !multiply_codes && all(can_linear_tiles) ? Rounding::kNever : Rounding::kAlways;
}

}  // namespace

int64_t CudaBackend::workspace_bytes(const ops::Mlp& args) const {
  const MlpScratch scratch(args, nullptr, device());
  const ops::Linear up{args.x, args.weights.w1, ops::Activation::kNone, scratch.gate, args.precision};
  const ops::Linear down{scratch.hidden, args.weights.w2, ops::Activation::kNone, scratch.down,
                         args.precision};
  const Rounding rounding = mlp_rounding(args, architecture_);
  return scratch.bytes + std::max(linear_workspace_bytes(up, architecture_, rounding),
                                  linear_workspace_bytes(down, architecture_, rounding));
}

void CudaBackend::run(const ops::Mlp& args, ops::Workspace workspace) {
  const MlpScratch s(args, workspace.data, device());
  MlpSmallArgs small{matrix(args.x),
                     view(args.weights.w1),
                     view(args.weights.w3),
                     view(args.weights.w2),
                     swiglu_params(args.swiglu),
                     matrix(args.addend),
                     matrix(s.hidden),
                     matrix(args.out)};
  small.hidden.scalar = Scalar::kBF16;
  if (streams_codes(args.precision, architecture_) && can_mlp_stream(small)) {
    launch_mlp_stream(small, multiprocessors_, stream());
    return check_launch(args.kName);
  }
  if (args.precision != ops::Precision::kF32 && can_mlp_small(small)) {
    launch_mlp_small(small, stream());
    return check_launch(args.kName);
  }
  const ops::Workspace rest{s.rest, workspace.bytes - s.bytes};
  const Rounding rounding = mlp_rounding(args, architecture_);
  run_linear({args.x, args.weights.w1, ops::Activation::kNone, s.gate, args.precision}, rest, rounding);
  run_linear({args.x, args.weights.w3, ops::Activation::kNone, s.up, args.precision}, rest, rounding);
  launch_swiglu(matrix(s.gate), matrix(s.up), swiglu_params(args.swiglu), matrix(s.hidden), stream());
  run_linear({s.hidden, args.weights.w2, ops::Activation::kNone, s.down, args.precision}, rest, rounding);
  if (args.addend.defined()) launch_add(matrix(s.down), matrix(args.addend), matrix(args.out), stream());
  check_launch(args.kName);
}

}  // namespace minimax::cuda
