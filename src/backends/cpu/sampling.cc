// Sampling without sorting the vocabulary: the head of the order is found in growing prefixes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <vector>

#include "backends/cpu/cpu_ops.h"

namespace minimax::cpu {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// The ids of one row by descending logit (ties: lowest id), sorted only as far as asked.
class DescendingOrder {
 public:
  DescendingOrder(const float* logits, int32_t* ids, int64_t count)
      : logits_(logits), ids_(ids), count_(count) {
    std::iota(ids_, ids_ + count_, 0);
  }

  int64_t count() const { return count_; }

  int32_t operator[](int64_t i) {
    while (i >= sorted_) extend();
    return ids_[i];
  }

 private:
  void extend() {
    const int64_t end = std::min(count_, std::max<int64_t>(64, 8 * sorted_));
    const auto before = [this](int32_t a, int32_t b) {
      return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
    };
    std::nth_element(ids_ + sorted_, ids_ + end - 1, ids_ + count_, before);
    std::sort(ids_ + sorted_, ids_ + end, before);
    sorted_ = end;
  }

  const float* logits_;
  int32_t* ids_;
  int64_t count_;
  int64_t sorted_ = 0;
};

float scalar(const Tensor& t, int64_t b) { return t.data<float>()[b]; }

// Penalties and bias of row b (steps 2 to 4 of the contract).
void adjust(const ops::Sample& args, int64_t b, float* logits) {
  const int64_t* starts = args.history_starts.data<int64_t>();
  const float repetition = scalar(args.repetition_penalty, b);
  const float presence = scalar(args.presence_penalty, b);
  const float frequency = scalar(args.frequency_penalty, b);
  if (repetition != 1.0F || presence != 0.0F || frequency != 0.0F) {
    std::unordered_map<int32_t, int64_t> generated;  // id -> count in the generated part
    for (int64_t i = starts[b]; i < starts[b + 1]; ++i) {
      const bool is_prompt = i - starts[b] < args.prompt_lens.data<int64_t>()[b];
      generated[args.history_ids.data<int32_t>()[i]] += is_prompt ? 0 : 1;
    }
    for (const auto& [id, count] : generated) {
      if (id < 0 || id >= args.vocab_limit) continue;
      logits[id] = logits[id] > 0 ? logits[id] / repetition : logits[id] * repetition;
      logits[id] -= frequency * static_cast<float>(count) + (count > 0 ? presence : 0.0F);
    }
  }
  const int64_t* bias_starts = args.bias_starts.data<int64_t>();
  for (int64_t i = bias_starts[b]; i < bias_starts[b + 1]; ++i) {
    const int32_t id = args.bias_ids.data<int32_t>()[i];
    if (id >= 0 && id < args.vocab_limit) logits[id] += args.bias_values.data<float>()[i];
  }
}

// Bans what the mask does not allow; words that allow or ban all of their ids are one step.
void apply_mask(const int64_t* mask, int64_t vocab_limit, float* logits) {
  for (int64_t first = 0; first < vocab_limit; first += 64) {
    const auto word = static_cast<uint64_t>(mask[first / 64]);
    const int64_t count = std::min<int64_t>(64, vocab_limit - first);
    if (word == 0) {
      std::fill_n(logits + first, count, kLowest);
    } else if (word != ~uint64_t{0}) {
      for (int64_t i = 0; i < count; ++i) {
        if (((word >> static_cast<uint64_t>(i)) & 1U) == 0) logits[first + i] = kLowest;
      }
    }
  }
}

// Sum of exp((x - largest) / temperature) in double, over the first `count` of the order or over all.
double mass(const float* logits, int64_t count, float largest, double inverse_temperature) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    sum += std::exp(static_cast<double>(logits[i] - largest) * inverse_temperature);
  }
  return sum;
}

// Walks the survivors of top-k, min-p and top-p; RETURNS the drawn place in the order.
int64_t draw(const ops::Sample& args, int64_t b, const float* logits, DescendingOrder& order) {
  const float temperature = scalar(args.temperature, b);
  if (temperature <= 0.0F) return 0;
  const double inverse = 1.0 / static_cast<double>(temperature);
  const float largest = logits[order[0]];
  const auto weight = [&](int64_t i) {
    return std::exp(static_cast<double>(logits[order[i]] - largest) * inverse);
  };

  const int32_t top_k = args.top_k.data<int32_t>()[b];
  int64_t limit = top_k > 0 ? std::min<int64_t>(top_k, order.count()) : order.count();
  const auto min_p = static_cast<double>(scalar(args.min_p, b));
  double total = 0;
  if (top_k > 0 || min_p > 0.0) {
    int64_t count = 0;
    while (count < limit && (count == 0 || weight(count) >= min_p)) total += weight(count++);
    limit = count;
  } else {
    total = mass(logits, order.count(), largest, inverse);
  }

  double kept = total;
  if (const auto top_p = static_cast<double>(scalar(args.top_p, b)); top_p < 1.0) {
    int64_t count = 0;
    kept = 0;
    while (count < limit && (count == 0 || kept < top_p * total)) kept += weight(count++);
    limit = count;
  }

  const auto u = static_cast<double>(
      ops::sampling_uniform(args.seed.data<int64_t>()[b], args.counter.data<int64_t>()[b]));
  double cumulated = 0;
  for (int64_t i = 0; i < limit; ++i) {
    cumulated += weight(i);
    if (cumulated > u * kept) return i;
  }
  return limit - 1;
}

void sample_row(const ops::Sample& args, int64_t b, float* logits, int32_t* ids) {
  std::copy_n(args.logits.row<float>(b), args.vocab_limit, logits);
  adjust(args, b, logits);
  const int32_t mask = args.allowed_rows.defined() ? args.allowed_rows.data<int32_t>()[b] : -1;
  if (mask >= 0) apply_mask(args.allowed.row<int64_t>(mask), args.vocab_limit, logits);
  // NaN has no place in an order; such a logit can never win.
  std::replace_if(
      logits, logits + args.vocab_limit, [](float x) { return std::isnan(x); }, kLowest);
  DescendingOrder order(logits, ids, args.vocab_limit);
  const float largest = logits[order[0]];
  const double normalizer =
      static_cast<double>(largest) + std::log(mass(logits, args.vocab_limit, largest, 1.0));
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[id]) - normalizer);
  };

  const int32_t forced = args.forced_ids.defined() ? args.forced_ids.data<int32_t>()[b] : -1;
  const int32_t token = forced >= 0 ? forced : order[draw(args, b, logits, order)];
  args.tokens.data<int32_t>()[b] = token;
  args.logprobs.data<float>()[b] = logprob(token);
  for (int64_t i = 0; i < args.top_ids.dim(1); ++i) {
    args.top_ids.row<int32_t>(b)[i] = order[i];
    args.top_logprobs.row<float>(b)[i] = logprob(order[i]);
  }
}

}  // namespace

int64_t CpuBackend::workspace_bytes(const ops::Sample& args) const {
  return pool_.num_threads() * (args.vocab_limit * 8 + 64) / 64 * 64;
}

void CpuBackend::run(const ops::Sample& args, ops::Workspace workspace) {
  pool_.parallel_for(args.logits.dim(0), [&](int64_t b, int thread) {
    auto* logits = reinterpret_cast<float*>(workspace.data) + thread * 2 * args.vocab_limit;
    sample_row(args, b, logits, reinterpret_cast<int32_t*>(logits + args.vocab_limit));
  });
}

}  // namespace minimax::cpu
