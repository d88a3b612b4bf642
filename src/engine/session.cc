#include "engine/session.h"

#include <algorithm>
#include <numeric>

#include "engine/step_memory.h"

namespace minimax::engine {
namespace {

using models::Model;
using models::ModelCache;
using models::StepBatch;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t num_pages(const Model& model, const SessionOptions& options) {
  return ceil_div(options.max_context, model.cache_layout().page_size);
}

StepShape largest_step(const Model& model, const SessionOptions& options) {
  return {options.prefill_chunk, 1, num_pages(model, options), options.max_logits_rows};
}

Tensor place_logits(const Model& model, const SessionOptions& options, Placer& place) {
  return place("logits", DType::kF32, {options.max_logits_rows, model.vocab_size()});
}

SessionOptions checked(const Model& model, SessionOptions options) {
  if (options.max_context < 1 || options.max_context > model.max_position_embeddings()) {
    fail("a context of {} tokens was asked for; this model takes 1 to {}", options.max_context,
         model.max_position_embeddings());
  }
  options.prefill_chunk = std::clamp<int64_t>(options.prefill_chunk, 1, options.max_context);
  options.max_logits_rows = std::clamp<int64_t>(options.max_logits_rows, 1, options.prefill_chunk);
  return options;
}

}  // namespace

MemoryPlan Session::plan(const Model& model, ops::Backend& backend, const SessionOptions& requested) {
  const SessionOptions options = checked(model, requested);
  Placer place(nullptr, backend.device());
  MemoryPlan plan;
  const ModelCache cache = place_cache(model.cache_layout(), num_pages(model, options), 1, place);
  plan.linear_state_bytes = model.cache_layout().state_bytes(1);
  plan.index_cache_bytes = model.cache_layout().index_bytes(num_pages(model, options));
  plan.kv_cache_bytes = place.used() - plan.linear_state_bytes - plan.index_cache_bytes;

  Placer place_buffers(nullptr, backend.device());
  const StepBatch inputs = place_inputs(largest_step(model, options), place_buffers);
  const Tensor logits = place_logits(model, options, place_buffers);
  plan.buffer_bytes = place_buffers.used();

  Arena arena(backend.device());
  ops::OpContext context{backend, arena, nullptr};
  model.forward(context, front(inputs, options.prefill_chunk, 1, options.max_logits_rows, false), cache,
                logits);
  model.forward(context, front(inputs, 1, 1, 1, true), cache, logits.slice(0, 0, 1));
  plan.activation_bytes = arena.peak_bytes();
  return plan;
}

Session::Session(const Model& model, ops::Backend& backend, const SessionOptions& options)
    : model_(model),
      backend_(backend),
      options_(checked(model, options)),
      plan_(plan(model, backend, options)),
      arena_(backend.allocate(std::max<int64_t>(plan_.activation_bytes, Arena::kAlignment))),
      cache_memory_(
          backend.allocate(plan_.kv_cache_bytes + plan_.index_cache_bytes + plan_.linear_state_bytes)),
      inputs_(largest_step(model, options_), 0, backend),
      device_inputs_(largest_step(model, options_), 0, backend) {
  Placer place(cache_memory_);
  cache_ = place_cache(model.cache_layout(), num_pages(model, options_), 1, place);
  Placer measure(nullptr);
  place_logits(model, options_, measure);
  logits_memory_ = backend.allocate(measure.used());
  Placer place_device(logits_memory_);
  logits_ = place_logits(model, options_, place_device);
  host_logits_ = logits_;
  if (!backend.is_host()) {
    host_logits_memory_ = backend.allocate_staging(measure.used());
    Placer place_host(host_logits_memory_);
    host_logits_ = place_logits(model, options_, place_host);
  }
  auto* pages = inputs_.host().block_table.data<int32_t>();
  std::iota(pages, pages + inputs_.host().block_table.numel(), 0);
  device_inputs_.upload(inputs_, 1, inputs_.host().block_table.dim(1));
}

void Session::check_room(std::span<const int32_t> tokens) const {
  MM_CHECK(!tokens.empty(), "session: no tokens to append");
  const auto count = static_cast<int64_t>(tokens.size());
  if (length_ + count > options_.max_context) {
    fail(
        "the context is full: {} tokens in it, {} more asked for, {} is the limit; raise --max-model-len or "
        "shorten "
        "the prompt",
        length_, count, options_.max_context);
  }
  for (const int32_t id : tokens) {
    if (id < 0 || id >= model_.vocab_size()) {
      fail("token id {} is outside the model's vocabulary of {}", id, model_.vocab_size());
    }
  }
}

StepBatch Session::fill_batch(std::span<const int32_t> tokens, int64_t logits_rows) {
  const auto count = static_cast<int64_t>(tokens.size());
  // A first token has no state to read, which only prefill knows to start from zero.
  const bool is_decode = count == 1 && length_ > 0;
  const StepBatch batch = front(inputs_.host(), count, 1, logits_rows, is_decode);
  std::copy(tokens.begin(), tokens.end(), batch.token_ids.data<int32_t>());
  for (int64_t t = 0; t < count; ++t) {
    batch.positions.data<int32_t>()[t] = static_cast<int32_t>(length_ + t);
    batch.slot_mapping.data<int64_t>()[t] = length_ + t;
  }
  batch.query_starts.data<int32_t>()[0] = 0;
  batch.query_starts.data<int32_t>()[1] = static_cast<int32_t>(count);
  batch.seq_lens.data<int32_t>()[0] = static_cast<int32_t>(length_ + count);
  batch.state_read_slots.data<int32_t>()[0] = length_ == 0 ? -1 : 0;
  batch.state_write_slots.data<int32_t>()[0] = 0;
  for (int64_t r = 0; r < logits_rows; ++r) {
    batch.logits_rows.data<int32_t>()[r] = static_cast<int32_t>(count - logits_rows + r);
  }
  device_inputs_.upload(inputs_, 0, 0);
  return front(device_inputs_.batch(inputs_), count, 1, logits_rows, is_decode);
}

void Session::forward(const StepBatch& batch, const Tensor& logits) {
  ops::OpContext context{backend_, arena_, tracer_};
  // Decode steps differ in the content of their inputs alone: after the first one they are recorded, if the
  // backend can.
  if (!batch.is_decode || backend_.is_host() || tracer_ != nullptr)
    return model_.forward(context, batch, cache_, logits);
  if (decode_ == nullptr && ++decode_steps_ > 1)
    decode_ = backend_.capture([&] { model_.forward(context, batch, cache_, logits); });
  if (decode_ != nullptr) return decode_->launch();
  model_.forward(context, batch, cache_, logits);
}

Tensor Session::step(std::span<const int32_t> tokens, int64_t logits_rows) {
  const StepBatch batch = fill_batch(tokens, logits_rows);
  const Tensor logits = logits_.slice(0, 0, logits_rows);
  forward(batch, logits);
  length_ += static_cast<int64_t>(tokens.size());
  const Tensor host_logits = host_logits_.slice(0, 0, logits_rows);
  if (!backend_.is_host()) {
    backend_.download(host_logits.raw(), logits.raw(), logits.size_bytes());
    backend_.synchronize();
  }
  return host_logits;
}

std::span<const float> Session::append(std::span<const int32_t> tokens) {
  check_room(tokens);
  Tensor logits;
  while (!tokens.empty()) {
    const size_t count = std::min(tokens.size(), static_cast<size_t>(options_.prefill_chunk));
    logits = step(tokens.first(count), 1);
    tokens = tokens.subspan(count);
  }
  return {logits.data<float>(), static_cast<size_t>(model_.vocab_size())};
}

void Session::append_visiting(std::span<const int32_t> tokens,
                              const std::function<void(int64_t first, const Tensor& logits)>& visit) {
  check_room(tokens);
  const auto chunk = static_cast<size_t>(std::min(options_.prefill_chunk, options_.max_logits_rows));
  for (int64_t first = 0; !tokens.empty();) {
    const size_t count = std::min(tokens.size(), chunk);
    visit(first, step(tokens.first(count), static_cast<int64_t>(count)));
    first += static_cast<int64_t>(count);
    tokens = tokens.subspan(count);
  }
}

}  // namespace minimax::engine
