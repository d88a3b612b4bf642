// Reference routing and expert MLPs.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ops/reference/reference_backend.h"

namespace minimax::ops::reference {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

double activate(const Swiglu& swiglu, double gate, double up) {
  const auto limit = static_cast<double>(swiglu.limit);
  const double g = gate > limit ? limit : gate;
  const double u = up > limit ? limit : up < -limit ? -limit : up;
  return (u + swiglu.up_offset) * g * sigmoid(swiglu.alpha * g);
}

std::vector<double> ffn(const MlpWeights& weights, const Swiglu& swiglu, Precision precision,
                        const std::vector<double>& x) {
  std::vector<double> gate = product(weights.w1, x, precision);
  const std::vector<double> up = product(weights.w3, x, precision);
  for (size_t i = 0; i < gate.size(); ++i) gate[i] = activate(swiglu, gate[i], up[i]);
  return product(weights.w2, gate, precision);
}

// Indices by descending value, of equal ones the lowest first.
std::vector<int32_t> descending(const std::vector<double>& values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return values[a] > values[b]; });
  return order;
}

}  // namespace

void ReferenceBackend::run(const RouteSoftmax& args, Workspace) {
  for (int64_t t = 0; t < args.logits.dim(0); ++t) {
    const std::vector<double> logits = row_of(args.logits, t);
    const std::vector<int32_t> order = descending(logits);
    // A softmax over all experts renormalised over the chosen ones is a softmax over the chosen ones.
    double sum = 0;
    for (int64_t j = 0; j < args.expert_ids.dim(1); ++j) sum += std::exp(logits[order[j]] - logits[order[0]]);
    for (int64_t j = 0; j < args.expert_ids.dim(1); ++j) {
      args.expert_ids.row<int32_t>(t)[j] = order[j];
      store(args.expert_weights, t, j, std::exp(logits[order[j]] - logits[order[0]]) / sum);
    }
  }
}

void ReferenceBackend::run(const RouteSigmoid& args, Workspace) {
  for (int64_t t = 0; t < args.logits.dim(0); ++t) {
    std::vector<double> p = row_of(args.logits, t);
    for (double& x : p) x = sigmoid(x);
    std::vector<double> choice = p;
    for (int64_t e = 0; args.bias.defined() && e < args.bias.dim(0); ++e) choice[e] += load(args.bias, e);
    const std::vector<int32_t> order = descending(choice);
    double sum = 0;
    for (int64_t j = 0; j < args.expert_ids.dim(1); ++j) sum += p[order[j]];
    for (int64_t j = 0; j < args.expert_ids.dim(1); ++j) {
      args.expert_ids.row<int32_t>(t)[j] = order[j];
      store(args.expert_weights, t, j, args.scale * p[order[j]] / sum);
    }
  }
}

void ReferenceBackend::run(const Moe& args, Workspace) {
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    const std::vector<double> x = row_of(args.x, t);
    std::vector<double> sum(x.size());
    for (int64_t j = 0; j < args.expert_ids.dim(1); ++j) {
      const int64_t expert = args.expert_ids.row<int32_t>(t)[j] - args.first_expert;
      if (expert < 0 || expert >= args.num_experts()) continue;
      const std::vector<double> y = ffn(args.experts[expert], args.swiglu, args.precision, x);
      for (size_t i = 0; i < y.size(); ++i) sum[i] += load(args.expert_weights, t, j) * y[i];
    }
    for (size_t i = 0; i < sum.size(); ++i) store(args.out, t, static_cast<int64_t>(i), sum[i]);
  }
}

void ReferenceBackend::run(const Mlp& args, Workspace) {
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    const std::vector<double> y = ffn(args.weights, args.swiglu, args.precision, row_of(args.x, t));
    for (int64_t i = 0; i < args.out.dim(1); ++i)
      store(args.out, t, i, y[i] + (args.addend.defined() ? load(args.addend, t, i) : 0.0));
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
