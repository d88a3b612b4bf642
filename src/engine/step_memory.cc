#include "engine/step_memory.h"

#include "cache/hybrid_cache.h"

namespace minimax::engine {

Tensor Placer::operator()(std::string_view name, DType dtype, std::initializer_list<int64_t> shape) {
  const Tensor tensor(base_ + used_, dtype, shape, name, device_);
  used_ += (tensor.size_bytes() + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
  return tensor;
}

models::ModelCache place_cache(const models::CacheLayout& layout, int64_t num_pages, int64_t num_slots,
                               Placer& place) {
  models::ModelCache cache;
  for (int64_t i = 0; i < layout.num_state_layers; ++i) {
    cache.states.push_back(
        place("state", DType::kF32, {num_slots, layout.num_state_heads, layout.head_dim, layout.head_dim}));
  }
  for (int64_t i = 0; i < layout.num_kv_layers; ++i) {
    const Tensor k = place("k_cache", layout.kv_dtype,
                           {num_pages, layout.page_size, layout.num_kv_heads, layout.head_dim});
    const Tensor v = place("v_cache", layout.kv_dtype,
                           {num_pages, layout.page_size, layout.num_kv_heads, layout.head_dim});
    cache.kv.push_back({k, v});
  }
  for (int64_t i = 0; i < layout.num_index_layers; ++i) {
    cache.index.push_back(
        place("index_cache", layout.index_dtype, {num_pages, layout.page_size, layout.index_dim}));
  }
  return cache;
}

models::StepBatch place_inputs(const StepShape& shape, Placer& place) {
  models::StepBatch batch;
  batch.token_ids = place("token_ids", DType::kI32, {shape.tokens});
  batch.positions = place("positions", DType::kI32, {shape.tokens});
  batch.query_starts = place("query_starts", DType::kI32, {shape.sequences + 1});
  batch.seq_lens = place("seq_lens", DType::kI32, {shape.sequences});
  batch.slot_mapping = place("slot_mapping", DType::kI64, {shape.tokens});
  batch.state_read_slots = place("state_read_slots", DType::kI32, {shape.sequences});
  batch.state_write_slots = place("state_write_slots", DType::kI32, {shape.sequences});
  constexpr int64_t kCheckpoints = cache::StepSlots::kMostCheckpoints;
  batch.state_checkpoint_rows = place("state_checkpoint_rows", DType::kI32, {shape.sequences, kCheckpoints});
  batch.state_checkpoint_slots =
      place("state_checkpoint_slots", DType::kI32, {shape.sequences, kCheckpoints});
  batch.logits_rows = place("logits_rows", DType::kI32, {shape.logits_rows});
  batch.block_table = place("block_table", DType::kI32, {shape.sequences, shape.pages});
  return batch;
}

models::StepBatch front(const models::StepBatch& inputs, int64_t tokens, int64_t sequences,
                        int64_t logits_rows, bool is_decode) {
  models::StepBatch batch = inputs;
  batch.token_ids = inputs.token_ids.slice(0, 0, tokens);
  batch.positions = inputs.positions.slice(0, 0, tokens);
  batch.query_starts = inputs.query_starts.slice(0, 0, sequences + 1);
  batch.seq_lens = inputs.seq_lens.slice(0, 0, sequences);
  batch.block_table = inputs.block_table.slice(0, 0, sequences);
  batch.slot_mapping = inputs.slot_mapping.slice(0, 0, tokens);
  batch.state_read_slots = inputs.state_read_slots.slice(0, 0, sequences);
  batch.state_write_slots = inputs.state_write_slots.slice(0, 0, sequences);
  batch.state_checkpoint_rows = batch.state_checkpoint_slots = {};
  batch.logits_rows = inputs.logits_rows.slice(0, 0, logits_rows);
  batch.is_decode = is_decode;
  return batch;
}

namespace {

struct Sides {
  Tensor starts;
  models::StepBatch batch;
};

Sides place_sides(const StepShape& shape, int64_t starts, Placer& place) {
  const Tensor all_starts = place("query_starts", DType::kI32, {starts});
  return {all_starts, place_inputs(shape, place)};
}

}  // namespace

int64_t StepInputs::bytes(const StepShape& shape, int64_t starts) {
  Placer place(nullptr);
  place_sides(shape, starts, place);
  return place.used();
}

StepInputs::StepInputs(const StepShape& shape, int64_t starts, ops::Backend& backend)
    : memory_(backend.allocate_staging(bytes(shape, starts))) {
  Placer place(memory_);
  const Sides sides = place_sides(shape, starts, place);
  host_ = sides.batch;
  host_starts_ = sides.starts;
}

DeviceInputs::DeviceInputs(const StepShape& shape, int64_t starts, ops::Backend& backend)
    : backend_(backend), is_host_(backend.is_host()) {
  if (is_host_) return;
  memory_ = backend.allocate(StepInputs::bytes(shape, starts));
  Placer place(memory_);
  const Sides sides = place_sides(shape, starts, place);
  device_ = sides.batch;
  device_starts_ = sides.starts;
}

void DeviceInputs::upload(const StepInputs& host, int64_t sequences, int64_t pages) {
  if (is_host_) return;
  const Tensor& table = host.host_.block_table;
  const auto small = static_cast<const std::byte*>(table.raw()) - host.memory_.data();
  backend_.upload(memory_.data(), host.memory_.data(), small);
  const auto width = static_cast<int64_t>(sizeof(int32_t));
  backend_.upload_rows(device_.block_table.raw(), table.raw(), pages * width, table.stride(0) * width,
                       sequences);
}

}  // namespace minimax::engine
