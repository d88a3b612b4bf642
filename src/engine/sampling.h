// Sampling: the users' parameters turned into the sampling op's buffers, for one sequence or a whole step.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "core/arena.h"
#include "ops/backend.h"

namespace minimax::engine {

// As the OpenAI API and Hugging Face's generation_config.json name them.
struct SamplingParams {
  float temperature = 1.0F;
  float top_p = 1.0F;
  int32_t top_k = 0;  // 0: off
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  int64_t seed = 0;
  std::map<int32_t, float> logit_bias;
  int32_t top_logprobs = 0;

  // THROWS: Error naming the parameter, its value and its range.
  void check() const;
  // Whether the choice depends on the tokens before.
  bool has_penalties() const {
    return repetition_penalty != 1.0F || presence_penalty != 0.0F || frequency_penalty != 0.0F;
  }
};

struct SampledToken {
  int32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // descending
};

// What one row of logits is for.
struct SamplingRow {
  const SamplingParams* params = nullptr;
  std::span<const int32_t> tokens;  // prompt, then what was generated
  int64_t prompt_length = 0;
  int64_t num_generated = 0;          // counts the draws
  std::span<const int32_t> banned{};  // never drawn
  int64_t num_top = 0;                // likeliest tokens to report
  bool awaits_token = false;          // one more generated token will be known when the step runs
  int32_t forced = -1;                // only this token's logprob is wanted
  bool has_mask = false;              // `mask` of the row says before the draw which tokens may be drawn
};

// Rows of one sampling step, in buffers that grow to the largest step seen and are used again. Built while
// an earlier step runs, completed by `supply` with the tokens that one gave.
class SamplingBatch {
 public:
  // Ids at or beyond `vocab_limit` (padding rows of the head) are never chosen. REQUIRES: `backend` outlives
  // this.
  SamplingBatch(ops::Backend& backend, int64_t max_rows, int64_t vocab_size, int64_t vocab_limit);

  void clear();
  // REQUIRES: fewer than max_rows rows so far. `row` is not kept.
  void add(const SamplingRow& row);
  int64_t size() const { return static_cast<int64_t>(temperature_.size()); }
  // The token that row `row` awaited.
  void supply(int64_t row, int32_t token);
  // A bit for each token below the limit, to be written before `run`. REQUIRES: the row was added with a
  // mask; no row is added meanwhile.
  std::span<uint64_t> mask(int64_t row);

  // Draws a token for each row. logits [size(), vocab] F32.
  void run(const Tensor& logits);

  // The same in three parts, for a backend of a device that records the middle one: what the rows ask for is
  // copied there, `rows` of them are drawn, of which those beyond size() are padding, and the tokens come
  // back. RETURNS: false when rows report likely tokens or have masks: their buffers are not those of every
  // step.
  bool can_be_recorded() const { return most_top_ == 0 && num_masks_ == 0; }
  void upload();
  void draw(const Tensor& logits, int64_t rows);
  void download();
  // Changes when buffers of the device have moved: what was recorded before draws from the old ones.
  int64_t generation() const { return generation_; }
  // Of the last run.
  int32_t token(int64_t row) const { return tokens_[static_cast<size_t>(row)]; }
  SampledToken sampled(int64_t row) const;

 private:
  ops::Sample arguments(const Tensor& logits);
  void upload_rows(const ops::Sample& args);
  void upload_list(size_t list, const Tensor& values);
  int64_t mask_words() const { return (vocab_limit_ + 63) / 64; }

  ops::Backend& backend_;
  int64_t max_rows_;
  int64_t vocab_limit_;
  std::vector<float> temperature_, top_p_, min_p_, repetition_, presence_, frequency_, bias_values_;
  std::vector<int32_t> top_k_, forced_, history_, bias_ids_, num_top_, mask_rows_;
  std::vector<int64_t> seed_, counter_, prompt_lengths_;
  std::vector<int64_t> history_starts_, bias_starts_;
  int64_t most_top_ = 0;
  int64_t num_masks_ = 0;
  std::vector<uint64_t> masks_;  // [masks, words], grows to the most seen in a step
  std::vector<int32_t> tokens_, top_ids_;
  std::vector<float> logprobs_, top_logprobs_;
  Arena arena_;

  // On a device: arrays with a number for each row lie side by side, as long as the largest batch's; lists
  // have memory of their own, which grows.
  struct List {
    Memory staging, device;
  };
  Memory rows_staging_, rows_device_;
  std::vector<List> lists_;
  int64_t generation_ = 0;
};

// Draws the tokens of one sequence from logits in the host's memory.
class Sampler {
 public:
  Sampler(ops::Backend& backend, const SamplingParams& params, std::span<const int32_t> prompt,
          int64_t vocab_size, int64_t vocab_limit);

  // Draws the next token from logits [vocab] and remembers it.
  SampledToken sample(std::span<const float> logits);

 private:
  SamplingParams params_;
  std::vector<int32_t> history_;
  int64_t prompt_length_;
  Memory logits_memory_;  // of a device
  ops::Backend& backend_;
  SamplingBatch batch_;
};

}  // namespace minimax::engine
