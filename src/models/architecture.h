// Architecture: a parsed config.json of one family together with the places of its weights. The registry does
// with it everything that is the same for all families: loading, checking, counting, planning, dummy weights.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string_view>

#include "models/common_config.h"
#include "models/model.h"
#include "models/tensor_table.h"

namespace minimax::models {

class Architecture {
 public:
  virtual ~Architecture() = default;

  // What the configuration says; tensors are not counted in it.
  virtual ModelSummary describe(const ComputeOptions& options) const = 0;
  // The table of tensors as `source` spells them (null: as released). Its slots refer to this object.
  virtual TensorTable table(const formats::WeightSource* source) = 0;
  // The model over the weights that the slots were given, which move into it: the last call.
  virtual std::unique_ptr<Model> make_model(const ComputeOptions& options) = 0;

 protected:
  Architecture() = default;
  Architecture(const Architecture&) = default;
  Architecture& operator=(const Architecture&) = default;
  Architecture(Architecture&&) = default;
  Architecture& operator=(Architecture&&) = default;
};

// What every family's configuration says alike.
ModelSummary common_summary(const CommonConfig& config, std::string_view family);

// A family: its architecture names and how to read its configuration.
struct Family {
  std::span<const std::string_view> architectures;  // of config.json
  std::span<const std::string_view> model_types;    // for a config.json without architectures
  // THROWS: Error naming the field, its value and what is accepted.
  std::unique_ptr<Architecture> (*open)(const nlohmann::json& config);
};

Family minimax_m1_family();
Family minimax_m2_family();
Family minimax_m3_family();

}  // namespace minimax::models
