// The global functions: range, dict, namespace, cycler, joiner, raise_exception, strftime_now.
#pragma once

#include <string_view>

#include "jinja/runtime.h"

namespace minimax::jinja {

// RETURNS: false when there is no such global.
bool find_global(Runtime& runtime, std::string_view name, Value* out);

}  // namespace minimax::jinja
