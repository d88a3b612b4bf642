// Reference routing and expert MLPs.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ops/reference/reference_backend.h"

namespace minimax::ops::reference {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

std::vector<double> product(const quant::Weight& weight, const std::vector<double>& x) {
  std::vector<float> row(x.size());
  std::vector<double> out(static_cast<size_t>(weight.out_features()));
  for (size_t n = 0; n < out.size(); ++n) {
    quant::decode_row(weight, static_cast<int64_t>(n), row);
    for (size_t k = 0; k < x.size(); ++k) out[n] += x[k] * static_cast<double>(row[k]);
  }
  return out;
}

std::vector<double> ffn(const MlpWeights& weights, const std::vector<double>& x) {
  std::vector<double> gate = product(weights.w1, x);
  const std::vector<double> up = product(weights.w3, x);
  for (size_t i = 0; i < gate.size(); ++i) gate[i] *= sigmoid(gate[i]) * up[i];
  return product(weights.w2, gate);
}

std::vector<double> row_of(const Tensor& x, int64_t t) {
  std::vector<double> row(static_cast<size_t>(x.dim(1)));
  for (int64_t j = 0; j < x.dim(1); ++j) row[j] = load(x, t, j);
  return row;
}

}  // namespace

void ReferenceBackend::run(const RouteSoftmax& args, Workspace) {
  const int64_t num_experts = args.logits.dim(1);
  const int64_t k = args.expert_ids.dim(1);
  std::vector<int32_t> order(static_cast<size_t>(num_experts));
  for (int64_t t = 0; t < args.logits.dim(0); ++t) {
    const std::vector<double> logits = row_of(args.logits, t);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    // A softmax over all experts renormalised over the chosen ones is a softmax over the chosen ones.
    double sum = 0;
    for (int64_t j = 0; j < k; ++j) sum += std::exp(logits[order[j]] - logits[order[0]]);
    for (int64_t j = 0; j < k; ++j) {
      args.expert_ids.row<int32_t>(t)[j] = order[j];
      store(args.expert_weights, t, j, std::exp(logits[order[j]] - logits[order[0]]) / sum);
    }
  }
}

void ReferenceBackend::run(const Moe& args, Workspace) {
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    const std::vector<double> x = row_of(args.x, t);
    std::vector<double> sum(x.size());
    for (int64_t j = 0; j < args.expert_ids.dim(1); ++j) {
      const int32_t expert = args.expert_ids.row<int32_t>(t)[j];
      if (expert < 0) continue;
      const std::vector<double> y = ffn(args.experts[expert], x);
      for (size_t i = 0; i < y.size(); ++i) sum[i] += load(args.expert_weights, t, j) * y[i];
    }
    for (size_t i = 0; i < sum.size(); ++i) store(args.out, t, static_cast<int64_t>(i), sum[i]);
  }
}

void ReferenceBackend::run(const Mlp& args, Workspace) {
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    const std::vector<double> y = ffn(args.weights, row_of(args.x, t));
    for (size_t i = 0; i < y.size(); ++i) store(args.out, t, static_cast<int64_t>(i), y[i]);
  }
}

void ReferenceBackend::run(const MixShared& args, Workspace) {
  for (int64_t t = 0; t < args.routed.dim(0); ++t) {
    const double c = sigmoid(load(args.coefficient, t, 0));
    for (int64_t j = 0; j < args.routed.dim(1); ++j) {
      store(args.out, t, j, load(args.routed, t, j) * (1 - c) + load(args.shared, t, j) * c);
    }
  }
}

}  // namespace minimax::ops::reference
