// Rows of a table: token embedding, and the choice of the rows whose logits are wanted.
#pragma once

#include "ops/op.h"

namespace minimax::ops {

// out[t] = table[ids[t] - first_id], converted to out's dtype; exact. Other ids than those of the table's
// rows give a row of zeros: those of padded tokens (-1), and of rows that another rank holds. ids [T] I32;
// table [rows, H] F32, BF16 or F16; out [T, H] F32 or BF16. No aliasing.
struct Embedding {
  static constexpr std::string_view kName = "embedding";
  Tensor ids;
  Tensor table;
  Tensor out;
  int64_t first_id = 0;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("ids", ids);
    v("table", table);
    v("out", out);
    v("first_id", static_cast<double>(first_id));
  }
};

void embedding(OpContext& context, const Embedding& args);

}  // namespace minimax::ops
