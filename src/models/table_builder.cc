#include "models/table_builder.h"

#include <fmt/format.h>

#include <utility>

namespace minimax::models {

void TableBuilder::tensor(std::string name, std::vector<int64_t> shape, Component component, Tensor& place,
                          DType released_dtype) {
  slots_.push_back({{std::move(name), std::move(shape), released_dtype, component},
                    [&place](const Tensor& tensor) { place = tensor; },
                    {}});
}

void TableBuilder::embedding(std::string name, std::vector<int64_t> shape, Tensor& place,
                             quant::Weight* tied_head) {
  slots_.push_back({{std::move(name), std::move(shape), DType::kBF16, Component::kEmbedding},
                    [&place, tied_head](const Tensor& tensor) {
                      place = tensor;
                      if (tied_head != nullptr) *tied_head = quant::plain_weight(tensor);
                    },
                    {}});
}

void TableBuilder::weight(std::string name, std::vector<int64_t> shape, Component component,
                          std::function<void(const quant::Weight&)> assign) {
  const DType dtype = component == Component::kRouter ? DType::kF32 : DType::kBF16;
  slots_.push_back({{std::move(name), std::move(shape), dtype, component}, {}, std::move(assign)});
}

void TableBuilder::weight(std::string name, std::vector<int64_t> shape, Component component,
                          quant::Weight& place) {
  weight(std::move(name), std::move(shape), component,
         [&place](const quant::Weight& weight) { place = weight; });
}

void TableBuilder::mlp(const std::string& folder, int64_t hidden, int64_t width, Component component,
                       MlpWeights& place, bool fused) {
  if (fused) {
    weight(folder + "gate_up_proj.weight", {2 * width, hidden}, component,
           [&place, width](const quant::Weight& both) {
             place.w1 = both.rows(0, width);
             place.w3 = both.rows(width, 2 * width);
           });
  } else {
    weight(folder + "gate_proj.weight", {width, hidden}, component, place.w1);
    weight(folder + "up_proj.weight", {width, hidden}, component, place.w3);
  }
  weight(folder + "down_proj.weight", {hidden, width}, component, place.w2);
}

void TableBuilder::experts(const std::string& folder, int64_t hidden, int64_t width, ExpertNames names,
                           std::vector<MlpWeights>& places) {
  const auto count = static_cast<int64_t>(places.size());
  if (names == ExpertNames::kFused) {
    weight(folder + "experts.gate_up_proj", {count, 2 * width, hidden}, Component::kExperts,
           [&places, width](const quant::Weight& all) {
             for (size_t e = 0; e < places.size(); ++e) {
               const quant::Weight both = all.expert(static_cast<int64_t>(e));
               places[e].w1 = both.rows(0, width);
               places[e].w3 = both.rows(width, 2 * width);
             }
           });
    weight(folder + "experts.down_proj", {count, hidden, width}, Component::kExperts,
           [&places](const quant::Weight& all) {
             for (size_t e = 0; e < places.size(); ++e) {
               places[e].w2 = all.expert(static_cast<int64_t>(e));
             }
           });
    return;
  }
  for (size_t e = 0; e < places.size(); ++e) {
    const std::string expert = fmt::format("{}experts.{}.", folder, e);
    weight(expert + "w1.weight", {width, hidden}, Component::kExperts, places[e].w1);
    weight(expert + "w3.weight", {width, hidden}, Component::kExperts, places[e].w3);
    weight(expert + "w2.weight", {hidden, width}, Component::kExperts, places[e].w2);
  }
}

}  // namespace minimax::models
