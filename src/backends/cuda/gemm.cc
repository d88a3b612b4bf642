#include "backends/cuda/gemm.h"

// Scales of blocks came with 12.9.
#define MINIMAX_CUBLAS_HAS_BLOCKS (CUBLAS_VERSION >= 120900)

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

#if MINIMAX_CUBLAS_HAS_BLOCKS
void set_scales(cublasLtMatmulDesc_t description, const void* of_weight, const void* of_x) {
  check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &of_weight,
                                       sizeof(of_weight)),
        "scales");
  check(
      cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &of_x, sizeof(of_x)),
      "scales");
}
#endif

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

Gemm::Plan* Gemm::plan(const Matrix& x, const WeightView& weight, const Matrix& out, const float* x_scales) {
  const bool has_scales = x_scales != nullptr;
  const Key key{x.rows,     weight.rows, weight.columns, x.stride,  weight.stride,
                out.stride, x.scalar,    out.scalar,     has_scales};
  const auto [found, is_new] = plans_.try_emplace(key);
  std::shared_ptr<Plan>& plan = found->second;
  if (!is_new) return plan.get();
  auto made = std::make_shared<Plan>();
  cublasLtMatmulDesc_t description = nullptr;
  check(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
  made->description.reset(description);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                       sizeof(transposed)),
        "transpose");
  const int8_t sums_fast = x.scalar == Scalar::kE4m3 && !has_scales ? 1 : 0;
  check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &sums_fast,
                                       sizeof(sums_fast)),
        "sums");
#if MINIMAX_CUBLAS_HAS_BLOCKS
  if (has_scales) {
    const int32_t blocks = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
    const int32_t groups = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
    check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &blocks,
                                         sizeof(blocks)),
          "scales of blocks");
    check(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &groups,
                                         sizeof(groups)),
          "scales of groups");
    set_scales(description, weight.scales, x_scales);
  }
#endif
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
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      static_cast<cublasLtHandle_t>(handle_.get()), description, made->weight.get(), made->x.get(),
      made->out.get(), made->out.get(), raw, 1, &result, &count);
  if (!has_scales && status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "choice of an algorithm");
  if (status != CUBLAS_STATUS_SUCCESS || count == 0) return nullptr;
  made->algorithm = result.algo;
  plan = std::move(made);
  return plan.get();
}

void Gemm::multiply(const Matrix& x, const WeightView& weight, const Matrix& out, cudaStream_t stream) {
  if (x.rows == 0 || weight.rows == 0) return;
  const Plan* p = plan(x, weight, out);
  if (p == nullptr)
    fail("cublasLt: no algorithm for a product of [{}, {}] and [{}, {}]", x.rows, x.columns, weight.rows,
         weight.columns);
  run(*p, x.data, weight.values, out.data, stream);
}

void Gemm::run(const Plan& p, const void* x, const void* weight, void* out, cudaStream_t stream) {
  const float one = 1, zero = 0;
  check(cublasLtMatmul(static_cast<cublasLtHandle_t>(handle_.get()), p.description.get(), &one, weight,
                       p.weight.get(), x, p.x.get(), &zero, out, p.out.get(), out, p.out.get(), &p.algorithm,
                       workspace_.data(), static_cast<size_t>(workspace_.size_bytes()), stream),
        "product");
}

bool Gemm::multiply_codes(const CodedRows& x, const WeightView& weight, const Matrix& out,
                          cudaStream_t stream) {
#if MINIMAX_CUBLAS_HAS_BLOCKS
  constexpr int64_t kBlock = 128;
  const auto address = reinterpret_cast<uintptr_t>(x.codes) | reinterpret_cast<uintptr_t>(x.scales) |
                       reinterpret_cast<uintptr_t>(weight.values) | reinterpret_cast<uintptr_t>(out.data);
  // The library wants scales packed, in rows of a multiple of four for blocks.
  const bool is_packed = x.scale_stride == x.rows && x.rows % 4 == 0 && weight.columns % (4 * kBlock) == 0 &&
                         weight.scale_stride == weight.columns / kBlock;
  const bool has_blocks = weight.scalar == Scalar::kE4m3 && weight.scale_scalar == Scalar::kF32 &&
                          weight.scales != nullptr && weight.block_rows == kBlock &&
                          weight.block_columns == kBlock && weight.row_offset % kBlock == 0 &&
                          weight.column_offset == 0;
  if (!is_packed || !has_blocks || out.scalar != Scalar::kBF16 || address % 16 != 0 ||
      weight.rows % 16 != 0 || weight.stride % 16 != 0 || out.stride % 8 != 0)
    return false;
  WeightView w = weight;
  w.scales = static_cast<const float*>(weight.scales) + weight.row_offset / kBlock * weight.scale_stride;
  if (reinterpret_cast<uintptr_t>(w.scales) % 16 != 0) return false;
  const Plan* p = plan({x.codes, x.rows, x.columns, x.columns, Scalar::kE4m3}, w, out, x.scales);
  if (p == nullptr) return false;
  set_scales(p->description.get(), w.scales, x.scales);
  run(*p, x.codes, weight.values, out.data, stream);
  return true;
#else
  static_cast<void>(x), static_cast<void>(weight), static_cast<void>(out), static_cast<void>(stream);
  return false;
#endif
}

}  // namespace minimax::cuda
