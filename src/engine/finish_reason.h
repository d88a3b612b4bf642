// Why a sequence ended.
#pragma once

#include <cstdint>
#include <string_view>

namespace minimax::engine {

enum class FinishReason : uint8_t {
  kStop,    // a stop token, or the caller had enough
  kLength,  // max_tokens or a full context
  kCancelled,
  kTimeout,
  kError,
};

std::string_view name(FinishReason reason);

}  // namespace minimax::engine
