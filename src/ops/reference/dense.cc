// Reference embedding, norms and linear layers.
#include <cmath>
#include <vector>

#include "ops/reference/reference_backend.h"
#include "quant/fp8.h"

namespace minimax::ops {

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<reference::ReferenceBackend>(); }

namespace reference {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

double mean_of_squares(const std::vector<double>& row) {
  double sum = 0;
  for (const double x : row) sum += x * x;
  return sum / static_cast<double>(row.size());
}

// row[j] = weight[j] * row[j] / sqrt(mean_square + eps)
void normalize(std::vector<double>& row, double mean_square, const Tensor& weight, float eps,
               float weight_offset) {
  const double scale = 1.0 / std::sqrt(mean_square + static_cast<double>(eps));
  for (size_t j = 0; j < row.size(); ++j) {
    row[j] *= scale * (static_cast<double>(weight_offset) + load(weight, static_cast<int64_t>(j)));
  }
}

}  // namespace

void ReferenceBackend::run(const Embedding& args, Workspace) {
  for (int64_t t = 0; t < args.ids.dim(0); ++t) {
    const int64_t id = args.ids.data<int32_t>()[t] - args.first_id;
    const bool known = id >= 0 && id < args.table.dim(0);
    for (int64_t j = 0; j < args.table.dim(1); ++j)
      store(args.out, t, j, known ? load(args.table, id, j) : 0.0);
  }
}

void ReferenceBackend::run(const RmsNorm& args, Workspace) {
  std::vector<double> row(static_cast<size_t>(args.x.dim(1)));
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    for (int64_t j = 0; j < args.x.dim(1); ++j) row[j] = load(args.x, t, j);
    normalize(row, mean_of_squares(row), args.weight, args.eps, args.weight_offset);
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
    normalize(row, mean_of_squares(row), args.weight, args.eps, args.weight_offset);
    for (int64_t j = 0; j < args.residual.dim(1); ++j) store(args.out, t, j, row[j]);
  }
}

void ReferenceBackend::run(const SumOfSquares& args, Workspace) {
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    double sum = 0;
    for (const double x : row_of(args.x, t)) sum += x * x;
    store(args.out, t, 0, sum);
  }
}

void ReferenceBackend::run(const GatedRmsNorm& args, Workspace) {
  std::vector<double> row(static_cast<size_t>(args.x.dim(1)));
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    for (int64_t j = 0; j < args.x.dim(1); ++j) row[j] = load(args.x, t, j);
    const double mean_square = args.squares.defined()
                                   ? load(args.squares, t, 0) / static_cast<double>(args.norm_width)
                                   : mean_of_squares(row);
    normalize(row, mean_square, args.weight, args.eps, 0);
    for (int64_t j = 0; j < args.x.dim(1); ++j)
      store(args.out, t, j, sigmoid(load(args.gate, t, j)) * row[j]);
  }
}

void ReferenceBackend::run(const Linear& args, Workspace) {
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    const std::vector<double> out = product(args.weight, row_of(args.x, t), args.precision);
    for (int64_t n = 0; n < args.weight.out_features(); ++n)
      store(args.out, t, n, args.activation == Activation::kSilu ? out[n] * sigmoid(out[n]) : out[n]);
  }
}

std::vector<double> row_of(const Tensor& x, int64_t t) {
  std::vector<double> row(static_cast<size_t>(x.dim(1)));
  for (int64_t j = 0; j < x.dim(1); ++j) row[j] = load(x, t, j);
  return row;
}

std::vector<double> product(const quant::Weight& weight, std::vector<double> x, Precision precision) {
  if (precision == Precision::kFp8) {
    std::vector<float> rounded(x.begin(), x.end());
    quant::round_activations(rounded.data(), static_cast<int64_t>(x.size()), 1, weight.format);
    x.assign(rounded.begin(), rounded.end());
  }
  std::vector<float> row(x.size());
  std::vector<double> out(static_cast<size_t>(weight.out_features()));
  for (size_t n = 0; n < out.size(); ++n) {
    quant::decode_row(weight, static_cast<int64_t>(n), row);
    for (size_t k = 0; k < x.size(); ++k) out[n] += x[k] * static_cast<double>(row[k]);
  }
  return out;
}

}  // namespace reference
}  // namespace minimax::ops
