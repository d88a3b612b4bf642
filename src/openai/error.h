// A request that an API refuses, in the terms in which it answers.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"

namespace minimax::openai {

class ApiError : public Error {
 public:
  // `field`: the parameter that is wrong, empty when it is the request as a whole.
  ApiError(std::string field, const std::string& message) : Error(message), field_(std::move(field)) {}

  int status() const { return 400; }
  const std::string& field() const { return field_; }
  // {"error": {...}}
  nlohmann::ordered_json body() const;

 private:
  std::string field_;
};

}  // namespace minimax::openai
