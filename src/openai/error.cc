#include "openai/error.h"

namespace minimax::openai {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

}  // namespace

nlohmann::ordered_json error_body(int status, const std::string& message, const std::string& field,
                                  const std::string& code) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(text);
  };
  return {{"error",
           {{"message", message},
            {"type", type_of(status)},
            {"param", or_null(field)},
            {"code", or_null(code)}}}};
}

}  // namespace minimax::openai
