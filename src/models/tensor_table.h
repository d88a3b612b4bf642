// The table of a model's tensors: what loading, checking, counting, planning and dummy weights share.
//
// A family writes its table once, in the released names (table_builder.h). Checkpoints spell names in other
// ways; `canonical` maps every spelling of a name to one, and tensors are found by that.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/range.h"
#include "formats/progress.h"
#include "formats/weight_source.h"
#include "models/model_summary.h"
#include "models/quantization.h"
#include "ops/backend.h"
#include "quant/weight.h"

namespace minimax::models {

struct TensorSpec {
  std::string name;                     // as released
  std::vector<int64_t> shape;           // [out, in] or [experts, out, in] of a linear weight
  DType released_dtype = DType::kBF16;  // F32 for routers and their biases
  Component component = Component::kNorms;
};

// What a rank holds of a tensor, and its place in the weights the table was made for.
struct TensorPiece {
  Range rows;  // elements of a vector
  Tensor* place = nullptr;
};
struct WeightPiece {
  int64_t matrix = 0;  // of a stack
  Range rows;
  Range columns;
  quant::Weight* place = nullptr;
};

// A tensor of the checkpoint: a plain one (norms, embeddings), or a linear weight of any format, whose scales
// are then tensors of their own. Every rank's table has all slots; a slot of which it holds nothing has no
// pieces. A plain tensor with weight pieces is a tied head too.
struct TensorSlot {
  TensorSpec spec;
  bool is_linear = false;
  std::vector<TensorPiece> tensors;
  std::vector<WeightPiece> weights;
};

// Tensors a checkpoint may hold and the model does not need.
struct SkippedTensors {
  std::string what;  // "vision", for the one line that says so; empty: not worth a line
  std::function<bool(std::string_view)> matches;  // of a canonical name
};

// What every family leaves out: scales of static activation quantisation, with a line; rotary buffers, and
// the head when it is tied, without.
std::vector<SkippedTensors> common_skipped(bool tied_head);
// Multi-token-prediction modules: an `mtp` path component, or a layer beyond the model's.
SkippedTensors skipped_mtp(int64_t num_layers);

using Canonical = std::string (*)(std::string_view name);

struct TensorTable {
  std::string architecture;
  std::vector<TensorSlot> slots;  // in the order of the forward pass
  std::vector<SkippedTensors> skipped;
  QuantizationConfig quantization;
  Canonical canonical = nullptr;
};

// The tensors of a checkpoint by canonical name.
class TensorNames {
 public:
  TensorNames(std::span<const formats::TensorInfo> tensors, Canonical canonical);

  // The tensor that a released name stands for, or nullptr.
  const formats::TensorInfo* find(std::string_view released_name) const;
  bool has(std::string_view released_name) const { return find(released_name) != nullptr; }
  const std::map<std::string, const formats::TensorInfo*, std::less<>>& all() const { return by_name_; }
  // Names that mean the same tensor as another one.
  const std::vector<std::string>& duplicates() const { return duplicates_; }

 private:
  Canonical canonical_;
  std::map<std::string, const formats::TensorInfo*, std::less<>> by_name_;
  std::vector<std::string> duplicates_;
};

struct NameDifference {
  std::vector<std::string> missing;     // needed, not in the checkpoint
  std::vector<std::string> unexpected;  // in the checkpoint, neither needed nor skipped
};

// Compares the table with a checkpoint's tensors; shapes and dtypes do not matter.
NameDifference compare_names(const TensorTable& table, const TensorNames& names);

// THROWS: Error that lists missing, unexpected and mis-shaped tensors of `source` together.
void check_table(const TensorTable& table, const formats::WeightSource& source);

// Gives every piece its part of a tensor of `source`, which must outlive the weights, and brings it into
// memory, that of `backend` if it is given; `progress` counts the bytes and is told what is left unloaded.
// THROWS: Error as check_table does.
void load_table(const TensorTable& table, formats::WeightSource& source, formats::Progress& progress,
                ops::Backend* backend = nullptr);

// Gives every piece its shape and released dtype and no memory: for dry runs.
void plan_table(const TensorTable& table);

// Bytes of each stored tensor that the table's pieces are made of, by its name in `source` (null: released).
// REQUIRES: `source` has passed check_table.
std::map<std::string, int64_t> held_bytes(const TensorTable& table, const formats::WeightSource* source);

// The tensors of a checkpoint in the released names and formats, scales included.
std::vector<formats::TensorInfo> released_tensors(const TensorTable& table);

// Adds the sizes of the table's tensors to `summary`, with the dtypes of `source` where it has them.
void count_tensors(const TensorTable& table, const formats::WeightSource* source, ModelSummary& summary);

}  // namespace minimax::models
