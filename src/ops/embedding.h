// Rows of a table: token embedding, and the choice of the rows whose logits are wanted.
#pragma once

#include "ops/op.h"

namespace minimax::ops {

// out[t] = table[ids[t]], converted to out's dtype; exact.
// Ids outside [0, rows) give a row of zeros (padded tokens use -1).
// ids [T] I32; table [rows, H] F32, BF16 or F16; out [T, H] F32 or BF16. No aliasing.
struct Embedding {
  static constexpr std::string_view kName = "embedding";
  Tensor ids;
  Tensor table;
  Tensor out;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("ids", ids);
    v("table", table);
    v("out", out);
  }
};

void embedding(OpContext& context, const Embedding& args);

}  // namespace minimax::ops
