#include "models/tensor_table.h"

#include <algorithm>

#include "core/error.h"
#include "formats/printable.h"
#include "formats/problem_list.h"
#include "models/canonical_name.h"

namespace minimax::models {
namespace {

using formats::TensorInfo;
using formats::WeightSource;

constexpr std::string_view kScaleSuffixes[] = {"_scale_inv", "_scale"};

bool is_linear(const TensorSlot& slot) { return static_cast<bool>(slot.assign_weight); }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

// The scales beside a linear weight, or nullptr.
const TensorInfo* find_scales(const TensorNames& names, const TensorSlot& slot) {
  if (!is_linear(slot)) return nullptr;
  for (const std::string_view suffix : kScaleSuffixes) {
    if (const TensorInfo* info = names.find(slot.spec.name + std::string(suffix))) return info;
  }
  return nullptr;
}

// The values and, for a quantised weight, the scales of the released checkpoint.
std::vector<TensorInfo> released_tensors_of(const TensorTable& table, const TensorSlot& slot) {
  const TensorSpec& spec = slot.spec;
  const QuantizationConfig& quantization = table.quantization;
  const bool is_quantised = is_linear(slot) && spec.component != Component::kRouter &&
                            quantization.converts(spec.name.substr(0, spec.name.rfind(".weight")));
  if (!is_quantised) return {{spec.name, spec.released_dtype, spec.shape, ""}};
  std::vector<int64_t> grid = spec.shape;
  int64_t& rows = grid[grid.size() - 2];
  int64_t& columns = grid[grid.size() - 1];
  // No block size in the configuration: one scale a channel.
  const bool per_channel = quantization.block.rows == 0;
  rows = per_channel ? rows : ceil_div(rows, quantization.block.rows);
  columns = per_channel ? 1 : ceil_div(columns, quantization.block.columns);
  const bool is_mx = quantization.format == quant::WeightFormat::kMxfp8;
  const std::string suffix(kScaleSuffixes[per_channel ? 1 : 0]);
  return {{spec.name, DType::kF8E4M3, spec.shape, ""},
          {spec.name + suffix, is_mx ? DType::kU8 : DType::kF32, grid, ""}};
}

bool is_supported(const TensorSlot& slot, DType dtype) {
  if (dtype == DType::kBF16 || dtype == DType::kF32 || dtype == DType::kF16) return true;
  return is_linear(slot) && dtype == DType::kF8E4M3;
}

void check_tensor(const TensorSlot& slot, const TensorInfo& info, const TensorInfo* scales,
                  formats::ProblemList& problems) {
  if (info.shape != slot.spec.shape) {
    problems.add(fmt::format("{} is {}, the configuration needs {}", info.name, shape_string(info.shape),
                             shape_string(slot.spec.shape)));
  }
  if (!is_supported(slot, info.dtype)) {
    problems.add(
        fmt::format("{} is {}, supported are {}", info.name, minimax::name(info.dtype),
                    is_linear(slot) ? "BF16, F32, F16 and F8_E4M3 with scales" : "BF16, F32 and F16"));
  }
  if (info.dtype == DType::kF8E4M3 && scales == nullptr) {
    problems.add(fmt::format("{} is F8_E4M3 and has no scales ({}_scale_inv or {}_scale)", info.name,
                             info.name, info.name));
  }
}

// Names the table uses: of its tensors, and of the scales of those that are quantised.
std::vector<std::string> used_names(const TensorTable& table, const TensorNames& names) {
  std::vector<std::string> used;
  for (const TensorSlot& slot : table.slots) {
    const TensorInfo* info = names.find(slot.spec.name);
    if (info == nullptr) continue;
    used.push_back(info->name);
    const TensorInfo* scales = find_scales(names, slot);
    // Names alone (an index without its shards) do not tell dtypes.
    if (scales != nullptr && (info->dtype == DType::kF8E4M3 || info->shape.empty())) {
      used.push_back(scales->name);
    }
  }
  std::sort(used.begin(), used.end());
  return used;
}

const SkippedTensors* find_skipped(const TensorTable& table, std::string_view canonical_name) {
  for (const SkippedTensors& skipped : table.skipped) {
    if (skipped.matches(canonical_name)) return &skipped;
  }
  return nullptr;
}

quant::Weight load_weight(const TensorTable& table, WeightSource& source, const TensorInfo& info,
                          const TensorInfo* scales, formats::Progress& progress) {
  const Tensor values = formats::load_tensor(source, info, progress);
  if (info.dtype != DType::kF8E4M3) return quant::plain_weight(values);
  const Tensor scale_values = formats::load_tensor(source, *scales, progress);
  std::optional<quant::BlockShape> declared;
  if (table.quantization.block.rows > 0) declared = table.quantization.block;
  return quant::quantized_weight(values, scale_values, declared);
}

NameDifference compare_names(const TensorTable& table, const TensorNames& names,
                             const std::vector<std::string>& used) {
  NameDifference difference;
  for (const TensorSlot& slot : table.slots) {
    if (!names.has(slot.spec.name)) difference.missing.push_back(slot.spec.name);
  }
  for (const auto& [canonical_name, info] : names.all()) {
    if (!std::binary_search(used.begin(), used.end(), info->name) &&
        find_skipped(table, canonical_name) == nullptr) {
      difference.unexpected.push_back(info->name);
    }
  }
  return difference;
}

void check_table(const TensorTable& table, const WeightSource& source, const TensorNames& names,
                 const std::vector<std::string>& used) {
  const NameDifference difference = compare_names(table, names, used);
  formats::ProblemList problems;
  for (const auto& name : difference.missing) problems.add(name + " is missing");
  for (const auto& name : difference.unexpected) problems.add(formats::printable(name) + " is unexpected");
  for (const auto& pair : names.duplicates()) problems.add(pair);
  for (const TensorSlot& slot : table.slots) {
    const TensorInfo* info = names.find(slot.spec.name);
    if (info != nullptr) check_tensor(slot, *info, find_scales(names, slot), problems);
  }
  problems.throw_if_any(fmt::format("{}: tensors do not match {}", source.describe(), table.architecture),
                        "Check that config.json belongs to these weights");
}

void say_what_is_skipped(const TensorTable& table, const TensorNames& names,
                         const std::vector<std::string>& used, formats::Progress& progress) {
  for (const SkippedTensors& skipped : table.skipped) {
    if (skipped.what.empty()) continue;
    const auto count = std::count_if(names.all().begin(), names.all().end(), [&](const auto& entry) {
      return skipped.matches(entry.first) &&
             !std::binary_search(used.begin(), used.end(), entry.second->name);
    });
    if (count > 0) progress.note(fmt::format("{} {} tensors are not loaded", count, skipped.what));
  }
}

void count_active(ModelSummary& summary) {
  const ComponentSize& experts = summary.component(Component::kExperts);
  const auto idle = [&summary](int64_t all) {
    return all / summary.num_experts * (summary.num_experts - summary.num_experts_per_tok);
  };
  const ComponentSize& embedding = summary.component(Component::kEmbedding);
  const ComponentSize& head = summary.component(Component::kHead);
  summary.active_parameters =
      summary.total_parameters - idle(experts.parameters) - embedding.parameters - head.parameters;
  // A tied head is counted as the embedding but multiplied all the same.
  summary.active_parameters_with_head = summary.active_parameters + summary.head_parameters;
  const ComponentSize& head_product = head.parameters > 0 ? head : embedding;
  summary.active_bytes_with_head =
      summary.weight_bytes - idle(experts.bytes) - embedding.bytes - head.bytes + head_product.bytes;
}

}  // namespace

std::vector<SkippedTensors> common_skipped(bool tied_head) {
  return {{"activation scale", [](std::string_view name) { return name.ends_with(".input_scale"); }},
          {"", [](std::string_view name) { return name.ends_with("rotary_emb.inv_freq"); }},
          {"", [tied_head](std::string_view name) { return tied_head && name == "lm_head.weight"; }}};
}

SkippedTensors skipped_mtp(int64_t num_layers) {
  return {"MTP", [num_layers](std::string_view name) { return is_mtp_tensor(name, num_layers); }};
}

std::string_view name(Component component) {
  switch (component) {
    case Component::kEmbedding:
      return "embedding";
    case Component::kLightningAttention:
      return "lightning attention";
    case Component::kFullAttention:
      return "full attention";
    case Component::kSparseAttention:
      return "sparse attention";
    case Component::kIndexer:
      return "indexer";
    case Component::kRouter:
      return "router";
    case Component::kExperts:
      return "experts";
    case Component::kSharedMlp:
      return "shared MLP";
    case Component::kDenseMlp:
      return "dense MLP";
    case Component::kNorms:
      return "norms";
    case Component::kHead:
      return "head";
  }
  return "?";
}

TensorNames::TensorNames(std::span<const TensorInfo> tensors, Canonical canonical) : canonical_(canonical) {
  for (const TensorInfo& info : tensors) {
    const auto [entry, is_new] = by_name_.emplace(canonical(info.name), &info);
    if (!is_new) {
      duplicates_.push_back(fmt::format("{} and {} mean the same", formats::printable(entry->second->name),
                                        formats::printable(info.name)));
    }
  }
}

const TensorInfo* TensorNames::find(std::string_view released_name) const {
  const auto found = by_name_.find(canonical_(released_name));
  return found == by_name_.end() ? nullptr : found->second;
}

NameDifference compare_names(const TensorTable& table, const TensorNames& names) {
  return compare_names(table, names, used_names(table, names));
}

void check_table(const TensorTable& table, const WeightSource& source) {
  const TensorNames names(source.tensors(), table.canonical);
  check_table(table, source, names, used_names(table, names));
}

void load_table(const TensorTable& table, WeightSource& source, formats::Progress& progress) {
  const TensorNames names(source.tensors(), table.canonical);
  const std::vector<std::string> used = used_names(table, names);
  check_table(table, source, names, used);
  say_what_is_skipped(table, names, used, progress);

  int64_t total_bytes = 0;
  for (const TensorSlot& slot : table.slots) {
    const TensorInfo* info = names.find(slot.spec.name);
    total_bytes += info->size_bytes();
    if (info->dtype == DType::kF8E4M3) total_bytes += find_scales(names, slot)->size_bytes();
  }
  progress.start("loading weights", total_bytes);
  for (const TensorSlot& slot : table.slots) {
    const TensorInfo& info = *names.find(slot.spec.name);
    if (is_linear(slot)) {
      slot.assign_weight(load_weight(table, source, info, find_scales(names, slot), progress));
    } else {
      const Tensor tensor = formats::load_tensor(source, info, progress);
      // Ops take norms and biases in F32 or BF16; there are few of them.
      const bool is_f16_vector = tensor.dtype() == DType::kF16 && tensor.rank() == 1;
      slot.assign(is_f16_vector ? source.tensor_as_f32(info) : tensor);
    }
  }
  progress.finish();
}

void plan_table(const TensorTable& table) {
  for (const TensorSlot& slot : table.slots) {
    const std::vector<TensorInfo> tensors = released_tensors_of(table, slot);
    const Tensor values(nullptr, tensors[0].dtype, tensors[0].shape);
    if (!is_linear(slot)) {
      slot.assign(values);
    } else if (tensors.size() == 1) {
      slot.assign_weight(quant::plain_weight(values));
    } else {
      const Tensor scales(nullptr, tensors[1].dtype, tensors[1].shape);
      quant::BlockShape block = table.quantization.block;
      if (block.rows == 0) block = {1, slot.spec.shape.back()};
      slot.assign_weight({table.quantization.format, values, scales, block.rows, block.columns});
    }
  }
}

std::vector<TensorInfo> released_tensors(const TensorTable& table) {
  std::vector<TensorInfo> all;
  for (const TensorSlot& slot : table.slots) {
    for (TensorInfo& info : released_tensors_of(table, slot)) all.push_back(std::move(info));
  }
  return all;
}

void count_tensors(const TensorTable& table, const WeightSource* source, ModelSummary& summary) {
  const std::vector<TensorInfo> released = released_tensors(table);
  const TensorNames names(source == nullptr ? std::span<const TensorInfo>(released) : source->tensors(),
                          table.canonical);
  for (const TensorSlot& slot : table.slots) {
    const int64_t parameters = element_count(slot.spec.shape);
    const TensorInfo* info = names.find(slot.spec.name);
    int64_t bytes = parameters * size_of(info == nullptr ? slot.spec.released_dtype : info->dtype);
    if (info != nullptr && info->dtype == DType::kF8E4M3) {
      if (const TensorInfo* scales = find_scales(names, slot)) bytes += scales->size_bytes();
    }
    ComponentSize& component = summary.components[static_cast<size_t>(slot.spec.component)];
    component.parameters += parameters;
    component.bytes += bytes;
    summary.total_parameters += parameters;
    summary.weight_bytes += bytes;
  }
  count_active(summary);
}

}  // namespace minimax::models
