#include "models/canonical_name.h"

#include <charconv>
#include <system_error>

namespace minimax::models {

std::string_view without_prefix(std::string_view name, std::string_view prefix) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

std::string replaced(std::string_view name, std::string_view from, std::string_view to) {
  std::string result(name);
  if (const size_t at = result.find(from); at != std::string::npos) result.replace(at, from.size(), to);
  return result;
}

bool is_vision_tensor(std::string_view name) {
  const std::string_view inner = without_prefix(name, "model.");
  for (const std::string_view part :
       {"vision_tower.", "vision_model.", "multi_modal_projector.", "patch_merge_mlp.", "image_newline"}) {
    if (inner.starts_with(part)) return true;
  }
  return false;
}

bool is_mtp_tensor(std::string_view name, int64_t num_layers) {
  if (name.starts_with("mtp.") || name.find(".mtp.") != std::string_view::npos) return true;
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return false;
  int64_t layer = 0;
  const char* begin = name.data() + kLayers.size();
  const auto [rest, error] = std::from_chars(begin, name.data() + name.size(), layer);
  return error == std::errc() && rest != begin && layer >= num_layers;
}

}  // namespace minimax::models
