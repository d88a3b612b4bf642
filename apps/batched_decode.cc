#include "apps/batched_decode.h"

#include <algorithm>
#include <set>

namespace minimax::apps {
namespace {

const Tensor& operand(const ops::OpRecord& record, std::string_view role) {
  const auto found = std::find_if(record.operands.begin(), record.operands.end(),
                                  [role](const auto& operand) { return operand.role == role; });
  MM_CHECK(found != record.operands.end(), "{} has no operand {}", record.op, role);
  return found->tensor;
}

// Bytes of one token in a cache [pages, page size, ...].
double token_bytes(const Tensor& cache) {
  return static_cast<double>(cache.size_bytes()) / static_cast<double>(cache.dim(0) * cache.dim(1));
}

double tokens_of(const Tensor& seq_lens) {
  double sum = 0;
  for (int64_t b = 0; b < seq_lens.dim(0); ++b) sum += seq_lens.data<int32_t>()[b];
  return sum;
}

// Tokens of the chosen blocks, summed over rows and kv heads; the newest block is counted whole.
double chosen_tokens(const Tensor& selection, int64_t block_size) {
  const auto* chosen = selection.data<int32_t>();
  return static_cast<double>(block_size * std::count_if(chosen, chosen + selection.numel(),
                                                        [](int32_t block) { return block >= 0; }));
}

// Places tensors one behind the other; without memory it only measures.
class Placer {
 public:
  explicit Placer(std::byte* base) : base_(base) {}
  Tensor operator()(std::string_view name, DType dtype, std::initializer_list<int64_t> shape) {
    const Tensor tensor(base_ + used_, dtype, shape, name);
    used_ += (tensor.size_bytes() + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
    return tensor;
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

struct Placed {
  models::ModelCache cache;
  models::StepBatch inputs;
  Tensor logits;
};

Placed place_all(const models::Model& model, int64_t batch, int64_t max_pages, Placer& place) {
  const models::CacheLayout layout = model.cache_layout();
  const int64_t pages = batch * max_pages;
  Placed placed;
  for (int64_t i = 0; i < layout.num_state_layers; ++i) {
    placed.cache.states.push_back(
        place("state", DType::kF32, {batch, layout.num_state_heads, layout.head_dim, layout.head_dim}));
  }
  const auto rows = [&](std::string_view name) {
    return place(name, layout.kv_dtype, {pages, layout.page_size, layout.num_kv_heads, layout.head_dim});
  };
  for (int64_t i = 0; i < layout.num_kv_layers; ++i) {
    const Tensor k = rows("k_cache");
    placed.cache.kv.push_back({k, rows("v_cache")});
  }
  for (int64_t i = 0; i < layout.num_index_layers; ++i) {
    placed.cache.index.push_back(
        place("index_cache", layout.index_dtype, {pages, layout.page_size, layout.index_dim}));
  }
  models::StepBatch& inputs = placed.inputs;
  inputs.token_ids = place("token_ids", DType::kI32, {batch});
  inputs.positions = place("positions", DType::kI32, {batch});
  inputs.query_starts = place("query_starts", DType::kI32, {batch + 1});
  inputs.seq_lens = place("seq_lens", DType::kI32, {batch});
  inputs.block_table = place("block_table", DType::kI32, {batch, max_pages});
  inputs.slot_mapping = place("slot_mapping", DType::kI64, {batch});
  inputs.state_read_slots = place("state_read_slots", DType::kI32, {batch});
  inputs.state_write_slots = place("state_write_slots", DType::kI32, {batch});
  inputs.logits_rows = place("logits_rows", DType::kI32, {batch});
  inputs.is_decode = true;
  placed.logits = place("logits", DType::kF32, {batch, model.vocab_size()});
  return placed;
}

int64_t placed_bytes(const models::Model& model, int64_t batch, int64_t max_pages) {
  Placer measure(nullptr);
  place_all(model, batch, max_pages, measure);
  return measure.used();
}

int64_t activation_bytes(const models::Model& model, ops::Backend& backend, int64_t batch,
                         int64_t max_pages) {
  Placer nowhere(nullptr);
  const Placed shapes = place_all(model, batch, max_pages, nowhere);
  Arena arena;
  ops::OpContext context{backend, arena, nullptr};
  model.forward(context, shapes.inputs, shapes.cache, shapes.logits);
  return arena.peak_bytes();
}

// Numbers in [-1, 1).
class Filler {
 public:
  void fill(const Tensor& tensor) {
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
      const float x = static_cast<float>(state_ >> 40U) * 0x1p-23F - 1.0F;
      if (tensor.dtype() == DType::kBF16) {
        tensor.data<bf16>()[i] = to_bf16(x);
      } else if (tensor.dtype() == DType::kF8E4M3) {
        tensor.data<f8e4m3>()[i] = to_e4m3(x);
      } else {
        tensor.data<float>()[i] = x;
      }
    }
  }

 private:
  uint64_t state_ = 1;
};

void fill_cache(const models::ModelCache& cache) {
  Filler filler;
  for (const Tensor& state : cache.states) filler.fill(state);
  for (const models::KvPages& pages : cache.kv) {
    filler.fill(pages.k);
    filler.fill(pages.v);
  }
  for (const Tensor& index : cache.index) filler.fill(index);
}

// What stays the same from step to step: sequence b has pages and a state slot of its own.
void fill_constants(const models::StepBatch& inputs) {
  const int64_t max_pages = inputs.block_table.dim(1);
  inputs.query_starts.data<int32_t>()[0] = 0;
  for (int64_t b = 0; b < inputs.seq_lens.dim(0); ++b) {
    const auto row = static_cast<int32_t>(b);
    inputs.query_starts.data<int32_t>()[b + 1] = row + 1;
    inputs.state_read_slots.data<int32_t>()[b] = row;
    inputs.state_write_slots.data<int32_t>()[b] = row;
    inputs.logits_rows.data<int32_t>()[b] = row;
    for (int64_t page = 0; page < max_pages; ++page)
      inputs.block_table.row<int32_t>(b)[page] = static_cast<int32_t>(b * max_pages + page);
  }
}

}  // namespace

void StepTraffic::on_op(const ops::OpRecord& record) {
  if (record.op == "moe") {
    const Tensor& ids = operand(record, "expert_ids");
    std::set<int32_t> distinct(ids.data<int32_t>(), ids.data<int32_t>() + ids.numel());
    distinct.erase(-1);
    distinct_experts_ += static_cast<int64_t>(distinct.size());
    ++expert_layers_;
  } else if (record.op == "paged_attention") {
    cache_bytes_ += 2 * token_bytes(operand(record, "k_cache")) * tokens_of(operand(record, "seq_lens"));
  } else if (record.op == "sparse_paged_attention") {
    const Tensor& keys = operand(record, "k_cache");
    cache_bytes_ += 2 * token_bytes(keys) / static_cast<double>(keys.dim(2)) *
                    chosen_tokens(operand(record, "selection"), keys.dim(1));
  } else if (record.op == "index_block_scores") {
    cache_bytes_ += token_bytes(operand(record, "index_cache")) * tokens_of(operand(record, "seq_lens"));
  } else if (record.op == "lightning_decode") {
    cache_bytes_ += 2 * static_cast<double>(operand(record, "state").size_bytes());
  }
}

BatchedDecode::BatchedDecode(const models::Model& model, ops::Backend& backend, int64_t batch,
                             int64_t context, int64_t max_steps)
    : model_(model),
      backend_(backend),
      context_(context),
      length_(context),
      max_pages_((context + max_steps + model.cache_layout().page_size - 1) / model.cache_layout().page_size),
      memory_(placed_bytes(model, batch, max_pages_)),
      arena_(activation_bytes(model, backend, batch, max_pages_)) {
  Placer place(memory_.data());
  const Placed placed = place_all(model, batch, max_pages_, place);
  cache_ = placed.cache;
  inputs_ = placed.inputs;
  logits_ = placed.logits;
  fill_cache(cache_);
  fill_constants(inputs_);
}

void BatchedDecode::step(std::span<const int32_t> tokens, ops::Tracer* tracer) {
  const int64_t slots = max_pages_ * model_.cache_layout().page_size;
  MM_CHECK(static_cast<int64_t>(tokens.size()) == batch() && length_ < slots,
           "{} tokens for {} sequences of {} tokens, at most {}", tokens.size(), batch(), length_, slots);
  for (int64_t b = 0; b < batch(); ++b) {
    inputs_.token_ids.data<int32_t>()[b] = tokens[static_cast<size_t>(b)];
    inputs_.positions.data<int32_t>()[b] = static_cast<int32_t>(length_);
    inputs_.seq_lens.data<int32_t>()[b] = static_cast<int32_t>(length_ + 1);
    inputs_.slot_mapping.data<int64_t>()[b] = b * slots + length_;
  }
  ops::OpContext context{backend_, arena_, tracer};
  model_.forward(context, inputs_, cache_, logits_);
  ++length_;
}

}  // namespace minimax::apps
