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

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

// The scales beside a linear weight, or nullptr.
const TensorInfo* find_scales(const TensorNames& names, const TensorSlot& slot) {
  if (!slot.is_linear) return nullptr;
  for (const std::string_view suffix : kScaleSuffixes) {
    if (const TensorInfo* info = names.find(slot.spec.name + std::string(suffix))) return info;
  }
  return nullptr;
}

// The values and, for a quantised weight, the scales of the released checkpoint.
std::vector<TensorInfo> released_tensors_of(const TensorTable& table, const TensorSlot& slot) {
  const TensorSpec& spec = slot.spec;
  const QuantizationConfig& quantization = table.quantization;
  const bool is_quantised = slot.is_linear && spec.component != Component::kRouter &&
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
  return slot.is_linear && dtype == DType::kF8E4M3;
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
                    slot.is_linear ? "BF16, F32, F16 and F8_E4M3 with scales" : "BF16, F32 and F16"));
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

// What the pieces of a slot need of a source: parts of tensors to bring into memory.
struct Binding {
  struct Part {
    const TensorInfo* info;
    Tensor tensor;
    formats::Area area;
  };
  std::vector<Part> parts;

  int64_t size_bytes() const {
    int64_t bytes = 0;
    for (const Part& part : parts) bytes += part.tensor.size_bytes();
    return bytes;
  }
};

// A tensor of a source as a view, without reading it.
using View = std::function<Tensor(const TensorInfo&)>;

Tensor without_memory(const TensorInfo& info) {
  if (info.shape.empty()) return {nullptr, info.dtype, {1}, info.name};
  return {nullptr, info.dtype, info.shape, info.name};
}

formats::Area values_area(const quant::Weight& whole, const WeightPiece& piece) {
  const int64_t first = piece.matrix * whole.out_features();
  return {{first + piece.rows.begin, first + piece.rows.end}, piece.columns};
}

// In the grid of one scale a block, however the file shapes it.
formats::Area scales_area(const quant::Weight& whole, const WeightPiece& piece, const quant::Weight& part) {
  if (part.scales.numel() == 0) return {};
  const int64_t row =
      piece.matrix * whole.scales.dim(whole.scales.rank() - 2) + whole.scale_row(piece.rows.begin);
  const int64_t column = whole.scale_column(piece.columns.begin);
  return {{row, row + part.scales.dim(0)}, {column, column + part.scales.dim(1)}};
}

// Gives the pieces of a slot their parts of its tensors.
Binding bind(const TensorTable& table, const TensorSlot& slot, const TensorNames& names, const View& view) {
  Binding binding;
  if (slot.tensors.empty() && slot.weights.empty()) return binding;
  const TensorInfo& info = *names.find(slot.spec.name);
  const Tensor values = view(info);
  for (const TensorPiece& piece : slot.tensors) {
    *piece.place = values.slice(0, piece.rows.begin, piece.rows.end);
    const bool is_vector = values.rank() == 1;
    binding.parts.push_back(
        {&info, *piece.place,
         is_vector ? formats::Area{{0, 1}, piece.rows} : formats::Area{piece.rows, {0, values.dim(1)}}});
  }
  if (slot.weights.empty()) return binding;
  const TensorInfo* scales = info.dtype == DType::kF8E4M3 ? find_scales(names, slot) : nullptr;
  std::optional<quant::BlockShape> declared;
  if (table.quantization.block.rows > 0) declared = table.quantization.block;
  const quant::Weight whole = scales == nullptr ? quant::plain_weight(values)
                                                : quant::quantized_layout(values, view(*scales), declared);
  for (const WeightPiece& piece : slot.weights) {
    const quant::Weight matrix = whole.is_stacked() ? whole.expert(piece.matrix) : whole;
    *piece.place = matrix.part(piece.rows, piece.columns);
    binding.parts.push_back({&info, piece.place->values, values_area(whole, piece)});
    if (scales != nullptr)
      binding.parts.push_back({scales, piece.place->scales, scales_area(whole, piece, *piece.place)});
  }
  return binding;
}

// Moves a slot's pieces to the backend's memory; the source may forget what it read. A tensor that is both
// an embedding and a tied head is kept once.
void keep_pieces(const TensorSlot& slot, ops::Backend& backend, WeightSource& source) {
  const Tensor* shared = slot.tensors.empty() ? nullptr : slot.tensors.front().place;
  const void* shared_host = shared == nullptr ? nullptr : shared->raw();
  for (const TensorPiece& piece : slot.tensors) *piece.place = backend.keep(*piece.place);
  for (const WeightPiece& piece : slot.weights) {
    quant::Weight& weight = *piece.place;
    weight.values =
        shared_host != nullptr && weight.values.raw() == shared_host ? *shared : backend.keep(weight.values);
    if (weight.scales.defined()) weight.scales = backend.keep(weight.scales);
  }
  source.release();
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

void load_table(const TensorTable& table, WeightSource& source, formats::Progress& progress,
                ops::Backend* backend) {
  const TensorNames names(source.tensors(), table.canonical);
  const std::vector<std::string> used = used_names(table, names);
  check_table(table, source, names, used);
  say_what_is_skipped(table, names, used, progress);

  int64_t total_bytes = 0;
  for (const TensorSlot& slot : table.slots)
    total_bytes += bind(table, slot, names, &without_memory).size_bytes();
  progress.start("loading weights", total_bytes);
  const View view = [&source](const TensorInfo& info) { return source.tensor(info); };
  for (const TensorSlot& slot : table.slots) {
    for (const auto& [info, part, area] : bind(table, slot, names, view).parts)
      formats::load_part(source, *info, part, area, progress);
    for (const WeightPiece& piece : slot.weights) quant::check_scales(*piece.place);
    for (const TensorPiece& piece : slot.tensors) {
      // Ops take norms and biases in F32 or BF16; there are few of them.
      const bool is_f16_vector = piece.place->dtype() == DType::kF16 && piece.place->rank() == 1;
      if (is_f16_vector) *piece.place = source.as_f32(*piece.place);
    }
    if (backend != nullptr && !backend->is_host()) keep_pieces(slot, *backend, source);
  }
  progress.finish();
}

std::map<std::string, int64_t> held_bytes(const TensorTable& table, const WeightSource* source) {
  const std::vector<TensorInfo> released = released_tensors(table);
  const TensorNames names(source == nullptr ? std::span<const TensorInfo>(released) : source->tensors(),
                          table.canonical);
  std::map<const TensorInfo*, std::vector<formats::Area>> areas;
  for (const TensorSlot& slot : table.slots) {
    for (const auto& [info, part, area] : bind(table, slot, names, &without_memory).parts)
      areas[info].push_back(area);
  }
  std::map<std::string, int64_t> bytes;
  for (const auto& [info, parts] : areas)
    bytes[info->name] = formats::covered_elements(parts) * size_of(info->dtype);
  return bytes;
}

void plan_table(const TensorTable& table) {
  const std::vector<TensorInfo> released = released_tensors(table);
  const TensorNames names(released, table.canonical);
  for (const TensorSlot& slot : table.slots) bind(table, slot, names, &without_memory);
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
