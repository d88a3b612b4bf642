// The weighted sum of experts' outputs: out[t] = the sum over j of weights[t, j] times the output of pair
// t * top_k + j, in the order of j; experts that are not here count for nothing.
#pragma once

#include <cuda_runtime_api.h>

#include "backends/cuda/kernels.h"

namespace minimax::cuda {

// Of the rows of `partial`, which stand at their pairs' places in the order of experts, or at the pairs.
void launch_combine_places(const MoeArgs&, cudaStream_t);
void launch_combine_pairs(const MoeArgs&, cudaStream_t);
// Of BF16 `rows` [T * k, H] at the pairs' places; H is a multiple of 8.
void launch_combine_rows(const MoeArgs&, const void* rows, cudaStream_t);

}  // namespace minimax::cuda
