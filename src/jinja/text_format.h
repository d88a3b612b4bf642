// Python's two text formatting languages: 'x' % y and 'x'.format(y).
#pragma once

#include <string>
#include <string_view>

#include "jinja/runtime.h"

namespace minimax::jinja {

// `format % value`; a tuple gives several values, a mapping named ones.
Value format_percent(Runtime& runtime, std::string_view format, const Value& value);

// `format.format(*args)`.
Value format_braces(Runtime& runtime, std::string_view format, const Args& args);

}  // namespace minimax::jinja
