// The filters: value|name(args).
#pragma once

#include <string_view>

#include "jinja/runtime.h"

namespace minimax::jinja {

using Filter = Value (*)(Runtime& runtime, const Value& input, Args args);

// RETURNS: nullptr when there is no such filter.
Filter find_filter(std::string_view name);

// The two halves of the table: filters on text and numbers, filters on sequences.
Filter find_scalar_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);

}  // namespace minimax::jinja
