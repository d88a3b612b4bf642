// The methods of strings, lists, tuples, mappings and numbers that a template may call.
#pragma once

#include <string_view>

#include "jinja/runtime.h"

namespace minimax::jinja {

enum class MethodKind : uint8_t {
  kNone,         // no such attribute in Python either
  kMethod,       // callable with call_method
  kUnsafe,       // exists, but the sandbox hides it: mutation, underscore names
  kUnsupported,  // exists in Python, refused here
};

MethodKind find_method(const Value& object, std::string_view name);

// REQUIRES: find_method(self, name) == kMethod.
Value call_method(Runtime& runtime, const Value& self, std::string_view name, Args args);

}  // namespace minimax::jinja
