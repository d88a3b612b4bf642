// Reference embedding, norms and linear layers.
#include <cmath>
#include <vector>

#include "ops/reference/reference_backend.h"

namespace minimax::ops {

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<reference::ReferenceBackend>(); }

namespace reference {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// row[j] = weight[j] * row[j] / sqrt(mean(row^2) + eps)
void normalize(std::vector<double>& row, const Tensor& weight, float eps, float weight_offset) {
  double sum = 0;
  for (const double x : row) sum += x * x;
  const double scale = 1.0 / std::sqrt(sum / static_cast<double>(row.size()) + static_cast<double>(eps));
  for (size_t j = 0; j < row.size(); ++j) {
    row[j] *= scale * (static_cast<double>(weight_offset) + load(weight, static_cast<int64_t>(j)));
  }
}

}  // namespace

void ReferenceBackend::run(const Embedding& args, Workspace) {
  for (int64_t t = 0; t < args.ids.dim(0); ++t) {
    const int64_t id = args.ids.data<int32_t>()[t];
    const bool known = id >= 0 && id < args.table.dim(0);
    for (int64_t j = 0; j < args.table.dim(1); ++j)
      store(args.out, t, j, known ? load(args.table, id, j) : 0.0);
  }
}

void ReferenceBackend::run(const RmsNorm& args, Workspace) {
  std::vector<double> row(static_cast<size_t>(args.x.dim(1)));
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    for (int64_t j = 0; j < args.x.dim(1); ++j) row[j] = load(args.x, t, j);
    normalize(row, args.weight, args.eps, args.weight_offset);
    for (int64_t j = 0; j < args.x.dim(1); ++j) store(args.out, t, j, row[j]);
  }
}

void ReferenceBackend::run(const ResidualRmsNorm& args, Workspace) {
  std::vector<double> row(static_cast<size_t>(args.residual.dim(1)));
  for (int64_t t = 0; t < args.residual.dim(0); ++t) {
    for (int64_t j = 0; j < args.residual.dim(1); ++j) {
      row[j] = args.alpha * load(args.residual, t, j) + args.beta * load(args.branch, t, j);
    }
    if (args.sum.defined()) {
      for (int64_t j = 0; j < args.residual.dim(1); ++j) store(args.sum, t, j, row[j]);
    }
    normalize(row, args.weight, args.eps, args.weight_offset);
    for (int64_t j = 0; j < args.residual.dim(1); ++j) store(args.out, t, j, row[j]);
  }
}

void ReferenceBackend::run(const GatedRmsNorm& args, Workspace) {
  std::vector<double> row(static_cast<size_t>(args.x.dim(1)));
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    for (int64_t j = 0; j < args.x.dim(1); ++j) row[j] = load(args.x, t, j);
    normalize(row, args.weight, args.eps, 0);
    for (int64_t j = 0; j < args.x.dim(1); ++j)
      store(args.out, t, j, sigmoid(load(args.gate, t, j)) * row[j]);
  }
}

void ReferenceBackend::run(const Linear& args, Workspace) {
  std::vector<float> weight(static_cast<size_t>(args.weight.in_features()));
  for (int64_t n = 0; n < args.weight.out_features(); ++n) {
    quant::decode_row(args.weight, n, weight);
    for (int64_t t = 0; t < args.x.dim(0); ++t) {
      double sum = 0;
      for (size_t k = 0; k < weight.size(); ++k) {
        sum += load(args.x, t, static_cast<int64_t>(k)) * static_cast<double>(weight[k]);
      }
      store(args.out, t, n, args.activation == Activation::kSilu ? sum * sigmoid(sum) : sum);
    }
  }
}

}  // namespace reference
}  // namespace minimax::ops
