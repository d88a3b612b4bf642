// Errors. The library never prints and never aborts: it throws one of these two types.
//
// Message shape: operation, what was expected, what was found, which tensor or file, what to do.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace minimax {

// What the user gave cannot be used: a bad file, an unsupported model, a bad argument, too little memory.
// Caught at the edges (apps, server, python), where it becomes one clear line and exit code 2.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A bug in the caller's code inside this project (wrong shape, dtype, aliasing, capacity).
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// THROWS: Error with the formatted message.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void throw_internal_error(const char* file, int line, const char* expression,
                                       const std::string& message);

}  // namespace minimax

// MM_CHECK(x.dim(0) == n, "linear: x has {} rows, expected {}", x.dim(0), n): throws InternalError.
#define MM_CHECK(condition, ...)                                                                   \
  do {                                                                                             \
    if (!(condition)) [[unlikely]] {                                                               \
      ::minimax::throw_internal_error(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
    }                                                                                              \
  } while (false)
