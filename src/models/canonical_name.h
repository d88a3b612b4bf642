// Parts of the canonical tensor names of tensor_table.h that families share.
#pragma once

#include <string>
#include <string_view>

namespace minimax::models {

// `name` without `prefix`, when it begins with it.
std::string_view without_prefix(std::string_view name, std::string_view prefix);

// `name` with the first `from` replaced by `to`.
std::string replaced(std::string_view name, std::string_view from, std::string_view to);

// Tensors of an image tower and its projectors, in the spellings of MiniMax-VL-01, M3 and transformers.
bool is_vision_tensor(std::string_view name);

// Multi-token-prediction modules: an `mtp` path component, or a layer beyond the model's.
bool is_mtp_tensor(std::string_view name, int64_t num_layers);

}  // namespace minimax::models
