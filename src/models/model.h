// Model: what the engine knows of an architecture. One step runs a ragged batch of sequences whose state
// (KV pages, linear states) lives in caches given by the caller, never in the model.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "formats/progress.h"
#include "formats/weight_source.h"
#include "models/cache_layout.h"
#include "models/model_summary.h"
#include "ops/backend.h"
#include "ops/linear.h"
#include "ops/op.h"
#include "parallel/comm.h"

namespace minimax::models {

// The inputs of one step. All are content of buffers on the backend's device: two decode steps of one shape
// differ in nothing else. T tokens of B sequences; rows and sequences beyond those in use are padding.
struct StepBatch {
  Tensor token_ids;          // [T] I32, -1 for padding
  Tensor positions;          // [T] I32
  Tensor query_starts;       // [B + 1] I32: sequence b owns rows query_starts[b] .. query_starts[b+1]-1
  Tensor seq_lens;           // [B] I32, this step's tokens included
  Tensor block_table;        // [B, max_pages] I32
  Tensor slot_mapping;       // [T] I64 cache slot of each token, -1 for padding
  Tensor state_read_slots;   // [B] I32: -1 is a zero state (prefill) or padding (decode)
  Tensor state_write_slots;  // [B] I32
  // [B, C] I32, or undefined: states to leave inside prompts (ops/lightning_attention.h)
  Tensor state_checkpoint_rows;
  Tensor state_checkpoint_slots;
  Tensor logits_rows;      // [R] I32 rows whose logits are wanted, -1 for padding
  bool is_decode = false;  // one row a sequence, T == B
};

struct KvPages {
  Tensor k;  // [pages, page_size, kv_heads, head_dim]
  Tensor v;
};

// As the model's CacheLayout says. Pages of all layers and kinds go by one block table.
struct ModelCache {
  std::vector<KvPages> kv;     // [num_kv_layers]
  std::vector<Tensor> index;   // [num_index_layers], each [pages, page_size, index_dim]
  std::vector<Tensor> states;  // [num_state_layers], each [slots, heads, head_dim, head_dim] F32
};

// How a model computes; what is not said follows from the activations.
struct ComputeOptions {
  DType activation_dtype = DType::kBF16;  // of projections; kF32: everything in float32
  std::optional<DType> kv_cache_dtype{};  // activation_dtype when absent; kF8E4M3 halves the bytes of BF16
  std::optional<DType> index_cache_dtype{};
  // Quantise activations to FP8 per token group, as GPUs with FP8 units do, instead of weight-only.
  bool fp8_activations = false;
  // Which rank this is, of how many; one by default. The model then holds its part of the weights and caches.
  parallel::Parallel parallel{};
  // Keeps weights and constants where its ops read them, as long as it lives; null: in the host's memory.
  ops::Backend* backend = nullptr;

  DType kv_dtype() const { return kv_cache_dtype.value_or(activation_dtype); }
  DType index_dtype() const { return index_cache_dtype.value_or(activation_dtype); }
  ops::Precision precision() const;
};

class Model {
 public:
  virtual ~Model() = default;

  virtual int64_t vocab_size() const = 0;  // rows of the head
  virtual int64_t max_position_embeddings() const = 0;
  virtual DType activation_dtype() const = 0;
  virtual CacheLayout cache_layout() const = 0;  // of this rank
  // Of its sparse layers on this rank, if any.
  virtual std::optional<ops::SparseShape> sparse_shape() const { return {}; }

  // logits [R, vocab_size] F32 of the rows asked for. Reads and writes `cache` as the batch says. Of several
  // ranks all run the same steps and get the same logits. THROWS: Error when another rank has failed.
  virtual void forward(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache,
                       const Tensor& logits) const = 0;
};

// A constant vector of a model as an op's operand.
class Constant {
 public:
  // REQUIRES: `backend`, if any, outlives this.
  Constant(std::vector<float> values, std::string_view name, ops::Backend* backend)
      : values_(std::move(values)),
        tensor_(values_.data(), DType::kF32, {static_cast<int64_t>(values_.size())}, name) {
    if (backend != nullptr) tensor_ = backend->keep(tensor_);
  }
  Constant(const Constant&) = delete;
  Constant& operator=(const Constant&) = delete;
  Constant(Constant&&) = default;
  Constant& operator=(Constant&&) = default;
  ~Constant() = default;

  const Tensor& tensor() const { return tensor_; }

 private:
  std::vector<float> values_;
  Tensor tensor_;
};

// The model that config.json names, with the weights of `source`, which must outlive it.
// THROWS: Error for an architecture that is not supported, or as the family's loader says.
std::unique_ptr<Model> load_model(const nlohmann::json& config, const ComputeOptions& options,
                                  formats::WeightSource& source, formats::Progress& progress);

// The same with shapes in place of weights: for dry runs only.
std::unique_ptr<Model> plan_model(const nlohmann::json& config, const ComputeOptions& options);

// What the configuration says of the model, without counting its tensors.
ModelSummary describe_model(const nlohmann::json& config, const ComputeOptions& options = {});

// Sizes of the model, with the dtypes of `source` where it has the tensor (null: the released dtypes).
ModelSummary summarize_model(const nlohmann::json& config, const formats::WeightSource* source,
                             const ComputeOptions& options = {});

// What each rank of the grid that `options` describe holds, its own rank left aside. REQUIRES: `source`, if
// any, has passed check_weights. THROWS: Error when the model cannot be cut so.
RankSizes rank_sizes(const nlohmann::json& config, const formats::WeightSource* source,
                     const ComputeOptions& options);

// Compares names, shapes and dtypes of `source` with what the configuration needs, without loading.
// THROWS: Error that lists missing, unexpected and mis-shaped tensors together.
void check_weights(const nlohmann::json& config, const formats::WeightSource& source);

// The configuration of the same model cut to its first `num_layers` layers.
// THROWS: Error when it has fewer.
nlohmann::json with_first_layers(const nlohmann::json& config, int64_t num_layers);

// A source of random weights for the configuration.
std::unique_ptr<formats::WeightSource> make_dummy_weights(const nlohmann::json& config, uint64_t seed);

}  // namespace minimax::models
