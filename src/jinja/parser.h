// Tokens to syntax tree.
#pragma once

#include <string_view>

#include "jinja/ast.h"
#include "jinja/limits.h"

namespace minimax::jinja {

// THROWS: Error naming the line.
Syntax parse(std::string_view source, const Limits& limits);

}  // namespace minimax::jinja
