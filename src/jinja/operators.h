// Python's operators on values.
#pragma once

#include <string_view>

#include "jinja/ast.h"
#include "jinja/runtime.h"

namespace minimax::jinja {

// op is one of + - * / // % **. THROWS: Error for unsupported types, division by zero, overflow of 64 bits.
Value binary(Runtime& runtime, std::string_view op, const Value& a, const Value& b);
Value negate(const Value& value);
Value plus(const Value& value);
bool compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b);
// a < b, charged for the size of the values.
bool ordered(Runtime& runtime, const Value& a, const Value& b);
bool same(Runtime& runtime, const Value& a, const Value& b);
// `needle in haystack`
bool contains(Runtime& runtime, const Value& haystack, const Value& needle);

// Element `index` (negative from the end) of a string or sequence. RETURNS: false when there is none.
bool index_value(const Value& object, int64_t index, Value* out);
// object[begin:end:step]; None for an absent part.
Value slice(Runtime& runtime, const Value& object, const Value& begin, const Value& end, const Value& step);
// Characters [begin, end) of a text. REQUIRES: 0 <= begin <= end <= text.length.
std::string_view substring(const Text& text, int64_t begin, int64_t end);
// RETURNS: len(value). THROWS: Error when it has none.
int64_t length_of(const Value& value);

}  // namespace minimax::jinja
