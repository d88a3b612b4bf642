#include "apps/batched_decode.h"

#include <algorithm>
#include <cstring>
#include <numeric>
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

double sum_of(const std::vector<int32_t>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// Tokens of the chosen blocks, summed over rows and kv heads; the newest block is counted whole.
double chosen_tokens(const std::vector<int32_t>& selection, int64_t block_size) {
  return static_cast<double>(block_size * std::count_if(selection.begin(), selection.end(),
                                                        [](int32_t block) { return block >= 0; }));
}

// Keys of all rows, each up to its own position.
double causal_keys(const std::vector<int32_t>& starts, const std::vector<int32_t>& lengths) {
  double keys = 0;
  for (size_t b = 0; b < lengths.size(); ++b) {
    const double rows = starts[b + 1] - starts[b], length = lengths[b];
    keys += rows * (2 * length - rows + 1) / 2;
  }
  return keys;
}

engine::StepShape shape_of(int64_t batch, int64_t max_pages) { return {batch, batch, max_pages, batch}; }

struct Placed {
  models::ModelCache cache;
  Tensor logits;
};

Placed place_all(const models::Model& model, int64_t batch, int64_t max_pages, engine::Placer& place) {
  Placed placed;
  placed.cache = engine::place_cache(model.cache_layout(), batch * max_pages, batch, place);
  placed.logits = place("logits", DType::kF32, {batch, model.vocab_size()});
  return placed;
}

int64_t placed_bytes(const models::Model& model, int64_t batch, int64_t max_pages) {
  engine::Placer measure(nullptr);
  place_all(model, batch, max_pages, measure);
  return measure.used();
}

int64_t activation_bytes(const models::Model& model, ops::Backend& backend, int64_t batch,
                         int64_t max_pages) {
  engine::Placer nowhere(nullptr, backend.device());
  const Placed shapes = place_all(model, batch, max_pages, nowhere);
  const models::StepBatch inputs = engine::place_inputs(shape_of(batch, max_pages), nowhere);
  Arena arena(backend.device());
  ops::OpContext context{backend, arena, nullptr};
  model.forward(context, engine::front(inputs, batch, batch, batch, true), shapes.cache, shapes.logits);
  return arena.peak_bytes();
}

// Numbers in [-1, 1).
class Filler {
 public:
  // Large tensors repeat what was drawn: drawing takes longer than their numbers are worth.
  void fill(const Tensor& tensor) {
    constexpr int64_t kDraws = 4'000'037;
    const int64_t drawn = std::min(tensor.numel(), kDraws);
    for (int64_t i = 0; i < drawn; ++i) {
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
    const int64_t size = size_of(tensor.dtype());
    auto* bytes = static_cast<std::byte*>(tensor.raw());
    for (int64_t done = drawn; done < tensor.numel(); done += drawn)
      std::memcpy(bytes + done * size, bytes,
                  static_cast<size_t>(std::min(drawn, tensor.numel() - done) * size));
  }

 private:
  uint64_t state_ = 1;
};

void fill_cache(const models::ModelCache& cache, ops::Backend& backend) {
  Filler filler;
  const auto fill = [&](const Tensor& tensor) {
    if (backend.is_host()) return filler.fill(tensor);
    const Memory memory = Memory::host(tensor.size_bytes());
    filler.fill(tensor.moved(memory.data(), {}));
    backend.upload(tensor.raw(), memory.data(), tensor.size_bytes());
    backend.synchronize();
  };
  for (const Tensor& state : cache.states) fill(state);
  for (const models::KvPages& pages : cache.kv) {
    fill(pages.k);
    fill(pages.v);
  }
  for (const Tensor& index : cache.index) fill(index);
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

std::vector<int32_t> StepTraffic::values_of(const Tensor& tensor) const {
  std::vector<int32_t> values(static_cast<size_t>(tensor.numel()));
  if (backend_.is_host()) {
    std::copy_n(tensor.data<int32_t>(), values.size(), values.begin());
  } else {
    backend_.download(values.data(), tensor.raw(), tensor.size_bytes());
    backend_.synchronize();
  }
  return values;
}

void StepTraffic::on_op(const ops::OpRecord& record) {
  if (record.op == "moe") {
    const std::vector<int32_t> ids = values_of(operand(record, "expert_ids"));
    std::set<int32_t> distinct(ids.begin(), ids.end());
    distinct.erase(-1);
    distinct_experts_ += static_cast<int64_t>(distinct.size());
    ++expert_layers_;
  } else if (record.op == "paged_attention") {
    const Tensor& q = operand(record, "q");
    const std::vector<int32_t> lengths = values_of(operand(record, "seq_lens"));
    cache_bytes_ += 2 * token_bytes(operand(record, "k_cache")) * sum_of(lengths);
    attention_flops_ += 4 * static_cast<double>(q.dim(1) * q.dim(2)) *
                        causal_keys(values_of(operand(record, "query_starts")), lengths);
  } else if (record.op == "sparse_paged_attention") {
    const Tensor &keys = operand(record, "k_cache"), &q = operand(record, "q");
    const double tokens = chosen_tokens(values_of(operand(record, "selection")), keys.dim(1));
    cache_bytes_ += 2 * token_bytes(keys) / static_cast<double>(keys.dim(2)) * tokens;
    const int64_t heads_of_a_block = q.dim(1) / keys.dim(2);
    attention_flops_ += 4 * static_cast<double>(heads_of_a_block * q.dim(2)) * tokens;
  } else if (record.op == "index_block_scores") {
    cache_bytes_ +=
        token_bytes(operand(record, "index_cache")) * sum_of(values_of(operand(record, "seq_lens")));
  } else if (record.op == "lightning_decode") {
    cache_bytes_ += 2 * static_cast<double>(operand(record, "state").size_bytes());
  } else if (record.op == "lightning_prefill") {
    attention_flops_ += record.cost.flops;
  }
}

BatchedDecode::BatchedDecode(const models::Model& model, ops::Backend& backend, int64_t batch,
                             int64_t context, int64_t max_steps)
    : model_(model),
      backend_(backend),
      context_(context),
      length_(context),
      max_pages_((context + max_steps + model.cache_layout().page_size - 1) / model.cache_layout().page_size),
      memory_(backend.allocate(placed_bytes(model, batch, max_pages_))),
      inputs_(shape_of(batch, max_pages_), 0, backend),
      device_inputs_(shape_of(batch, max_pages_), 0, backend),
      arena_(backend.allocate(
          std::max<int64_t>(activation_bytes(model, backend, batch, max_pages_), Arena::kAlignment))) {
  engine::Placer place(memory_);
  const Placed placed = place_all(model, batch, max_pages_, place);
  cache_ = placed.cache;
  logits_ = placed.logits;
  fill_cache(cache_, backend);
  fill_constants(inputs_.host());
  device_inputs_.upload(inputs_, batch, max_pages_);
}

void BatchedDecode::step(std::span<const int32_t> tokens, ops::Tracer* tracer) {
  const int64_t slots = max_pages_ * model_.cache_layout().page_size;
  MM_CHECK(static_cast<int64_t>(tokens.size()) == batch() && length_ < slots,
           "{} tokens for {} sequences of {} tokens, at most {}", tokens.size(), batch(), length_, slots);
  const models::StepBatch& host = inputs_.host();
  for (int64_t b = 0; b < batch(); ++b) {
    host.token_ids.data<int32_t>()[b] = tokens[static_cast<size_t>(b)];
    host.positions.data<int32_t>()[b] = static_cast<int32_t>(length_);
    host.seq_lens.data<int32_t>()[b] = static_cast<int32_t>(length_ + 1);
    host.slot_mapping.data<int64_t>()[b] = b * slots + length_;
  }
  device_inputs_.upload(inputs_, 0, 0);
  const auto forward = [&](ops::Tracer* watcher) {
    ops::OpContext context{backend_, arena_, watcher};
    model_.forward(context, engine::front(device_inputs_.batch(inputs_), batch(), batch(), batch(), true),
                   cache_, logits_);
  };
  // As engines do: the first step runs op by op, later ones as one.
  if (tracer == nullptr && recorded_ == nullptr && ++steps_ > 1)
    recorded_ = backend_.capture([&] { forward(nullptr); });
  if (tracer == nullptr && recorded_ != nullptr) {
    recorded_->launch();
  } else {
    forward(tracer);
  }
  backend_.synchronize();
  ++length_;
}

}  // namespace minimax::apps
