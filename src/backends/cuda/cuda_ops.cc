// The ops: tensors to kernel arguments, and which kernel takes which shape.
#include "backends/cuda/cuda_ops.h"

#include <algorithm>

#include "backends/cuda/lightning.h"
#include "quant/fp8.h"

namespace minimax::cuda {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t aligned(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

Scalar scalar_of(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return Scalar::kBF16;
    case DType::kF16:
      return Scalar::kF16;
    case DType::kF8E4M3:
      return Scalar::kE4m3;
    case DType::kU8:
    case DType::kF8E8M0:
      return Scalar::kE8m0;
    default:
      MM_CHECK(dtype == DType::kF32, "cuda: {} is no dtype of a kernel", name(dtype));
      return Scalar::kF32;
  }
}

Matrix matrix(const Tensor& t) {
  if (!t.defined()) return {};
  return {t.raw(), t.dim(0), t.dim(1), t.stride(0), scalar_of(t.dtype())};
}

Heads heads(const Tensor& t) {
  if (!t.defined()) return {};
  return {t.raw(), t.dim(0), t.dim(1), t.dim(2), t.stride(0), t.stride(1), scalar_of(t.dtype())};
}

Vector vector(const Tensor& t) {
  if (!t.defined()) return {};
  return {t.raw(), scalar_of(t.dtype())};
}

WeightView view(const quant::Weight& w) {
  WeightView v;
  v.values = w.values.raw();
  v.rows = w.out_features();
  v.columns = w.in_features();
  v.stride = w.values.stride(0);
  v.scalar = scalar_of(w.values.dtype());
  if (w.scales.defined()) {
    v.scales = w.scales.raw();
    v.scale_stride = w.scales.stride(0);
    v.scale_scalar = scalar_of(w.scales.dtype());
    v.block_rows = w.block_rows;
    v.block_columns = w.block_columns;
    v.row_offset = w.row_offset;
    v.column_offset = w.column_offset;
  }
  return v;
}

PagedKv paged(const Tensor& k, const Tensor& v) {
  return {k.raw(), v.raw(), k.dim(1), k.dim(2), k.dim(3), scalar_of(k.dtype())};
}

Ragged ragged(const Tensor& block_table, const Tensor& query_starts, const Tensor& seq_lens, int64_t tokens) {
  return {query_starts.data<int32_t>(),
          seq_lens.data<int32_t>(),
          block_table.data<int32_t>(),
          block_table.stride(0),
          block_table.dim(1),
          block_table.dim(0),
          tokens};
}

Rows rows_of(const Tensor& t) { return {t.raw(), t.stride(0), t.stride(1)}; }
Element element_of(const Tensor& t) { return t.dtype() == DType::kBF16 ? Element::kBF16 : Element::kF32; }

SwigluParams swiglu_params(const ops::Swiglu& s) { return {s.alpha, s.limit, s.up_offset}; }

bool rounds_inputs(ops::Precision precision, const quant::Weight& weight) {
  return precision == ops::Precision::kFp8 && quant::activation_group(weight.format) > 0;
}

bool is_mx(const quant::Weight& weight) { return weight.format == quant::WeightFormat::kMxfp8; }

// How a dense product runs; a function of shapes, dtypes and alignment.
enum class LinearPath : uint8_t {
  kF32,
  kSmall,
  kStream,  // few rows as e4m3 codes, in two terms
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

// Consecutive pieces of an op's scratch memory; without memory it only measures.
class Scratch {
 public:
  explicit Scratch(std::byte* base) : base_(base) {}
  template <typename T>
  T* take(int64_t count) {
    std::byte* at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += aligned(count * static_cast<int64_t>(sizeof(T)));
    return reinterpret_cast<T*>(at);
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

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

// Parts of a decode step's keys, and how many of them are a cluster. From shapes alone: graphs replay at any
// length.
struct AttentionParts {
  int64_t splits = 1;
  int64_t cluster = 1;
};
AttentionParts attention_parts(const ops::PagedAttention& args, int multiprocessors, int architecture) {
  // More parts take longer to add up than they save.
  constexpr int64_t kMostSplits = 32, kMostCluster = 8, kFewestKeys = 64;
  const int64_t sequences = args.block_table.dim(0);
  if (args.q.dim(0) > sequences || sequences * args.q.dim(1) > kMostArrivals) return {};
  const int64_t blocks = std::max<int64_t>(1, sequences * args.k_cache.dim(2));
  const int64_t most = std::min(kMostSplits, ceil_div(args.max_context(), kFewestKeys));
  // Two blocks run on a multiprocessor; clusters of more than two need room to find their places.
  const int64_t roomy = std::min(most, 3 * multiprocessors / 2 / blocks);
  if (architecture >= 90 && roomy >= kMostCluster) return {roomy / kMostCluster * kMostCluster, kMostCluster};
  const int64_t splits = std::clamp<int64_t>(2 * multiprocessors / blocks, 1, most);
  if (architecture < 90 || splits < 2) return {splits, 1};
  return {splits / 2 * 2, 2};
}

AttentionArgs attention_args(const ops::PagedAttention& args) {
  AttentionArgs a;
  a.q = heads(args.q);
  a.cache = paged(args.k_cache, args.v_cache);
  a.batch = ragged(args.block_table, args.query_starts, args.seq_lens, args.q.dim(0));
  a.scale = args.scale;
  a.out = heads(args.out);
  a.is_decode_shape = args.q.dim(0) <= args.block_table.dim(0);
  return a;
}

LightningPrefillArgs prefill_args(const ops::LightningPrefill& args, int architecture) {
  LightningPrefillArgs a;
  a.q = rows_of(args.q);
  a.k = rows_of(args.k);
  a.v = rows_of(args.v);
  a.out = rows_of(args.out);
  a.decay = args.decay.data<float>();
  a.state = args.state.data<float>();
  a.read_slots = args.read_slots.data<int32_t>();
  a.write_slots = args.write_slots.data<int32_t>();
  a.query_starts = args.query_starts.data<int32_t>();
  if (args.checkpoint_rows.defined()) {
    a.checkpoint_rows = args.checkpoint_rows.data<int32_t>();
    a.checkpoint_slots = args.checkpoint_slots.data<int32_t>();
    a.num_checkpoints = static_cast<int>(args.checkpoint_rows.dim(1));
  }
  a.num_tokens = args.q.dim(0);
  a.num_sequences = args.read_slots.dim(0);
  a.num_heads = static_cast<int>(args.q.dim(1));
  a.head_dim = static_cast<int>(args.q.dim(2));
  a.element = element_of(args.q);
  a.sm = architecture;
  return a;
}

template <typename T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

}  // namespace

void CudaBackend::check_launch(std::string_view op) const { check(cudaGetLastError(), op); }

void CudaBackend::run(const ops::Embedding& args, ops::Workspace) {
  launch_embedding(args.ids.data<int32_t>(), matrix(args.table), matrix(args.out), args.first_id, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::RmsNorm& args, ops::Workspace) {
  NormArgs a;
  a.x = matrix(args.x);
  a.weight = vector(args.weight);
  a.out = matrix(args.out);
  a.eps = args.eps;
  a.weight_offset = args.weight_offset;
  launch_norm(a, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::ResidualRmsNorm& args, ops::Workspace) {
  NormArgs a;
  a.x = matrix(args.residual);
  a.branch = matrix(args.branch);
  a.alpha = args.alpha;
  a.beta = args.beta;
  a.weight = vector(args.weight);
  a.sum = matrix(args.sum);
  a.out = matrix(args.out);
  a.eps = args.eps;
  a.weight_offset = args.weight_offset;
  launch_norm(a, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::GatedRmsNorm& args, ops::Workspace) {
  NormArgs a;
  a.x = matrix(args.x);
  a.gate = matrix(args.gate);
  a.weight = vector(args.weight);
  a.out = matrix(args.out);
  a.eps = args.eps;
  if (args.squares.defined()) {
    a.squares = args.squares.data<float>();
    a.squares_stride = args.squares.stride(0);
    a.norm_width = args.norm_width;
  }
  launch_norm(a, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::SumOfSquares& args, ops::Workspace) {
  launch_sum_of_squares(matrix(args.x), args.out.data<float>(), args.out.stride(0), stream());
  check_launch(args.kName);
}

namespace {

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
      launch_linear_small({x, {w}, 1, applies_silu, {}, out}, stream());
      break;
    case LinearPath::kStream:
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
      launch_linear_codes(codes, w, applies_silu, out, stream());
      break;
    }
    case LinearPath::kTiles:
      launch_linear_tiles(x, w, applies_silu, out, architecture_, stream());
      break;
    case LinearPath::kSplit:
      launch_linear_split(x, w, applies_silu, out, workspace.data, stream());
      break;
    case LinearPath::kF32:
      launch_linear_f32(x, w, applies_silu, out, stream());
  }
  check_launch(args.kName);
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
  if (streams_codes(args.precision, architecture_) && can_linear_stream(a)) {
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
    launch_linear_codes(codes, view(weight), false,
                        matrix(args.out.slice(1, column, column + weight.out_features())), stream());
    column += weight.out_features();
  }
  check_launch(args.kName);
}

void CudaBackend::run(const ops::RouteSoftmax& args, ops::Workspace) {
  RouteArgs a;
  a.logits = args.logits.data<float>();
  a.logits_stride = args.logits.stride(0);
  a.tokens = args.logits.dim(0);
  a.experts = args.logits.dim(1);
  a.top_k = args.expert_ids.dim(1);
  a.ids = args.expert_ids.data<int32_t>();
  a.ids_stride = args.expert_ids.stride(0);
  a.weights = args.expert_weights.data<float>();
  a.weights_stride = args.expert_weights.stride(0);
  launch_route(a, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::RouteSigmoid& args, ops::Workspace) {
  RouteArgs a;
  a.logits = args.logits.data<float>();
  a.logits_stride = args.logits.stride(0);
  a.bias = vector(args.bias);
  a.scale = args.scale;
  a.tokens = args.logits.dim(0);
  a.experts = args.logits.dim(1);
  a.top_k = args.expert_ids.dim(1);
  a.ids = args.expert_ids.data<int32_t>();
  a.ids_stride = args.expert_ids.stride(0);
  a.weights = args.expert_weights.data<float>();
  a.weights_stride = args.expert_weights.stride(0);
  a.is_sigmoid = true;
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
  a.arrivals = reinterpret_cast<int32_t*>(arrivals_.data());
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
      launch_moe_small(a, stream());
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

void CudaBackend::run(const ops::MixShared& args, ops::Workspace) {
  launch_mix_shared(matrix(args.routed), matrix(args.shared), args.coefficient.data<float>(),
                    args.coefficient.stride(0), matrix(args.out), stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::Rope& args, ops::Workspace) {
  launch_rope(heads(args.x), args.positions.data<int32_t>(), args.inv_freq.data<float>(),
              args.inv_freq.dim(0), stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::PagedKvWrite& args, ops::Workspace) {
  launch_paged_kv_write(heads(args.k), heads(args.v), args.slot_mapping.data<int64_t>(),
                        paged(args.k_cache, args.v_cache), stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::QkNormRopeKvWrite& args, ops::Workspace) {
  QkNormRopeArgs a;
  a.qkv = matrix(args.qkv);
  a.q_norm = vector(args.q_norm);
  a.k_norm = vector(args.k_norm);
  a.index_q_norm = vector(args.index_q_norm);
  a.index_k_norm = vector(args.index_k_norm);
  // A weight of one head's length is shared by the heads.
  a.q_is_flat = args.squares.defined() || args.q_norm.dim(0) != args.head_dim();
  a.k_is_flat = args.squares.defined() || args.k_norm.dim(0) != args.head_dim();
  a.weight_offset = args.weight_offset;
  a.eps = args.eps;
  a.positions = args.positions.data<int32_t>();
  a.inv_freq = args.inv_freq.data<float>();
  a.half = args.inv_freq.dim(0);
  a.slots = args.slot_mapping.data<int64_t>();
  a.q_out = heads(args.q_out);
  a.index_q_out = heads(args.index_q_out);
  a.cache = paged(args.k_cache, args.v_cache);
  if (args.index_cache.defined()) {
    a.index_cache = args.index_cache.raw();
    a.index_scalar = scalar_of(args.index_cache.dtype());
  }
  a.squares = data_or_null<float>(args.squares);
  a.q_norm_width = args.q_norm_width;
  a.k_norm_width = args.k_norm_width;
  launch_qk_norm_rope_kv_write(a, stream());
  check_launch(args.kName);
}

int64_t CudaBackend::workspace_bytes(const ops::PagedAttention& args) const {
  const AttentionArgs a = attention_args(args);
  if (!can_attention_mma(a)) return 0;
  return attention_partial_bytes(args.q.dim(0), args.q.dim(1), args.q.dim(2),
                                 attention_parts(args, multiprocessors_, architecture_).splits);
}

void CudaBackend::run(const ops::PagedAttention& args, ops::Workspace workspace) {
  AttentionArgs a = attention_args(args);
  if (architecture_ >= 90 && can_attention_sm90(a)) {
    launch_attention_sm90(a, stream());
  } else if (can_attention_mma(a)) {
    const AttentionParts parts = attention_parts(args, multiprocessors_, architecture_);
    a.splits = parts.splits;
    a.cluster = parts.cluster;
    a.partial = reinterpret_cast<float*>(workspace.data);
    a.arrivals = reinterpret_cast<int32_t*>(arrivals_.data());
    launch_attention_mma(a, stream());
  } else {
    launch_attention_any(a, stream());
  }
  check_launch(args.kName);
}

// Up to so many rows a sequence, on average, reading the keys takes longer than multiplying them.
constexpr int64_t kFewScoredRows = 4;

void CudaBackend::run(const ops::IndexBlockScores& args, ops::Workspace) {
  IndexerArgs a;
  a.index_q = heads(args.index_q);
  a.batch = ragged(args.block_table, args.query_starts, args.seq_lens, args.index_q.dim(0));
  a.index_cache = args.index_cache.raw();
  a.index_scalar = scalar_of(args.index_cache.dtype());
  a.block_size = args.block_size();
  a.scores = heads(args.scores);
  if (!can_block_scores(a)) {
    launch_index_block_scores(a, stream());
  } else if (architecture_ >= 90 && a.scores.tokens > kFewScoredRows * a.batch.sequences) {
    launch_block_scores_sm90(a, multiprocessors_, stream());
  } else {
    launch_block_scores(a, multiprocessors_, stream());
  }
  check_launch(args.kName);
}

void CudaBackend::run(const ops::SelectBlocks& args, ops::Workspace) {
  IndexerArgs a;
  a.batch.query_starts = args.query_starts.data<int32_t>();
  a.batch.seq_lens = args.seq_lens.data<int32_t>();
  a.batch.sequences = args.seq_lens.dim(0);
  a.block_size = args.block_size;
  a.scores = heads(args.scores);
  a.selection = args.selection.data<int32_t>();
  a.top_k = args.selection.dim(2);
  a.init_blocks = args.init_blocks;
  a.local_blocks = args.local_blocks;
  can_choose_blocks(a) ? launch_choose_blocks(a, stream()) : launch_select_blocks(a, stream());
  check_launch(args.kName);
}

namespace {

AttentionArgs sparse_args(const ops::SparsePagedAttention& args) {
  AttentionArgs a;
  a.q = heads(args.q);
  a.cache = paged(args.k_cache, args.v_cache);
  a.batch = ragged(args.block_table, args.query_starts, args.seq_lens, args.q.dim(0));
  a.scale = args.scale;
  a.out = heads(args.out);
  a.selection = args.selection.data<int32_t>();
  a.selected = args.selection.dim(2);
  return a;
}

}  // namespace

int64_t CudaBackend::workspace_bytes(const ops::SparsePagedAttention& args) const {
  const AttentionArgs a = sparse_args(args);
  if (!can_sparse_attention(a)) return 0;
  if (architecture_ >= 90 && can_sparse_attention_sm90(a)) return sparse_attention_sm90_bytes(a);
  return sparse_partial_bytes(
      a.q.tokens, a.q.heads,
      sparse_attention_splits(a.q.tokens, a.cache.kv_heads, a.selected, multiprocessors_));
}

void CudaBackend::run(const ops::SparsePagedAttention& args, ops::Workspace workspace) {
  AttentionArgs a = sparse_args(args);
  a.partial = reinterpret_cast<float*>(workspace.data);
  if (architecture_ >= 90 && can_sparse_attention_sm90(a)) {
    launch_sparse_attention_sm90(a, multiprocessors_, stream());
  } else if (can_sparse_attention(a)) {
    a.splits = sparse_attention_splits(a.q.tokens, a.cache.kv_heads, a.selected, multiprocessors_);
    launch_sparse_attention(a, stream());
  } else {
    launch_attention_any(a, stream());
  }
  check_launch(args.kName);
}

std::string CudaBackend::describe(const ops::SparseShape& shape) const {
  IndexerArgs indexer;
  indexer.index_q.heads = shape.kv_heads;
  indexer.index_q.dim = shape.index_dim;
  indexer.index_q.token_stride = shape.kv_heads * shape.index_dim;
  indexer.index_q.head_stride = shape.index_dim;
  indexer.index_q.scalar = scalar_of(shape.index_q_dtype);
  indexer.index_scalar = scalar_of(shape.index_dtype);
  indexer.block_size = shape.block_size;
  indexer.batch.sequences = 1;
  AttentionArgs attention;
  attention.q = {nullptr,
                 1,
                 shape.heads,
                 shape.head_dim,
                 shape.heads * shape.head_dim,
                 shape.head_dim,
                 scalar_of(shape.q_dtype)};
  attention.out = attention.q;
  attention.cache = {nullptr,        nullptr,        shape.block_size,
                     shape.kv_heads, shape.head_dim, scalar_of(shape.kv_dtype)};
  const std::string_view fast =
      architecture_ >= 90 ? "tensor cores, those of warpgroups for prompts" : "tensor cores";
  const std::string_view scores = can_block_scores(indexer) ? fast : "plain kernels";
  const std::string_view attends = can_sparse_attention(attention) ? fast : "plain kernels";
  return fmt::format(
      "indexer on {} ({} index heads of {}, {} queries and {} keys), attention on {} ({} heads over {} of "
      "{}, {} "
      "cache), blocks of {}",
      scores, shape.kv_heads, shape.index_dim, minimax::name(shape.index_q_dtype),
      minimax::name(shape.index_dtype), attends, shape.heads, shape.kv_heads, shape.head_dim,
      minimax::name(shape.kv_dtype), shape.block_size);
}

int64_t CudaBackend::workspace_bytes(const ops::LightningPrefill& args) const {
  return lightning_prefill_workspace_bytes(args.q.dim(0), args.read_slots.dim(0),
                                           static_cast<int>(args.q.dim(1)), static_cast<int>(args.q.dim(2)),
                                           element_of(args.q), architecture_);
}

void CudaBackend::run(const ops::LightningPrefill& args, ops::Workspace workspace) {
  LightningPrefillArgs a = prefill_args(args, architecture_);
  a.workspace = workspace.data;
  a.workspace_bytes = workspace.bytes;
  check(lightning_prefill(a, stream()), args.kName);
}

void CudaBackend::run(const ops::LightningDecode& args, ops::Workspace) {
  LightningDecodeArgs a;
  a.q = rows_of(args.q);
  a.k = rows_of(args.k);
  a.v = rows_of(args.v);
  a.out = rows_of(args.out);
  a.decay = args.decay.data<float>();
  a.state = args.state.data<float>();
  a.read_slots = args.read_slots.data<int32_t>();
  a.write_slots = args.write_slots.data<int32_t>();
  a.batch = args.q.dim(0);
  a.num_heads = static_cast<int>(args.q.dim(1));
  a.head_dim = static_cast<int>(args.q.dim(2));
  a.element = element_of(args.q);
  a.is_uploaded = true;
  check(lightning_decode(a, stream()), args.kName);
}

int64_t CudaBackend::workspace_bytes(const ops::Sample& args) const {
  return 2 * aligned(args.logits.dim(0) * args.vocab_limit * 4);
}

void CudaBackend::run(const ops::Sample& args, ops::Workspace workspace) {
  SampleArgs a;
  a.logits = args.logits.data<float>();
  a.logits_stride = args.logits.stride(0);
  a.rows = args.logits.dim(0);
  a.vocab = args.vocab_limit;
  a.temperature = args.temperature.data<float>();
  a.top_k = args.top_k.data<int32_t>();
  a.top_p = args.top_p.data<float>();
  a.min_p = args.min_p.data<float>();
  a.repetition = args.repetition_penalty.data<float>();
  a.presence = args.presence_penalty.data<float>();
  a.frequency = args.frequency_penalty.data<float>();
  a.seed = args.seed.data<int64_t>();
  a.counter = args.counter.data<int64_t>();
  a.history_ids = args.history_ids.data<int32_t>();
  a.history_starts = args.history_starts.data<int64_t>();
  a.prompt_lens = args.prompt_lens.data<int64_t>();
  a.forced_ids = data_or_null<int32_t>(args.forced_ids);
  a.bias_ids = args.bias_ids.data<int32_t>();
  a.bias_values = args.bias_values.data<float>();
  a.bias_starts = args.bias_starts.data<int64_t>();
  if (args.allowed_rows.defined()) {
    a.allowed = args.allowed.data<int64_t>();
    a.allowed_words = args.allowed.stride(0);
    a.allowed_rows = args.allowed_rows.data<int32_t>();
  }
  a.tokens = args.tokens.data<int32_t>();
  a.logprobs = args.logprobs.data<float>();
  a.top_ids = args.top_ids.data<int32_t>();
  a.top_logprobs = args.top_logprobs.data<float>();
  a.num_top = args.top_ids.dim(1);
  a.work = reinterpret_cast<float*>(workspace.data);
  a.counts = reinterpret_cast<int32_t*>(workspace.data + aligned(a.rows * a.vocab * 4));
  launch_sample(a, stream());
  check_launch(args.kName);
}

}  // namespace minimax::cuda
