// Kernels of lightning attention (formula and slots: ops/lightning_attention.h). Plain pointers, no tensors:
// this header and the sources behind it stand alone, so that other programs can link them.
//
// Nothing here allocates, waits for the device or reads device memory on the host, and the launches follow
// from the sizes alone: every call can be captured in a CUDA graph and replayed with other contents.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace minimax::cuda {

enum class Element : int { kF32, kBF16 };

// Rows [tokens, heads, head_dim] with a dense last dimension; strides in elements, all >= 0.
struct Rows {
  void* data = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

struct LightningPrefillArgs {
  Rows q, k, v, out;             // [num_tokens, num_heads, head_dim] of `element`; out aliases nothing
  const float* decay = nullptr;  // [num_heads], >= 0
  float* state = nullptr;  // [slots, num_heads, head_dim (key), head_dim (value)], dense, 16-byte aligned
  const int32_t* read_slots = nullptr;    // [num_sequences]; -1: start from zero
  const int32_t* write_slots = nullptr;   // [num_sequences]; -1: leave no state
  const int32_t* query_starts = nullptr;  // [num_sequences + 1]
  // [num_sequences, num_checkpoints]: the state after so many rows of a sequence in this call is left in this
  // slot too, -1: nowhere. Rows ascend strictly from 1; those beyond the sequence's last leave nothing.
  const int32_t* checkpoint_rows = nullptr;
  const int32_t* checkpoint_slots = nullptr;
  int num_checkpoints = 0;
  int64_t num_tokens = 0;
  int64_t num_sequences = 0;
  int num_heads = 0;
  int head_dim = 0;  // 1 to 256; 64 and 128 run on tensor cores in BF16
  Element element = Element::kBF16;
  void* workspace =
      nullptr;  // lightning_prefill_workspace_bytes(), 16-byte aligned; contents need not be set
  int64_t workspace_bytes = 0;
  int sm = 80;  // which kernels: 80 (mma.sync), 90 (TMA and wgmma: a device of capability 9.0 alone)
};

// Bytes of workspace for these sizes; may be 0.
int64_t lightning_prefill_workspace_bytes(int64_t num_tokens, int64_t num_sequences, int num_heads,
                                          int head_dim, Element element, int sm);

// Sequence b owns rows query_starts[b] .. query_starts[b + 1] - 1, possibly none. It continues the state in
// read_slots[b] and leaves its own in write_slots[b]; the two may be equal, but no slot that one sequence
// writes may be read or written by another. Rows at or beyond query_starts[num_sequences] of out become zero.
// BF16 stays within 3e-3 of float64 (norm of the difference over norm), F32 within 1e-5.
// cudaErrorInvalidValue: sizes or workspace are off.
cudaError_t lightning_prefill(const LightningPrefillArgs& args, cudaStream_t stream);

struct LightningDecodeArgs {
  Rows q, k, v, out;             // [batch, num_heads, head_dim] of `element`
  const float* decay = nullptr;  // [num_heads], >= 0
  void* state = nullptr;         // [slots, num_heads, head_dim (key), head_dim (value)], 16-byte aligned
  const int32_t* read_slots =
      nullptr;  // [batch]; -1: a padding row, whose out is zero and which touches no state
  const int32_t* write_slots = nullptr;  // [batch]; -1: leave no state
  int64_t batch = 0;
  int num_heads = 0;
  int head_dim = 0;  // 1 to 256
  Element element = Element::kBF16;
  bool is_state_bf16 = false;  // else F32
  // decay and slots were copied to the device, no kernel of the stream writes them: they are read while the
  // kernel before still runs.
  bool is_uploaded = false;
};

// One token a sequence: state = exp(-decay) state + k^T v, out = q state. The slot read and the slot written
// may be equal.
cudaError_t lightning_decode(const LightningDecodeArgs& args, cudaStream_t stream);

}  // namespace minimax::cuda
