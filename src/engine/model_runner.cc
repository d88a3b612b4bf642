#include "engine/model_runner.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace minimax::engine {
namespace {

using models::Model;
using models::StepBatch;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

StepShape largest_step(const models::CacheLayout& layout, const RunnerOptions& options) {
  return {options.max_batched_tokens, options.max_sequences,
          ceil_div(options.max_model_len, layout.page_size), options.max_logits_rows};
}

int64_t num_starts(const StepShape& shape) { return 2 * shape.sequences; }

// Rows of a recorded step for `rows` sequences: few sizes, and few rows of padding.
int64_t recorded_rows(int64_t rows) {
  if (rows <= 8) return rows;
  const int64_t grain = std::bit_floor(static_cast<uint64_t>(rows - 1)) / 4;
  return ceil_div(rows, grain) * grain;
}

int64_t state_layer_bytes(const models::CacheLayout& layout) {
  return layout.num_state_layers == 0 ? 0 : layout.state_bytes(1) / layout.num_state_layers;
}

}  // namespace

StepBuffers::StepBuffers(const StepShape& shape, ops::Backend& backend, int64_t vocab_size,
                         int64_t vocab_limit)
    : sampling(backend, shape.logits_rows, vocab_size, vocab_limit),
      inputs(shape, num_starts(shape), backend),
      held_pages(static_cast<size_t>(shape.sequences)) {
  rows.reserve(static_cast<size_t>(shape.logits_rows));
  groups.reserve(static_cast<size_t>(shape.sequences));
  patches.reserve(static_cast<size_t>(shape.sequences));
}

MemoryPlan ModelRunner::plan(const Model& model, ops::Backend& backend, const RunnerOptions& options) {
  const models::CacheLayout layout = model.cache_layout();
  const StepShape shape = largest_step(layout, options);
  MemoryPlan plan;
  plan.kv_cache_bytes = layout.kv_bytes(options.num_pages);
  plan.index_cache_bytes = layout.index_bytes(options.num_pages);
  plan.linear_state_bytes = layout.state_bytes(options.num_slots);
  plan.host_state_bytes = layout.state_bytes(options.num_host_slots);
  plan.buffer_bytes =
      2 * StepInputs::bytes(shape, num_starts(shape)) + options.max_logits_rows * model.vocab_size() * 4;

  Placer place(nullptr, backend.device());
  const models::ModelCache cache = place_cache(layout, options.num_pages, options.num_slots, place);
  const StepBatch inputs = place_inputs(shape, place);
  const Tensor logits(nullptr, DType::kF32, {options.max_logits_rows, model.vocab_size()}, "logits",
                      backend.device());
  Arena arena(backend.device());
  ops::OpContext context{backend, arena, nullptr};
  const auto dry_run = [&](int64_t tokens, int64_t sequences, int64_t rows, bool is_decode) {
    model.forward(context, front(inputs, tokens, sequences, rows, is_decode), cache,
                  logits.slice(0, 0, rows));
  };
  const int64_t sequences = std::min(options.max_sequences, options.max_batched_tokens);
  dry_run(options.max_batched_tokens, sequences, options.max_logits_rows, false);
  dry_run(options.max_batched_tokens, 1, options.max_logits_rows, false);
  dry_run(sequences, sequences, sequences, true);
  dry_run(1, 1, 1, true);
  if (!backend.is_host()) {
    for (int64_t rows = 1; rows <= sequences; ++rows)
      if (recorded_rows(rows) == rows) dry_run(rows, rows, rows, true);
  }
  plan.activation_bytes = arena.peak_bytes();
  return plan;
}

ModelRunner::ModelRunner(const Model& model, ops::Backend& backend, const RunnerOptions& options)
    : model_(model),
      backend_(backend),
      options_(options),
      layout_(model.cache_layout()),
      memory_plan_(plan(model, backend, options)),
      arena_(backend.allocate(std::max<int64_t>(memory_plan_.activation_bytes, Arena::kAlignment))),
      device_inputs_(largest_step(layout_, options), num_starts(largest_step(layout_, options)), backend),
      host_states_(backend.allocate_staging(memory_plan_.host_state_bytes)),
      logits_memory_(backend.allocate(options.max_logits_rows * model.vocab_size() * 4)),
      logits_(logits_memory_.data(), DType::kF32, {options.max_logits_rows, model.vocab_size()}, "logits",
              backend.device()) {
  Placer measure(nullptr);
  place_cache(layout_, options.num_pages, options.num_slots, measure);
  cache_memory_ = backend.allocate(measure.used());
  Placer place(cache_memory_);
  cache_ = place_cache(layout_, options.num_pages, options.num_slots, place);
  last_tokens_.reserve(static_cast<size_t>(options.max_logits_rows));
}

std::unique_ptr<StepBuffers> ModelRunner::make_buffers() const {
  return std::make_unique<StepBuffers>(largest_step(layout_, options_), backend_, model_.vocab_size(),
                                       options_.vocab_limit);
}

void ModelRunner::prepare(const StepPlan& plan, std::span<const SequenceView> views,
                          const StepBuffers* previous, StepBuffers& step) const {
  step.rows.clear();
  step.groups.clear();
  step.patches.clear();
  step.mask_jobs.clear();
  step.sampling.clear();
  step.copies = plan.copies;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    prepare_sequence(plan.sequences[i], views[i], previous, step);
  }
}

StepBuffers::Group& ModelRunner::group_for(const ScheduledSequence& s, StepBuffers& step) const {
  // A first token has no state to read, which only prefill knows to start from zero.
  const bool is_decode = s.count == 1 && s.first > 0;
  const int64_t most = options_.is_deterministic ? backend_.invariant_decode_rows() : options_.max_sequences;
  const StepBuffers::Group* last = step.groups.empty() ? nullptr : &step.groups.back();
  const bool joins = last != nullptr && last->num_sequences < most &&
                     (!options_.is_deterministic || (last->is_decode && is_decode));
  if (!joins) {
    StepBuffers::Group group;
    if (last != nullptr) {
      group.first_sequence = last->first_sequence + last->num_sequences;
      group.first_token = last->first_token + last->num_tokens;
      group.first_row = last->first_row + last->num_rows;
    }
    group.is_decode = true;
    step.inputs.host_starts().data<int32_t>()[group.first_sequence + std::ssize(step.groups)] = 0;
    step.groups.push_back(group);
  }
  step.groups.back().is_decode = step.groups.back().is_decode && is_decode;
  return step.groups.back();
}

void ModelRunner::prepare_sequence(const ScheduledSequence& s, const SequenceView& view,
                                   const StepBuffers* previous, StepBuffers& step) const {
  StepBuffers::Group& group = group_for(s, step);
  const int64_t b = group.first_sequence + group.num_sequences;
  const int64_t first_token = group.first_token + group.num_tokens;
  const auto first_row = static_cast<int64_t>(step.rows.size());
  const StepBatch& inputs = step.inputs.host();
  inputs.seq_lens.data<int32_t>()[b] = static_cast<int32_t>(s.first + s.count);
  prepare_states(b, s, group, step);
  prepare_pages(b, *view.cached, step);
  const int64_t page_size = layout_.page_size;
  for (int64_t i = 0; i < s.count; ++i) {
    const int64_t t = first_token + i;
    const int64_t position = s.first + i;
    const int64_t page = view.cached->pages[static_cast<size_t>(position / page_size)];
    inputs.token_ids.data<int32_t>()[t] = s.continues_step ? -1 : view.tokens[static_cast<size_t>(position)];
    inputs.positions.data<int32_t>()[t] = static_cast<int32_t>(position);
    inputs.slot_mapping.data<int64_t>()[t] =
        position < s.write_from ? -1 : page * page_size + position % page_size;
  }
  prepare_rows(s, view, group, step);
  ++group.num_sequences;
  group.num_tokens += s.count;
  step.inputs.host_starts().data<int32_t>()[b + std::ssize(step.groups)] =
      static_cast<int32_t>(group.num_tokens);

  if (!s.continues_step) return;
  MM_CHECK(previous != nullptr, "request {} continues a step that is not there", s.id);
  // Mostly the sequence has the same row as in the step before.
  const auto& rows = previous->rows;
  const auto is_its = [&](const StepRow& row) { return row.id == s.id && !row.is_prompt; };
  auto row = rows.begin() + std::min(first_row, std::ssize(rows));
  if (row == rows.end() || !is_its(*row)) row = std::find_if(rows.begin(), rows.end(), is_its);
  MM_CHECK(row != rows.end(), "the step before gives no token to request {}", s.id);
  StepBuffers::Patch patch{first_token, s.gives_token ? first_row : -1, row - rows.begin()};
  if (s.gives_token && view.constrained != nullptr) patch.mask_job = std::ssize(step.mask_jobs) - 1;
  step.patches.push_back(patch);
}

void ModelRunner::prepare_states(int64_t row, const ScheduledSequence& s, StepBuffers::Group& group,
                                 StepBuffers& step) {
  const StepBatch& inputs = step.inputs.host();
  inputs.state_read_slots.data<int32_t>()[row] = s.slots.read;
  inputs.state_write_slots.data<int32_t>()[row] = s.slots.write;
  auto* rows = inputs.state_checkpoint_rows.row<int32_t>(row);
  auto* slots = inputs.state_checkpoint_slots.row<int32_t>(row);
  for (int i = 0; i < cache::StepSlots::kMostCheckpoints; ++i) {
    const auto& checkpoint = s.slots.checkpoints[static_cast<size_t>(i)];
    const bool is_there = i < s.slots.num_checkpoints;
    rows[i] = is_there ? static_cast<int32_t>(checkpoint.length - s.first) : INT32_MAX;
    slots[i] = is_there ? checkpoint.slot : -1;
  }
  group.has_checkpoints = group.has_checkpoints || s.slots.num_checkpoints > 0;
}

void ModelRunner::prepare_pages(int64_t row, const cache::CachedSequence& cached, StepBuffers& step) const {
  auto& held = step.held_pages[static_cast<size_t>(row)];
  const auto count = static_cast<int64_t>(cached.pages.size());
  const int64_t kept = held.stamp == cached.pages_stamp ? std::min(held.count, count) : 0;
  std::copy(cached.pages.begin() + kept, cached.pages.end(),
            step.inputs.host().block_table.row<int32_t>(row) + kept);
  held = {cached.pages_stamp, count};
}

void ModelRunner::prepare_rows(const ScheduledSequence& s, const SequenceView& view,
                               StepBuffers::Group& group, StepBuffers& step) const {
  const int64_t first_token = group.num_tokens;  // rows count within their group
  const auto add = [&](int64_t i, const SamplingRow& row, bool is_prompt) {
    step.inputs.host().logits_rows.data<int32_t>()[step.rows.size()] = static_cast<int32_t>(first_token + i);
    step.rows.push_back({s.id, s.first + i + 1, is_prompt});
    step.sampling.add(row);
    ++group.num_rows;
  };
  SamplingRow row{view.sampling, view.tokens, view.prompt_length, s.num_generated, view.banned};
  row.num_top = view.sampling->top_logprobs;
  row.awaits_token = s.continues_step;
  if (s.wants_all_logits) {
    const int64_t end = std::min(s.count, view.prompt_length - 1 - s.first);
    for (int64_t i = 0; i < end; ++i) {
      SamplingRow forced = row;
      forced.num_top = view.prompt_top_logprobs;
      forced.forced = view.tokens[static_cast<size_t>(s.first + i + 1)];
      add(i, forced, true);
    }
  }
  if (!s.gives_token) return;
  if (view.constrained != nullptr) {
    row.has_mask = true;
    MaskJob job{view.constrained, std::ssize(step.rows), s.num_generated};
    if (!s.continues_step && s.num_generated > 0) job.last_token = view.tokens.back();
    job.bans_stop = view.bans_stop;
    step.mask_jobs.push_back(std::move(job));
  }
  add(s.count - 1, row, false);
}

// The masks of this step need the tokens of the one before and nothing of this one.
void ModelRunner::begin_masks(StepBuffers& step) {
  if (step.mask_jobs.empty()) return;
  if (mask_worker_ == nullptr) mask_worker_ = std::make_unique<MaskWorker>();
  for (MaskJob& job : step.mask_jobs) {
    job.mask = step.sampling.mask(job.row);
    job.num_tokens = options_.vocab_limit;
  }
  mask_worker_->begin(step.mask_jobs);
}

void ModelRunner::copy_states(const std::vector<cache::StateCopy>& copies) {
  const int64_t bytes = state_layer_bytes(layout_);
  for (const cache::StateCopy& copy : copies) {
    for (int64_t l = 0; l < layout_.num_state_layers; ++l) {
      auto* device =
          static_cast<std::byte*>(cache_.states[static_cast<size_t>(l)].raw()) + copy.device_slot * bytes;
      std::byte* host = host_states_.data() + (copy.host_slot * layout_.num_state_layers + l) * bytes;
      const bool saves = copy.direction == cache::StateCopy::Direction::kToHost;
      if (backend_.is_host()) {
        std::memcpy(saves ? host : device, saves ? device : host, static_cast<size_t>(bytes));
      } else if (saves) {
        backend_.download(host, device, bytes);
      } else {
        backend_.upload(device, host, bytes);
      }
    }
  }
}

StepBatch ModelRunner::batch_of(const StepBuffers& step, size_t index) const {
  const StepBuffers::Group& group = step.groups[index];
  const int64_t first = group.first_sequence;
  const int64_t end = first + group.num_sequences;
  const int64_t first_start = first + static_cast<int64_t>(index);
  const int64_t last_token = group.first_token + group.num_tokens;
  const StepBatch& inputs = device_inputs_.batch(step.inputs);
  StepBatch batch;
  batch.token_ids = inputs.token_ids.slice(0, group.first_token, last_token);
  batch.positions = inputs.positions.slice(0, group.first_token, last_token);
  batch.query_starts =
      device_inputs_.starts(step.inputs).slice(0, first_start, first_start + group.num_sequences + 1);
  batch.seq_lens = inputs.seq_lens.slice(0, first, end);
  batch.block_table = inputs.block_table.slice(0, first, end);
  batch.slot_mapping = inputs.slot_mapping.slice(0, group.first_token, last_token);
  batch.state_read_slots = inputs.state_read_slots.slice(0, first, end);
  batch.state_write_slots = inputs.state_write_slots.slice(0, first, end);
  if (group.has_checkpoints) {
    batch.state_checkpoint_rows = inputs.state_checkpoint_rows.slice(0, first, end);
    batch.state_checkpoint_slots = inputs.state_checkpoint_slots.slice(0, first, end);
  }
  batch.logits_rows = inputs.logits_rows.slice(0, group.first_row, group.first_row + group.num_rows);
  batch.is_decode = group.is_decode;
  return batch;
}

void ModelRunner::execute(StepBuffers& step) {
  copy_states(step.copies);
  for (const StepBuffers::Patch& patch : step.patches) {
    const int32_t token = last_tokens_.at(static_cast<size_t>(patch.previous_row));
    step.inputs.host().token_ids.data<int32_t>()[patch.token] = token;
    if (patch.row >= 0) step.sampling.supply(patch.row, token);
    if (patch.mask_job >= 0) step.mask_jobs[static_cast<size_t>(patch.mask_job)].last_token = token;
  }
  begin_masks(step);
  // The worker must be done with this step also when the model fails.
  struct Wait {
    MaskWorker* worker;
    ~Wait() {
      if (worker != nullptr) worker->wait();
    }
  } wait{step.mask_jobs.empty() ? nullptr : mask_worker_.get()};
  const auto num_rows = static_cast<int64_t>(step.rows.size());
  if (!launch_recorded(step)) {
    forward(step);
    if (wait.worker != nullptr) wait.worker->wait();
    if (num_rows > 0) step.sampling.run(logits_.slice(0, 0, num_rows));
  }
  last_tokens_.clear();
  for (int64_t row = 0; row < num_rows; ++row) last_tokens_.push_back(step.sampling.token(row));
  // The step's buffers are written again once this returns. What was drawn has been waited for already.
  if (num_rows == 0) backend_.synchronize();
}

void ModelRunner::forward(StepBuffers& step) {
  if (!backend_.is_host()) upload_inputs(step);
  ops::OpContext context{backend_, arena_, tracer_};
  for (size_t i = 0; i < step.groups.size(); ++i) {
    const StepBuffers::Group& group = step.groups[i];
    model_.forward(context, batch_of(step, i), cache_,
                   logits_.slice(0, group.first_row, group.first_row + group.num_rows));
  }
}

void ModelRunner::upload_inputs(const StepBuffers& step) {
  const int64_t sequences =
      step.groups.empty() ? 0 : step.groups.back().first_sequence + step.groups.back().num_sequences;
  int64_t pages = 0;
  for (int64_t row = 0; row < sequences; ++row)
    pages = std::max(pages, step.held_pages[static_cast<size_t>(row)].count);
  device_inputs_.upload(step.inputs, sequences, pages);
}

bool ModelRunner::can_record(int64_t rows) const {
  return rows <= options_.max_sequences && rows <= options_.max_batched_tokens &&
         rows <= options_.max_logits_rows;
}

bool ModelRunner::launch_recorded(StepBuffers& step) {
  if (backend_.is_host() || step.groups.size() != 1 || tracer_ != nullptr) return false;
  const StepBuffers::Group& group = step.groups.front();
  const int64_t rows = recorded_rows(group.num_sequences);
  if (!group.is_decode || group.num_rows != group.num_sequences || !can_record(rows) ||
      !step.sampling.can_be_recorded())
    return false;
  launch_decode(step, rows);
  step.sampling.download();
  return true;
}

void ModelRunner::pad(StepBuffers& step, int64_t sequences, int64_t rows) {
  const StepBatch& host = step.inputs.host();
  auto* starts = step.inputs.host_starts().data<int32_t>();
  for (int64_t row = sequences; row < rows; ++row) {
    host.token_ids.data<int32_t>()[row] = -1;
    host.positions.data<int32_t>()[row] = 0;
    host.slot_mapping.data<int64_t>()[row] = -1;
    host.seq_lens.data<int32_t>()[row] = 0;
    host.state_read_slots.data<int32_t>()[row] = -1;
    host.state_write_slots.data<int32_t>()[row] = -1;
    host.logits_rows.data<int32_t>()[row] = -1;
    starts[row + 1] = static_cast<int32_t>(sequences);
  }
}

void ModelRunner::launch_decode(StepBuffers& step, int64_t rows) {
  const int64_t sequences = step.groups.empty() ? 0 : step.groups.front().num_sequences;
  pad(step, sequences, rows);
  upload_inputs(step);
  step.sampling.upload();
  const auto run = [&] {
    ops::OpContext context{backend_, arena_, nullptr};
    StepBatch batch = front(device_inputs_.batch(step.inputs), rows, rows, rows, true);
    batch.query_starts = device_inputs_.starts(step.inputs).slice(0, 0, rows + 1);
    const Tensor logits = logits_.slice(0, 0, rows);
    model_.forward(context, batch, cache_, logits);
    step.sampling.draw(logits, rows);
  };
  // Everything an op makes at its first call is there once the step has run as it is.
  StepBuffers::Recording& recording = step.recordings[rows];
  const bool is_new = recording.graph == nullptr;
  if (is_new) run();
  if (is_new || recording.generation != step.sampling.generation()) {
    recording.graph = backend_.capture(run);
    recording.generation = step.sampling.generation();
  }
  if (!is_new) recording.graph->launch();
}

void ModelRunner::record_decodes(StepBuffers& step) {
  if (backend_.is_host()) return;
  MM_CHECK(step.groups.empty() && step.rows.empty(), "buffers of a step in use");
  for (int64_t rows = std::min(options_.max_sequences, options_.max_logits_rows); rows > 0; --rows) {
    if (recorded_rows(rows) == rows && can_record(rows)) launch_decode(step, rows);
  }
  backend_.synchronize();
}

}  // namespace minimax::engine
