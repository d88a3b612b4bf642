#include "engine/sampling.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

namespace minimax::engine {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();
const SamplingParams kNeutral;

void check_range(const char* name, float value, float low, float high) {
  if (!(value >= low && value <= high))
    fail("{} is {}; it must be between {} and {}", name, value, low, high);
}

template <typename T>
Tensor view(const std::vector<T>& data, DType dtype) {
  return Tensor(const_cast<T*>(data.data()), dtype, {static_cast<int64_t>(data.size())});
}

using Member = Tensor ops::Sample::*;

// Operands of the sampling op with a number for each row, and with one for some rows or many.
constexpr std::array<Member, 14> kRowInputs = {&ops::Sample::temperature,
                                               &ops::Sample::top_k,
                                               &ops::Sample::top_p,
                                               &ops::Sample::min_p,
                                               &ops::Sample::repetition_penalty,
                                               &ops::Sample::presence_penalty,
                                               &ops::Sample::frequency_penalty,
                                               &ops::Sample::seed,
                                               &ops::Sample::counter,
                                               &ops::Sample::history_starts,
                                               &ops::Sample::prompt_lens,
                                               &ops::Sample::forced_ids,
                                               &ops::Sample::bias_starts,
                                               &ops::Sample::allowed_rows};
constexpr std::array<Member, 2> kRowOutputs = {&ops::Sample::tokens, &ops::Sample::logprobs};
constexpr std::array<Member, 6> kLists = {&ops::Sample::history_ids, &ops::Sample::bias_ids,
                                          &ops::Sample::bias_values, &ops::Sample::allowed,
                                          &ops::Sample::top_ids,     &ops::Sample::top_logprobs};

// Bytes of a row array for at most so many rows: ends of lists are one more than rows, of 8 bytes each.
int64_t slot_bytes(int64_t max_rows) {
  return ((max_rows + 1) * 8 + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

}  // namespace

void SamplingParams::check() const {
  check_range("temperature", temperature, 0.0F, 100.0F);
  check_range("top_p", top_p, 0.0F, 1.0F);
  check_range("min_p", min_p, 0.0F, 1.0F);
  check_range("repetition_penalty", repetition_penalty, 1e-3F, 100.0F);
  check_range("presence_penalty", presence_penalty, -2.0F, 2.0F);
  check_range("frequency_penalty", frequency_penalty, -2.0F, 2.0F);
  if (top_k < -1) fail("top_k is {}; it must be 0 or -1 (off) or a positive count", top_k);
  if (top_logprobs < 0) fail("top_logprobs is {}; it must not be negative", top_logprobs);
  for (const auto& [id, value] : logit_bias) {
    if (!std::isfinite(value)) fail("logit_bias of token {} is {}; it must be finite", id, value);
  }
}

SamplingBatch::SamplingBatch(ops::Backend& backend, int64_t max_rows, int64_t vocab_size, int64_t vocab_limit)
    : backend_(backend), max_rows_(max_rows), vocab_limit_(vocab_limit) {
  const auto rows = static_cast<size_t>(max_rows);
  for (auto* values : {&temperature_, &top_p_, &min_p_, &repetition_, &presence_, &frequency_, &logprobs_}) {
    values->reserve(rows);
  }
  for (auto* values : {&top_k_, &forced_, &num_top_, &mask_rows_, &tokens_}) values->reserve(rows);
  for (auto* values : {&seed_, &counter_, &prompt_lengths_}) values->reserve(rows);
  for (auto* starts : {&history_starts_, &bias_starts_}) starts->reserve(rows + 1);

  clear();
  SamplingRow neutral;
  neutral.params = &kNeutral;
  for (int64_t row = 0; row < max_rows; ++row) add(neutral);
  Arena plan(backend.device());
  ops::OpContext context{backend_, plan, nullptr};
  ops::Sample args = arguments(Tensor(nullptr, DType::kF32, {max_rows, vocab_size}));
  const auto forget = [&](const auto& members) {
    for (const auto member : members) args.*member = (args.*member).moved(nullptr, {});
  };
  forget(kRowInputs);
  forget(kRowOutputs);
  forget(kLists);
  ops::sample(context, args);
  arena_ = Arena(backend.allocate(std::max<int64_t>(plan.peak_bytes(), Arena::kAlignment)));
  clear();
}

void SamplingBatch::clear() {
  for (auto* values :
       {&temperature_, &top_p_, &min_p_, &repetition_, &presence_, &frequency_, &bias_values_}) {
    values->clear();
  }
  for (auto* values : {&top_k_, &forced_, &history_, &bias_ids_, &num_top_, &mask_rows_}) values->clear();
  for (auto* values : {&seed_, &counter_, &prompt_lengths_}) values->clear();
  for (auto* starts : {&history_starts_, &bias_starts_}) starts->assign(1, 0);
  most_top_ = 0;
  num_masks_ = 0;
}

void SamplingBatch::add(const SamplingRow& row) {
  MM_CHECK(size() < max_rows_, "more than {} rows to sample", max_rows_);
  const bool is_forced = row.forced >= 0;
  const SamplingParams& params = is_forced ? kNeutral : *row.params;
  temperature_.push_back(params.temperature);
  top_p_.push_back(params.top_p);
  min_p_.push_back(params.min_p);
  repetition_.push_back(params.repetition_penalty);
  presence_.push_back(params.presence_penalty);
  frequency_.push_back(params.frequency_penalty);
  top_k_.push_back(params.top_k);
  forced_.push_back(row.forced);
  const auto top = static_cast<int32_t>(std::min<int64_t>(row.num_top, vocab_limit_));
  num_top_.push_back(top);
  most_top_ = std::max<int64_t>(most_top_, top);
  seed_.push_back(params.seed);
  counter_.push_back(row.num_generated);
  prompt_lengths_.push_back(row.prompt_length);
  if (params.has_penalties()) {
    history_.insert(history_.end(), row.tokens.begin(), row.tokens.end());
    if (row.awaits_token) history_.push_back(-1);
  }
  history_starts_.push_back(static_cast<int64_t>(history_.size()));
  for (const auto& [id, value] : params.logit_bias) {
    bias_ids_.push_back(id);
    bias_values_.push_back(value);
  }
  for (const int32_t id : row.banned) {
    bias_ids_.push_back(id);
    bias_values_.push_back(kBanned);
  }
  bias_starts_.push_back(static_cast<int64_t>(bias_ids_.size()));
  mask_rows_.push_back(row.has_mask ? static_cast<int32_t>(num_masks_++) : -1);
  const auto masks = static_cast<size_t>(num_masks_ * mask_words());
  if (masks_.size() < masks) masks_.resize(masks);
}

void SamplingBatch::supply(int64_t row, int32_t token) {
  const auto end = static_cast<size_t>(history_starts_[static_cast<size_t>(row) + 1]);
  const auto start = static_cast<size_t>(history_starts_[static_cast<size_t>(row)]);
  if (end > start) history_[end - 1] = token;
}

std::span<uint64_t> SamplingBatch::mask(int64_t row) {
  const int32_t mask = mask_rows_[static_cast<size_t>(row)];
  MM_CHECK(mask >= 0, "row {} has no mask", row);
  return std::span(masks_).subspan(static_cast<size_t>(mask * mask_words()),
                                   static_cast<size_t>(mask_words()));
}

ops::Sample SamplingBatch::arguments(const Tensor& logits) {
  const auto rows = static_cast<size_t>(size());
  const size_t tops = rows * static_cast<size_t>(most_top_);
  tokens_.resize(rows);
  logprobs_.resize(rows);
  if (top_ids_.size() < tops) {
    top_ids_.resize(tops);
    top_logprobs_.resize(tops);
  }
  ops::Sample args;
  args.logits = logits;
  args.vocab_limit = vocab_limit_;
  args.temperature = view(temperature_, DType::kF32);
  args.top_k = view(top_k_, DType::kI32);
  args.top_p = view(top_p_, DType::kF32);
  args.min_p = view(min_p_, DType::kF32);
  args.repetition_penalty = view(repetition_, DType::kF32);
  args.presence_penalty = view(presence_, DType::kF32);
  args.frequency_penalty = view(frequency_, DType::kF32);
  args.seed = view(seed_, DType::kI64);
  args.counter = view(counter_, DType::kI64);
  args.history_ids = view(history_, DType::kI32);
  args.history_starts = view(history_starts_, DType::kI64);
  args.prompt_lens = view(prompt_lengths_, DType::kI64);
  args.forced_ids = view(forced_, DType::kI32);
  args.bias_ids = view(bias_ids_, DType::kI32);
  args.bias_values = view(bias_values_, DType::kF32);
  args.bias_starts = view(bias_starts_, DType::kI64);
  if (num_masks_ > 0) {
    args.allowed = Tensor(masks_.data(), DType::kI64, {num_masks_, mask_words()});
    args.allowed_rows = view(mask_rows_, DType::kI32);
  }
  args.tokens = view(tokens_, DType::kI32);
  args.logprobs = view(logprobs_, DType::kF32);
  args.top_ids = Tensor(top_ids_.data(), DType::kI32, {size(), most_top_});
  args.top_logprobs = Tensor(top_logprobs_.data(), DType::kF32, {size(), most_top_});
  return args;
}

void SamplingBatch::run(const Tensor& logits) {
  if (!backend_.is_host()) {
    upload();
    draw(logits, size());
    return download();
  }
  ops::OpContext context{backend_, arena_, nullptr};
  ops::sample(context, arguments(logits));
}

// A row's neutral numbers are zeros, ends of lists that end where the last row's do, and no forced token.
void SamplingBatch::upload_rows(const ops::Sample& args) {
  const int64_t slot = slot_bytes(max_rows_);
  if (rows_device_.data() == nullptr) {
    const auto bytes = static_cast<int64_t>(kRowInputs.size() + kRowOutputs.size()) * slot;
    rows_staging_ = backend_.allocate_staging(bytes);
    rows_device_ = backend_.allocate(bytes);
  }
  std::byte* at = rows_staging_.data();
  for (const auto member : kRowInputs) {
    const Tensor& values = args.*member;
    std::memset(at, 0, static_cast<size_t>(slot));
    if (values.defined()) std::memcpy(at, values.raw(), static_cast<size_t>(values.size_bytes()));
    if (member == &ops::Sample::history_starts || member == &ops::Sample::bias_starts) {
      auto* starts = reinterpret_cast<int64_t*>(at);
      std::fill(starts + size() + 1, starts + max_rows_ + 1, starts[size()]);
    } else if (member == &ops::Sample::forced_ids) {
      auto* ids = reinterpret_cast<int32_t*>(at);
      std::fill(ids + size(), ids + max_rows_, -1);
    }
    at += slot;
  }
  backend_.upload(rows_device_.data(), rows_staging_.data(), static_cast<int64_t>(kRowInputs.size()) * slot);
}

void SamplingBatch::upload_list(size_t list, const Tensor& values) {
  const int64_t bytes = values.defined() ? values.size_bytes() : 0;
  List& memory = lists_[list];
  if (bytes > memory.device.size_bytes() || memory.device.data() == nullptr) {
    // Twice as long, so that a history that grows by a token a step seldom moves.
    constexpr int64_t kLeastBytes = int64_t{16} << 10U;
    memory.staging = backend_.allocate_staging(std::max(2 * bytes, kLeastBytes));
    memory.device = backend_.allocate(std::max(2 * bytes, kLeastBytes));
    ++generation_;
  }
  if (bytes == 0) return;
  std::memcpy(memory.staging.data(), values.raw(), static_cast<size_t>(bytes));
  backend_.upload(memory.device.data(), memory.staging.data(), bytes);
}

void SamplingBatch::upload() {
  const ops::Sample args = arguments(Tensor(nullptr, DType::kF32, {size(), vocab_limit_}));
  upload_rows(args);
  lists_.resize(kLists.size());
  for (size_t i = 0; i < kLists.size(); ++i) upload_list(i, args.*kLists[i]);
}

void SamplingBatch::draw(const Tensor& logits, int64_t rows) {
  const int64_t slot = slot_bytes(max_rows_);
  const Device device = rows_device_.device();
  ops::Sample args = arguments(logits);
  std::byte* at = rows_device_.data();
  const auto place_row = [&](Tensor& t) {
    const bool is_starts = &t == &args.history_starts || &t == &args.bias_starts;
    t = Tensor(at, t.dtype(), {rows + (is_starts ? 1 : 0)}, t.name(), device);
    at += slot;
  };
  for (const auto member : kRowInputs) {
    if ((args.*member).defined()) {
      place_row(args.*member);
    } else {
      at += slot;
    }
  }
  for (const auto member : kRowOutputs) place_row(args.*member);
  for (size_t i = 0; i < kLists.size(); ++i) {
    Tensor& t = args.*kLists[i];
    if (!t.defined()) continue;
    // Lists that a recorded step reads are as long as there is room: where a row's part ends is said
    // elsewhere.
    const Memory& memory = lists_[i].device;
    if (kLists[i] == &ops::Sample::top_ids || kLists[i] == &ops::Sample::top_logprobs) {
      t = Tensor(memory.data(), t.dtype(), {rows, most_top_}, t.name(), device);
    } else if (t.rank() == 1) {
      t = Tensor(memory.data(), t.dtype(), {memory.size_bytes() / size_of(t.dtype())}, t.name(), device);
    } else {
      t = t.moved(memory.data(), device);
    }
  }
  // Ids and values of biases pair up.
  const int64_t biases = std::min(args.bias_ids.dim(0), args.bias_values.dim(0));
  args.bias_ids = args.bias_ids.slice(0, 0, biases);
  args.bias_values = args.bias_values.slice(0, 0, biases);
  ops::OpContext context{backend_, arena_, nullptr};
  ops::sample(context, args);
}

void SamplingBatch::download() {
  const int64_t slot = slot_bytes(max_rows_);
  const int64_t outputs = static_cast<int64_t>(kRowInputs.size()) * slot;
  backend_.download(rows_staging_.data() + outputs, rows_device_.data() + outputs,
                    static_cast<int64_t>(kRowOutputs.size()) * slot);
  const auto tops = static_cast<int64_t>(sizeof(float)) * size() * most_top_;
  for (size_t i = kLists.size() - 2; tops > 0 && i < kLists.size(); ++i)
    backend_.download(lists_[i].staging.data(), lists_[i].device.data(), tops);
  backend_.synchronize();
  std::memcpy(tokens_.data(), rows_staging_.data() + outputs, tokens_.size() * sizeof(int32_t));
  std::memcpy(logprobs_.data(), rows_staging_.data() + outputs + slot, tokens_.size() * sizeof(float));
  if (tops == 0) return;
  std::memcpy(top_ids_.data(), lists_[kLists.size() - 2].staging.data(), static_cast<size_t>(tops));
  std::memcpy(top_logprobs_.data(), lists_[kLists.size() - 1].staging.data(), static_cast<size_t>(tops));
}

SampledToken SamplingBatch::sampled(int64_t row) const {
  const auto r = static_cast<size_t>(row);
  SampledToken result{tokens_[r], logprobs_[r], {}};
  for (int32_t i = 0; i < num_top_[r]; ++i) {
    const size_t at = r * static_cast<size_t>(most_top_) + static_cast<size_t>(i);
    if (top_logprobs_[at] == kBanned) break;  // nothing else could be drawn
    result.top.emplace_back(top_ids_[at], top_logprobs_[at]);
  }
  return result;
}

Sampler::Sampler(ops::Backend& backend, const SamplingParams& params, std::span<const int32_t> prompt,
                 int64_t vocab_size, int64_t vocab_limit)
    : params_(params),
      history_(prompt.begin(), prompt.end()),
      prompt_length_(static_cast<int64_t>(prompt.size())),
      backend_(backend),
      batch_(backend, 1, vocab_size, vocab_limit) {
  params.check();
  if (!backend.is_host()) logits_memory_ = backend.allocate(vocab_size * size_of(DType::kF32));
}

SampledToken Sampler::sample(std::span<const float> logits) {
  const auto count = static_cast<int64_t>(logits.size());
  Tensor row(const_cast<float*>(logits.data()), DType::kF32, {1, count}, "logits");
  if (!backend_.is_host()) {
    backend_.upload(logits_memory_.data(), logits.data(), row.size_bytes());
    row = row.moved(logits_memory_.data(), logits_memory_.device());
  }
  batch_.clear();
  SamplingRow next;
  next.params = &params_;
  next.tokens = history_;
  next.prompt_length = prompt_length_;
  next.num_generated = static_cast<int64_t>(history_.size()) - prompt_length_;
  next.num_top = params_.top_logprobs;
  batch_.add(next);
  batch_.run(row);
  history_.push_back(batch_.token(0));
  return batch_.sampled(0);
}

}  // namespace minimax::engine
