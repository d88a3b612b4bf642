#include "backends/cuda/gemm.h"

namespace minimax::cuda {
namespace {

cudaDataType_t data_type(Scalar scalar) {
  return scalar == Scalar::kE4m3 ? CUDA_R_8F_E4M3 : scalar == Scalar::kBF16 ? CUDA_R_16BF : CUDA_R_32F;
}

struct LayoutDeleter {
  void operator()(cublasLtMatrixLayout_t layout) const { cublasLtMatrixLayoutDestroy(layout); }
};
using Layout = std::unique_ptr<std::remove_pointer_t<cublasLtMatrixLayout_t>, LayoutDeleter>;

Layout make_layout(Scalar scalar, int64_t rows, int64_t columns, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, data_type(scalar), static_cast<uint64_t>(rows),
                                   static_cast<uint64_t>(columns), stride),
        "matrix layout");
  return Layout(layout);
}

struct DescriptionDeleter {
  void operator()(cublasLtMatmulDesc_t description) const { cublasLtMatmulDescDestroy(description); }
};
struct PreferenceDeleter {
  void operator()(cublasLtMatmulPreference_t preference) const {
    cublasLtMatmulPreferenceDestroy(preference);
  }
};

}  // namespace

// The library counts columns first: out^T [N, T] = weight [N, K] x^T.
struct Gemm::Plan {
  std::unique_ptr<std::remove_pointer_t<cublasLtMatmulDesc_t>, DescriptionDeleter> description;
  Layout weight, x, out;
  cublasLtMatmulAlgo_t algorithm{};
};

Gemm::Gemm(Memory workspace) : workspace_(std::move(workspace)) {
  cublasLtHandle_t handle = nullptr;
  check(cublasLtCreate(&handle), "create");
  handle_ = std::shared_ptr<void>(handle, [](void* h) { cublasLtDestroy(static_cast<cublasLtHandle_t>(h)); });
}

bool Gemm::can_multiply(const Matrix& x, const WeightView& weight, const Matrix& out) {
  const auto address = reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(weight.values) |
                       reinterpret_cast<uintptr_t>(out.data);
  const bool has_kernels =
      x.scalar == Scalar::kBF16 || (x.scalar == Scalar::kF32 && out.scalar == Scalar::kF32);
  return weight.scalar == x.scalar && has_kernels && weight.scales == nullptr && address % 16 == 0 &&
         weight.columns > 0 && weight.columns % 8 == 0 && weight.rows % 8 == 0 && x.stride % 8 == 0 &&
         weight.stride % 8 == 0 && out.stride % 8 == 0;
}

Gemm::Plan& Gemm::plan(const Matrix& x, const WeightView& weight, const Matrix& out) {
  const Key key{x.rows,        weight.rows, weight.columns, x.stride,
                weight.stride, out.stride,  x.scalar,       out.scalar};
  std::shared_ptr<Plan>& plan = plans_[key];
  if (plan != nullptr) return *plan;
  auto made = std::make_shared<Plan>();
  cublasLtMatmulDesc_t description = nullptr;
  check(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
  made->description.reset(description);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                       sizeof(transposed)),
        "transpose");
  const int8_t sums_fast = x.scalar == Scalar::kE4m3 ? 1 : 0;
  check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &sums_fast,
                                       sizeof(sums_fast)),
        "sums");
  made->weight = make_layout(weight.scalar, weight.columns, weight.rows, weight.stride);
  made->x = make_layout(x.scalar, x.columns, x.rows, x.stride);
  made->out = make_layout(out.scalar, weight.rows, x.rows, out.stride);
  cublasLtMatmulPreference_t raw = nullptr;
  check(cublasLtMatmulPreferenceCreate(&raw), "preference");
  const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, PreferenceDeleter> preference(raw);
  const auto bytes = static_cast<uint64_t>(workspace_.size_bytes());
  check(cublasLtMatmulPreferenceSetAttribute(raw, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                             sizeof(bytes)),
        "workspace");
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  check(cublasLtMatmulAlgoGetHeuristic(static_cast<cublasLtHandle_t>(handle_.get()), description,
                                       made->weight.get(), made->x.get(), made->out.get(), made->out.get(),
                                       raw, 1, &result, &count),
        "choice of an algorithm");
  if (count == 0)
    fail("cublasLt: no algorithm for a product of [{}, {}] and [{}, {}]", x.rows, x.columns, weight.rows,
         weight.columns);
  made->algorithm = result.algo;
  plan = std::move(made);
  return *plan;
}

void Gemm::multiply(const Matrix& x, const WeightView& weight, const Matrix& out, cudaStream_t stream) {
  if (x.rows == 0 || weight.rows == 0) return;
  Plan& p = plan(x, weight, out);
  const float one = 1, zero = 0;
  check(cublasLtMatmul(static_cast<cublasLtHandle_t>(handle_.get()), p.description.get(), &one, weight.values,
                       p.weight.get(), x.data, p.x.get(), &zero, out.data, p.out.get(), out.data, p.out.get(),
                       &p.algorithm, workspace_.data(), static_cast<size_t>(workspace_.size_bytes()), stream),
        "product");
}

}  // namespace minimax::cuda
