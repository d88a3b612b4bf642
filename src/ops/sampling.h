// Choice of the next token.
#pragma once

#include "ops/op.h"

namespace minimax::ops {

// For each row, in this order:
//  1. ids >= vocab_limit (padding rows of the head) become -inf;
//  2. repetition penalty r (arXiv 1909.05858) on every id of the row's history, prompt included:
//     logit > 0 ? logit / r : logit * r;
//  3. frequency f and presence p penalties on the generated part of the history:
//     logit -= f * count + p * (count > 0);
//  4. bias: logit[id] += value; then ids that the row's mask does not allow become -inf;
//  5. temperature 0: the largest logit wins (ties: lowest id). Else logits /= temperature, then top-k
//     (0: off), min-p (probability >= min_p * largest), top-p (smallest set of largest probabilities whose
//     sum reaches p, never empty), and a draw from what is left.
// The draw walks the survivors in descending order (ties: lowest id) until their cumulated probability
// exceeds u, a uniform number that depends on (seed, counter) alone, so a row's token does not depend on its
// neighbours. A row whose forced id is not -1 takes that token instead: what is wanted of it is its logprob.
// Logprobs are log-softmax of the logits after step 4, before temperature and truncation.
//
// logits [B, V] F32 (not modified); vocab_limit <= V.
// temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty [B] F32; top_k [B] I32;
// seed, counter [B] I64.
// history_ids [n] I32, row b's at history_starts[b] .. history_starts[b+1]-1, of which the first
// prompt_lens[b] are prompt; history_starts [B + 1] I64, prompt_lens [B] I64.
// forced_ids [B] I32, -1 or an id below vocab_limit, may be undefined: no row is forced.
// bias_ids [m] I32, bias_values [m] F32, -inf bans a token, row b's at bias_starts[b] .. bias_starts[b+1]-1,
// bias_starts [B + 1] I64. allowed [m, W] I64, W words of 64 ids, the lowest bit first, W * 64 >=
// vocab_limit, and allowed_rows [B] I32, the row's mask in `allowed` or -1 for none; both may be undefined. A
// mask allows at least one id. Out: tokens [B] I32, logprobs [B] F32, top_ids [B, n] I32 and top_logprobs [B,
// n] F32 (descending).
struct Sample {
  static constexpr std::string_view kName = "sample";
  Tensor logits;
  int64_t vocab_limit = 0;
  Tensor temperature;
  Tensor top_k;
  Tensor top_p;
  Tensor min_p;
  Tensor repetition_penalty;
  Tensor presence_penalty;
  Tensor frequency_penalty;
  Tensor seed;
  Tensor counter;
  Tensor history_ids;
  Tensor history_starts;
  Tensor prompt_lens;
  Tensor forced_ids;
  Tensor bias_ids;
  Tensor bias_values;
  Tensor bias_starts;
  Tensor allowed;
  Tensor allowed_rows;
  Tensor tokens;
  Tensor logprobs;
  Tensor top_ids;
  Tensor top_logprobs;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("logits", logits);
    v("vocab_limit", static_cast<double>(vocab_limit));
    v("temperature", temperature);
    v("top_k", top_k);
    v("top_p", top_p);
    v("min_p", min_p);
    v("repetition_penalty", repetition_penalty);
    v("presence_penalty", presence_penalty);
    v("frequency_penalty", frequency_penalty);
    v("seed", seed);
    v("counter", counter);
    v("history_ids", history_ids);
    v("history_starts", history_starts);
    v("prompt_lens", prompt_lens);
    v("forced_ids", forced_ids);
    v("bias_ids", bias_ids);
    v("bias_values", bias_values);
    v("bias_starts", bias_starts);
    v("allowed", allowed);
    v("allowed_rows", allowed_rows);
    v("tokens", tokens);
    v("logprobs", logprobs);
    v("top_ids", top_ids);
    v("top_logprobs", top_logprobs);
  }
};

// Uniform in [0, 1), a pure function of (seed, counter): splitmix64 of their mix, 24 bits.
float sampling_uniform(int64_t seed, int64_t counter);

void sample(OpContext& context, const Sample& args);

}  // namespace minimax::ops
