#include "models/minimax_m1_weights.h"

#include <string>
#include <utility>

#include "core/error.h"
#include "formats/dummy_weights.h"
#include "formats/printable.h"
#include "formats/problem_list.h"
#include "models/minimax_m1_tensors.h"

namespace minimax::models {
namespace {

using formats::TensorInfo;
using formats::WeightSource;

bool is_weight_dtype(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF32; }

void check_tensor(const TensorSpec& spec, const TensorInfo& info, formats::ProblemList& problems) {
  if (info.shape != spec.shape) {
    problems.add(fmt::format("{} is {}, the configuration needs {}", spec.name, shape_string(info.shape),
                             shape_string(spec.shape)));
  }
  if (!is_weight_dtype(info.dtype)) {
    problems.add(fmt::format("{} is {}, supported are BF16 and F32", spec.name, minimax::name(info.dtype)));
  }
}

void check_tensors(const MiniMaxM1Config& config, const std::vector<TensorSlot>& slots,
                   const WeightSource& source) {
  std::vector<std::string> names;
  for (const TensorInfo& info : source.tensors()) names.push_back(info.name);
  const NameDifference difference = compare_names(config, names);
  formats::ProblemList problems;
  for (const auto& name : difference.missing) problems.add(name + " is missing");
  for (const auto& name : difference.unexpected) problems.add(formats::printable(name) + " is unexpected");
  for (const TensorSlot& slot : slots) {
    if (const TensorInfo* info = source.find(slot.spec.name)) check_tensor(slot.spec, *info, problems);
  }
  problems.throw_if_any(fmt::format("{}: tensors do not match {}", source.describe(), config.architecture),
                        "Check that config.json belongs to these weights");
}

}  // namespace

void check_weights(const MiniMaxM1Config& config, const WeightSource& source) {
  const TensorNaming naming = detect_naming(config, source);
  MiniMaxM1Weights places;
  check_tensors(config, tensor_slots(with_stored_shared_width(config, naming, source), naming, places),
                source);
}

MiniMaxM1Weights load_weights(const MiniMaxM1Config& config, WeightSource& source,
                              formats::Progress& progress) {
  const TensorNaming naming = detect_naming(config, source);
  MiniMaxM1Weights weights;
  const auto slots = tensor_slots(with_stored_shared_width(config, naming, source), naming, weights);
  check_tensors(config, slots, source);

  int64_t total_bytes = 0;
  for (const TensorSlot& slot : slots) total_bytes += source.find(slot.spec.name)->size_bytes();
  progress.start("loading weights", total_bytes);
  for (const TensorSlot& slot : slots) {
    slot.assign(formats::load_tensor(source, *source.find(slot.spec.name), progress));
  }
  progress.finish();
  if (config.tie_word_embeddings) weights.lm_head = quant::plain_weight(weights.embed_tokens);
  return weights;
}

MiniMaxM1Weights planned_weights(const MiniMaxM1Config& config) {
  MiniMaxM1Weights weights;
  for (const TensorSlot& slot : tensor_slots(config, {}, weights)) {
    slot.assign(Tensor(nullptr, slot.spec.released_dtype, slot.spec.shape));
  }
  if (config.tie_word_embeddings) weights.lm_head = quant::plain_weight(weights.embed_tokens);
  return weights;
}

std::unique_ptr<WeightSource> dummy_weights(const MiniMaxM1Config& config, uint64_t seed) {
  const TensorNaming naming = detect_naming(config, [](std::string_view) { return false; });
  std::vector<TensorInfo> tensors;
  for (TensorSpec& spec : tensor_specs(config, naming)) {
    tensors.push_back({std::move(spec.name), spec.released_dtype, std::move(spec.shape), ""});
  }
  return std::make_unique<formats::DummyWeights>(std::move(tensors), seed);
}

}  // namespace minimax::models
