#include "core/error.h"

#include <string_view>

namespace minimax {

void throw_internal_error(const char* file, int line, const char* expression, const std::string& message) {
  std::string_view path(file);
  if (const auto src = path.rfind("src/"); src != std::string_view::npos) path.remove_prefix(src);
  throw InternalError(fmt::format("{} ({}:{}: {})", message, path, line, expression));
}

}  // namespace minimax
