#include "models/table_builder.h"

#include <fmt/format.h>

#include <utility>

namespace minimax::models {

void TableBuilder::tensor(std::string name, std::vector<int64_t> shape, Component component, Tensor& place,
                          DType released_dtype) {
  const Range rows = {0, shape.front()};
  slots_.push_back(
      {{std::move(name), std::move(shape), released_dtype, component}, false, {{rows, &place}}, {}});
}

void TableBuilder::vector_part(std::string name, int64_t length, Range part, Component component,
                               Tensor& place) {
  slots_.push_back({{std::move(name), {length}, DType::kBF16, component}, false, {{part, &place}}, {}});
}

void TableBuilder::embedding(std::string name, std::vector<int64_t> shape, Range rows, Tensor& place,
                             quant::Weight* tied_head) {
  const Range columns = {0, shape.back()};
  slots_.push_back({{std::move(name), std::move(shape), DType::kBF16, Component::kEmbedding},
                    false,
                    {{rows, &place}},
                    {}});
  if (tied_head != nullptr) slots_.back().weights.push_back({0, rows, columns, tied_head});
}

TensorSlot& TableBuilder::linear(std::string name, std::vector<int64_t> shape, Component component) {
  const DType dtype = component == Component::kRouter ? DType::kF32 : DType::kBF16;
  slots_.push_back({{std::move(name), std::move(shape), dtype, component}, true, {}, {}});
  return slots_.back();
}

void TableBuilder::weight(std::string name, std::vector<int64_t> shape, Component component,
                          quant::Weight& place, const Cut& cut) {
  const Range all_rows = {0, shape[0]};
  const Range all_columns = {0, shape[1]};
  linear(std::move(name), std::move(shape), component)
      .weights.push_back({0, cut.rows.value_or(all_rows), cut.columns.value_or(all_columns), &place});
}

void TableBuilder::unused_weight(std::string name, std::vector<int64_t> shape, Component component) {
  linear(std::move(name), std::move(shape), component);
}

void TableBuilder::mlp(const std::string& folder, int64_t hidden, int64_t width, Range part,
                       Component component, MlpWeights& place, bool fused) {
  if (fused) {
    linear(folder + "gate_up_proj.weight", {2 * width, hidden}, component).weights = {
        {0, part, {0, hidden}, &place.w1},
        {0, {width + part.begin, width + part.end}, {0, hidden}, &place.w3}};
  } else {
    weight(folder + "gate_proj.weight", {width, hidden}, component, place.w1, {.rows = part});
    weight(folder + "up_proj.weight", {width, hidden}, component, place.w3, {.rows = part});
  }
  weight(folder + "down_proj.weight", {hidden, width}, component, place.w2, {.columns = part});
}

void TableBuilder::fused_experts(const std::string& folder, int64_t hidden, int64_t width,
                                 const ExpertCut& cut, std::vector<MlpWeights>& places) {
  const Range gate = cut.width;
  const Range up = {width + gate.begin, width + gate.end};
  const Range all = {0, hidden};
  TensorSlot& gate_up =
      linear(folder + "experts.gate_up_proj", {cut.count, 2 * width, hidden}, Component::kExperts);
  for (int64_t e = cut.experts.begin; e < cut.experts.end; ++e) {
    MlpWeights& place = places[static_cast<size_t>(e - cut.experts.begin)];
    gate_up.weights.push_back({e, gate, all, &place.w1});
    gate_up.weights.push_back({e, up, all, &place.w3});
  }
  TensorSlot& down = linear(folder + "experts.down_proj", {cut.count, hidden, width}, Component::kExperts);
  for (int64_t e = cut.experts.begin; e < cut.experts.end; ++e)
    down.weights.push_back({e, all, cut.width, &places[static_cast<size_t>(e - cut.experts.begin)].w2});
}

void TableBuilder::experts(const std::string& folder, int64_t hidden, int64_t width, const ExpertCut& cut,
                           ExpertNames names, std::vector<MlpWeights>& places) {
  places.resize(static_cast<size_t>(cut.experts.size()));
  if (names == ExpertNames::kFused) return fused_experts(folder, hidden, width, cut, places);
  for (int64_t e = 0; e < cut.count; ++e) {
    const std::string expert = fmt::format("{}experts.{}.", folder, e);
    if (e >= cut.experts.begin && e < cut.experts.end) {
      MlpWeights& place = places[static_cast<size_t>(e - cut.experts.begin)];
      weight(expert + "w1.weight", {width, hidden}, Component::kExperts, place.w1, {.rows = cut.width});
      weight(expert + "w3.weight", {width, hidden}, Component::kExperts, place.w3, {.rows = cut.width});
      weight(expert + "w2.weight", {hidden, width}, Component::kExperts, place.w2, {.columns = cut.width});
    } else {
      unused_weight(expert + "w1.weight", {width, hidden}, Component::kExperts);
      unused_weight(expert + "w3.weight", {width, hidden}, Component::kExperts);
      unused_weight(expert + "w2.weight", {hidden, width}, Component::kExperts);
    }
  }
}

}  // namespace minimax::models
