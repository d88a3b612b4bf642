// A request that an API refuses, in the terms in which it answers.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"

namespace minimax::openai {

// {"error": {...}}, typed by the status. `field` and `code` may be empty.
nlohmann::ordered_json error_body(int status, const std::string& message, const std::string& field = {},
                                  const std::string& code = {});

class ApiError : public Error {
 public:
  // `field`: the parameter that is wrong, empty when it is the request as a whole.
  ApiError(std::string field, const std::string& message, int status = 400, std::string code = {})
      : Error(message), field_(std::move(field)), status_(status), code_(std::move(code)) {}

  int status() const { return status_; }
  const std::string& field() const { return field_; }
  nlohmann::ordered_json body() const { return error_body(status_, what(), field_, code_); }

 private:
  std::string field_;
  int status_;
  std::string code_;
};

}  // namespace minimax::openai
