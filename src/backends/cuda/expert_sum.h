// The weighted sum of experts' outputs.
#pragma once

#include <cuda_runtime_api.h>

#include "backends/cuda/kernels.h"

namespace minimax::cuda {

// out[t] = the sum over j of weights[t, j] partial[t * top_k + j], in the order of j; experts that are not
// here count for nothing.
void launch_combine_pairs(const MoeArgs&, cudaStream_t);

}  // namespace minimax::cuda
