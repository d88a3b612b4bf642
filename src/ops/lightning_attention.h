// Lightning attention (arXiv 2401.04658, 2501.08313): linear attention with a decaying state.
//
// Per head, with decay rate s >= 0 and state S [D, D] (key dimension first):
//   S_t = exp(-s) S_{t-1} + k_t^T v_t;  o_t = q_t S_t
// No scale, no softmax, no rotary. The newest token enters undecayed. States are F32, live in slots of a pool
// [slots, heads, D, D] given by the caller, and are addressed by slot indices. The slot read and the slot
// written may differ: a cached state is continued without a copy.
#pragma once

#include "ops/op.h"

namespace minimax::ops {

// Ragged prefill. Sequence b owns rows query_starts[b] .. query_starts[b+1]-1 (possibly none); it starts from
// slot read_slots[b], or from zero when that is -1, and leaves its final state in write_slots[b], or nowhere
// when that is -1. A sequence without rows copies its state. Rows at or beyond query_starts[B] become zero.
// q, k, v, out [T, heads, D], last dimension dense, F32 or BF16 (one dtype); decay [heads] F32, >= 0;
// state [slots, heads, D, D] F32 contiguous; read_slots, write_slots [B] I32, no slot written twice and none
// read that another sequence writes; query_starts [B + 1] I32. `out` aliases nothing.
// Checkpoints, if checkpoint_rows and checkpoint_slots [B, C] I32 are given: the state of sequence b after
// checkpoint_rows[b][i] of its rows in this call is left in slot checkpoint_slots[b][i] too, -1: nowhere.
// Rows ascend strictly, from 1 on; those beyond the sequence's last (INT32_MAX fills up) leave nothing. Any
// length and head count. Error against float64: 1e-5 relative in F32, 3e-3 in BF16.
struct LightningPrefill {
  static constexpr std::string_view kName = "lightning_prefill";
  Tensor q;
  Tensor k;
  Tensor v;
  Tensor decay;
  Tensor state;
  Tensor read_slots;
  Tensor write_slots;
  Tensor query_starts;
  Tensor out;
  Tensor checkpoint_rows{};
  Tensor checkpoint_slots{};

  void check() const;
  Cost cost() const;
  void visit(auto&& visitor) const {
    visitor("q", q);
    visitor("k", k);
    visitor("v", v);
    visitor("decay", decay);
    visitor("state", state);
    visitor("read_slots", read_slots);
    visitor("write_slots", write_slots);
    visitor("query_starts", query_starts);
    visitor("out", out);
    visitor("checkpoint_rows", checkpoint_rows);
    visitor("checkpoint_slots", checkpoint_slots);
  }
};

// One token a sequence. Row b reads read_slots[b] and writes write_slots[b] (they may be equal). A row whose
// read slot is -1 is padding: its output is zero and no state is touched.
// q, k, v, out [B, heads, D]; the rest as above.
struct LightningDecode {
  static constexpr std::string_view kName = "lightning_decode";
  Tensor q;
  Tensor k;
  Tensor v;
  Tensor decay;
  Tensor state;
  Tensor read_slots;
  Tensor write_slots;
  Tensor out;

  void check() const;
  Cost cost() const;
  void visit(auto&& visitor) const {
    visitor("q", q);
    visitor("k", k);
    visitor("v", v);
    visitor("decay", decay);
    visitor("state", state);
    visitor("read_slots", read_slots);
    visitor("write_slots", write_slots);
    visitor("out", out);
  }
};

void lightning_prefill(OpContext& context, const LightningPrefill& args);
void lightning_decode(OpContext& context, const LightningDecode& args);

}  // namespace minimax::ops
