#include "models/quantization.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "formats/printable.h"
#include "models/config_reader.h"

namespace minimax::models {
namespace {

using nlohmann::json;
using quant::WeightFormat;

constexpr int64_t kMaxBlock = int64_t{1} << 16;
constexpr int64_t kMxGroup = 32;

std::vector<std::string_view> components(std::string_view path) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t dot = path.find('.');
    parts.push_back(path.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    path.remove_prefix(dot + 1);
  }
}

quant::BlockShape read_block(const ConfigReader& reader) {
  const json* block = reader.find("weight_block_size");
  if (block == nullptr) return {};
  const bool valid =
      block->is_array() && block->size() == 2 && std::all_of(block->begin(), block->end(), [](const json& n) {
        return n.is_number_integer() && n.get<int64_t>() >= 1 && n.get<int64_t>() <= kMaxBlock;
      });
  if (!valid) reader.refuse("weight_block_size", *block, "[rows, columns] of a block, such as [128, 128]");
  return {block->at(0).get<int64_t>(), block->at(1).get<int64_t>()};
}

std::vector<std::string> read_names(const ConfigReader& reader) {
  std::vector<std::string> names;
  for (const char* field : {"modules_to_not_convert", "ignored_layers", "ignore"}) {
    const json* list = reader.find(field);
    if (list == nullptr) continue;
    if (!list->is_array()) reader.refuse(field, *list, "a list of module names");
    for (const json& name : *list) {
      if (!name.is_string()) reader.refuse(field, name, "a module name");
      names.push_back(name.get<std::string>());
    }
  }
  return names;
}

WeightFormat read_format(const ConfigReader& reader, const quant::BlockShape& block) {
  const std::string method = reader.text("quant_method").value_or("");
  const bool is_mx_block = block.rows == 1 && block.columns == kMxGroup;
  if (method == "mxfp8" || (method == "fp8" && is_mx_block)) {
    if (block.rows != 0 && !is_mx_block) {
      fail("config.json: quantization_config.weight_block_size is [{}, {}]; mxfp8 has [1, 32]", block.rows,
           block.columns);
    }
    return WeightFormat::kMxfp8;
  }
  if (method == "fp8") return WeightFormat::kFp8;
  fail(
      "config.json: quantization_config.quant_method is \"{}\", which is not supported; supported are fp8 "
      "(block-wise, per channel, per tensor) and mxfp8, and checkpoints in BF16, F16 or F32",
      formats::printable(method));
}

const json* find_config(const json& config) {
  for (const json* node : {&config, config.contains("text_config") ? &config.at("text_config") : nullptr}) {
    if (node == nullptr || !node->is_object()) continue;
    const auto found = node->find("quantization_config");
    if (found != node->end() && !found->is_null()) return &*found;
  }
  return nullptr;
}

}  // namespace

QuantizationConfig QuantizationConfig::from_json(const json& config) {
  const json* node = find_config(config);
  if (node == nullptr) return {};
  if (!node->is_object()) fail("config.json: quantization_config is no object");
  const ConfigReader reader(*node, "quantization_config.");
  QuantizationConfig result;
  result.block = read_block(reader);
  result.format = read_format(reader, result.block);
  if (result.format == WeightFormat::kMxfp8) result.block = {1, kMxGroup};
  result.not_converted = read_names(reader);
  return result;
}

bool QuantizationConfig::converts(std::string_view name) const {
  if (format == WeightFormat::kBF16) return false;
  const auto path = components(name);
  return std::none_of(not_converted.begin(), not_converted.end(), [&path](const std::string& entry) {
    const auto run = components(entry);
    return std::search(path.begin(), path.end(), run.begin(), run.end()) != path.end();
  });
}

}  // namespace minimax::models
