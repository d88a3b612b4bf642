// The prefill kernels behind lightning_prefill(), which chooses among them.
#pragma once

#include <cuda_runtime_api.h>

#include "backends/cuda/lightning.h"

namespace minimax::cuda {

struct PrefillParams;

// BF16, head_dim 64 or 128, rows at multiples of 16 bytes. `cut_items` blocks per head and value block run
// the first kernel, over the segments of cut sequences; 0: none is launched.
cudaError_t launch_prefill_sm80(const PrefillParams& params, int head_dim, int cut_items,
                                cudaStream_t stream);
cudaError_t launch_prefill_sm90(const PrefillParams& params, int head_dim, int cut_items,
                                cudaStream_t stream);

// Anything else: plain F32 arithmetic, one token after another.
cudaError_t launch_prefill_generic(const LightningPrefillArgs& args, cudaStream_t stream);

}  // namespace minimax::cuda
