// The tests: value is name(args).
#pragma once

#include <string_view>

#include "jinja/runtime.h"

namespace minimax::jinja {

using Test = bool (*)(Runtime& runtime, const Value& input, Args args);

// RETURNS: nullptr when there is no such test.
Test find_test(std::string_view name);

}  // namespace minimax::jinja
