// From config.json to a model: the one place that knows which families exist.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "formats/dummy_weights.h"
#include "models/minimax_m1.h"
#include "models/minimax_m1_tensors.h"
#include "models/minimax_m2.h"
#include "models/minimax_m3.h"
#include "models/model.h"
#include "models/tensor_table.h"

namespace minimax::models {
namespace {

using nlohmann::json;

// A parsed configuration together with the places of its weights: all that differs between families.
class Architecture {
 public:
  virtual ~Architecture() = default;

  virtual ModelSummary describe(const ComputeOptions& options) const = 0;
  // The table as `source` spells it (null: as released). Its slots refer to this object.
  virtual TensorTable table(const formats::WeightSource* source, const parallel::Parallel& parallel = {}) = 0;
  // The model over the weights that the slots were given, which move into it: the last call.
  virtual std::unique_ptr<Model> make_model(const ComputeOptions& options) = 0;
};

// A family is a configuration with from_json, weights with tensor_table, layer_counts and cache_layout beside
// them, and a model made from both.
template <typename Config, typename Weights, typename ModelType>
class FamilyArchitecture final : public Architecture {
 public:
  explicit FamilyArchitecture(Config config) : config_(std::move(config)) {}

  ModelSummary describe(const ComputeOptions& options) const override {
    ModelSummary summary;
    summary.family = Config::kNames.family;
    summary.architecture = config_.architecture;
    summary.num_layers = config_.num_layers;
    summary.layers = layer_counts(config_);
    summary.max_position_embeddings = config_.max_position_embeddings;
    summary.num_experts = config_.num_experts;
    summary.num_experts_per_tok = config_.num_experts_per_tok;
    summary.head_parameters = config_.vocab_size * config_.hidden_size;
    summary.caches = cache_layout(config_, options);
    return summary;
  }
  TensorTable table(const formats::WeightSource* source, const parallel::Parallel& parallel) override {
    return tensor_table(config_, source, weights_, parallel);
  }
  std::unique_ptr<Model> make_model(const ComputeOptions& options) override {
    return std::make_unique<ModelType>(config_, std::move(weights_), options);
  }

 private:
  Config config_;
  Weights weights_;
};

template <typename Config, typename Weights, typename ModelType>
std::unique_ptr<Architecture> open_as(const json& config) {
  return std::make_unique<FamilyArchitecture<Config, Weights, ModelType>>(Config::from_json(config));
}

struct Family {
  const FamilyNames* names;
  // THROWS: Error naming the field, its value and what is accepted.
  std::unique_ptr<Architecture> (*open)(const json& config);
};

constexpr Family kFamilies[] = {
    {&MiniMaxM1Config::kNames, &open_as<MiniMaxM1Config, MiniMaxM1Weights, MiniMaxM1>},
    {&MiniMaxM2Config::kNames, &open_as<MiniMaxM2Config, MiniMaxM2Weights, MiniMaxM2>},
    {&MiniMaxM3Config::kNames, &open_as<MiniMaxM3Config, MiniMaxM3Weights, MiniMaxM3>},
};

[[noreturn]] void refuse_architecture(const json& config) {
  std::vector<std::string_view> known;
  for (const Family& family : kFamilies) {
    known.insert(known.end(), family.names->architectures.begin(), family.names->architectures.end());
  }
  read_architecture(config, {"supported", known, {}});
  MM_CHECK(false, "an architecture of no family was read");
}

std::unique_ptr<Architecture> open(const json& config) {
  if (!config.is_object()) fail("config.json: holds a JSON {}; expected an object", config.type_name());
  for (const Family& family : kFamilies) {
    if (find_architecture(config, *family.names)) return family.open(config);
  }
  refuse_architecture(config);
}

// "model.layers.3.mlp.experts.7.w1.weight" becomes "model.layers.*.mlp.experts.*.w1.weight".
std::string without_numbers(std::string_view name) {
  std::string result;
  for (const char c : name) {
    const bool is_digit = c >= '0' && c <= '9';
    const bool in_number = result.ends_with('.') || result.ends_with(".*");
    if (!is_digit || !in_number) {
      result += c;
    } else if (result.ends_with('.')) {
      result += '*';
    }
  }
  return result;
}

// Cuts every per-layer list of `node` and sets its layer count.
void cut_layers(json& node, size_t old_count, int64_t new_count) {
  for (auto& [key, value] : node.items()) {
    if (key == "num_hidden_layers") {
      value = new_count;
    } else if (value.is_array() && value.size() == old_count) {
      value.erase(value.begin() + new_count, value.end());
    } else if (value.is_object() && key != "vision_config") {
      cut_layers(value, old_count, new_count);
    }
  }
}

}  // namespace

ops::Precision ComputeOptions::precision() const {
  if (fp8_activations) return ops::Precision::kFp8;
  return activation_dtype == DType::kBF16 ? ops::Precision::kBF16 : ops::Precision::kF32;
}

json with_first_layers(const json& config, int64_t num_layers) {
  const int64_t all = open(config)->describe({}).num_layers;
  if (num_layers < 1 || num_layers > all) {
    fail("{} layers asked for; the model has {}, give a number from 1 to that", num_layers, all);
  }
  json cut = config;
  cut_layers(cut, static_cast<size_t>(all), num_layers);
  return cut;
}

std::unique_ptr<Model> load_model(const json& config, const ComputeOptions& options,
                                  formats::WeightSource& source, formats::Progress& progress) {
  const auto architecture = open(config);
  load_table(architecture->table(&source, options.parallel), source, progress, options.backend);
  return architecture->make_model(options);
}

std::unique_ptr<Model> plan_model(const json& config, const ComputeOptions& options) {
  const auto architecture = open(config);
  plan_table(architecture->table(nullptr, options.parallel));
  return architecture->make_model(options);
}

ModelSummary describe_model(const json& config, const ComputeOptions& options) {
  return open(config)->describe(options);
}

ModelSummary summarize_model(const json& config, const formats::WeightSource* source,
                             const ComputeOptions& options) {
  const auto architecture = open(config);
  ModelSummary summary = architecture->describe(options);
  count_tensors(architecture->table(source), source, summary);
  return summary;
}

RankSizes rank_sizes(const json& config, const formats::WeightSource* source, const ComputeOptions& options) {
  const auto architecture = open(config);
  RankSizes sizes;
  for (const auto& [name, bytes] : held_bytes(architecture->table(source), source)) {
    sizes.stored_bytes += bytes;
    sizes.repeated[without_numbers(name)] -= bytes;
  }
  ComputeOptions of_rank = options;
  of_rank.parallel.comm = nullptr;
  for (int64_t rank = 0; rank < options.parallel.grid.size(); ++rank) {
    of_rank.parallel.grid.rank = rank;
    RankSizes::Rank& held = sizes.ranks.emplace_back();
    held.caches = architecture->describe(of_rank).caches;
    for (const auto& [name, bytes] : held_bytes(architecture->table(source, of_rank.parallel), source)) {
      held.weight_bytes += bytes;
      sizes.repeated[without_numbers(name)] += bytes;
    }
  }
  std::erase_if(sizes.repeated, [](const auto& entry) { return entry.second == 0; });
  return sizes;
}

void check_weights(const json& config, const formats::WeightSource& source) {
  check_table(open(config)->table(&source), source);
}

std::unique_ptr<formats::WeightSource> make_dummy_weights(const json& config, uint64_t seed) {
  return std::make_unique<formats::DummyWeights>(released_tensors(open(config)->table(nullptr)), seed);
}

}  // namespace minimax::models
