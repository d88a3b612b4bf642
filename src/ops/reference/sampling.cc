// Reference sampling: a full sort of every row.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "ops/reference/reference_backend.h"

namespace minimax::ops {

float sampling_uniform(int64_t seed, int64_t counter) {
  uint64_t z = static_cast<uint64_t>(seed) * 0xd1342543de82ef95ULL + static_cast<uint64_t>(counter) + 1;
  for (int round = 0; round < 2; ++round) {
    z += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
    z ^= z >> 31U;
  }
  return static_cast<float>(z >> 40U) * 0x1.0p-24F;
}

namespace reference {
namespace {

// The row's logits after padding, penalties and bias (steps 1 to 4).
std::vector<double> adjusted_logits(const Sample& args, int64_t b) {
  std::vector<double> logits(static_cast<size_t>(args.logits.dim(1)), -INFINITY);
  for (int64_t i = 0; i < args.vocab_limit; ++i) logits[i] = load(args.logits, b, i);

  const int64_t* starts = args.history_starts.data<int64_t>();
  std::map<int32_t, int64_t> generated;  // id -> count in the generated part, 0 for prompt ids
  for (int64_t i = starts[b]; i < starts[b + 1]; ++i) {
    generated[args.history_ids.data<int32_t>()[i]] +=
        i - starts[b] >= args.prompt_lens.data<int64_t>()[b] ? 1 : 0;
  }
  for (const auto& [id, count] : generated) {
    if (id < 0 || id >= args.vocab_limit) continue;
    const double r = load(args.repetition_penalty, b);
    logits[id] = logits[id] > 0 ? logits[id] / r : logits[id] * r;
    logits[id] -= load(args.frequency_penalty, b) * static_cast<double>(count);
    if (count > 0) logits[id] -= load(args.presence_penalty, b);
  }
  const int64_t* bias_starts = args.bias_starts.data<int64_t>();
  for (int64_t i = bias_starts[b]; i < bias_starts[b + 1]; ++i) {
    const int32_t id = args.bias_ids.data<int32_t>()[i];
    if (id >= 0 && id < args.vocab_limit) logits[id] += load(args.bias_values, i);
  }
  const int32_t mask = args.allowed_rows.defined() ? args.allowed_rows.data<int32_t>()[b] : -1;
  for (int64_t i = 0; mask >= 0 && i < args.vocab_limit; ++i) {
    const auto word = static_cast<uint64_t>(args.allowed.row<int64_t>(mask)[i / 64]);
    if (((word >> (static_cast<uint64_t>(i) % 64)) & 1U) == 0) logits[i] = -INFINITY;
  }
  return logits;
}

// Index into `order` (ids by descending logit) of the drawn token.
int64_t draw(const Sample& args, int64_t b, const std::vector<double>& logits,
             const std::vector<int32_t>& order) {
  const double temperature = load(args.temperature, b);
  if (temperature <= 0) return 0;
  const int32_t top_k = args.top_k.data<int32_t>()[b];
  const int64_t limit = top_k > 0 ? std::min<int64_t>(top_k, args.vocab_limit) : args.vocab_limit;
  std::vector<double> p;
  for (int64_t i = 0; i < limit; ++i)
    p.push_back(std::exp((logits[order[i]] - logits[order[0]]) / temperature));
  while (p.size() > 1 && p.back() < load(args.min_p, b)) p.pop_back();

  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  const double wanted = load(args.top_p, b) * total;
  double kept = 0;
  size_t count = 0;
  while (count < p.size() && (count == 0 || kept < wanted)) kept += p[count++];

  const double u =
      static_cast<double>(sampling_uniform(args.seed.data<int64_t>()[b], args.counter.data<int64_t>()[b]));
  double cumulated = 0;
  for (size_t i = 0; i < count; ++i) {
    cumulated += p[i];
    if (cumulated > u * kept) return static_cast<int64_t>(i);
  }
  return static_cast<int64_t>(count) - 1;
}

}  // namespace

void ReferenceBackend::run(const Sample& args, Workspace) {
  for (int64_t b = 0; b < args.logits.dim(0); ++b) {
    const std::vector<double> logits = adjusted_logits(args, b);
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t x, int32_t y) { return logits[x] > logits[y]; });
    double sum = 0;
    for (const double x : logits) sum += std::exp(x - logits[order[0]]);
    const double normalizer = logits[order[0]] + std::log(sum);

    const int32_t forced = args.forced_ids.defined() ? args.forced_ids.data<int32_t>()[b] : -1;
    const int32_t token = forced >= 0 ? forced : order[draw(args, b, logits, order)];
    args.tokens.data<int32_t>()[b] = token;
    args.logprobs.data<float>()[b] = static_cast<float>(logits[token] - normalizer);
    for (int64_t i = 0; i < args.top_ids.dim(1); ++i) {
      args.top_ids.row<int32_t>(b)[i] = order[i];
      store(args.top_logprobs, b, i, logits[order[i]] - normalizer);
    }
  }
}

}  // namespace reference
}  // namespace minimax::ops
