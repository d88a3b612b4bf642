// Typed access to a config.json: every error names the field, the value found and what is accepted.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace minimax::models {

class ConfigReader {
 public:
  // REQUIRES: `object` is a JSON object and outlives the reader. `prefix` precedes field names in messages.
  explicit ConfigReader(const nlohmann::json& object, std::string prefix = "");

  // The value of the first of `names` that is present and not null, or nullptr.
  const nlohmann::json* find(std::initializer_list<std::string_view> names) const;
  const nlohmann::json* find(std::string_view name) const { return find({name}); }

  // An integer in [low, high]. THROWS: Error when absent.
  int64_t integer(std::string_view name, int64_t low, int64_t high) const;
  int64_t integer_or(std::string_view name, int64_t absent, int64_t low, int64_t high) const;
  // An integer, or a list (one per layer or a single one) of equal integers.
  std::optional<int64_t> uniform_integer(std::string_view name, int64_t low, int64_t high,
                                         int64_t length) const;
  // A finite number in [low, high] under the first name that is present.
  std::optional<double> number(std::initializer_list<std::string_view> names, double low, double high) const;
  double required_number(std::string_view name, double low, double high) const;
  std::optional<bool> boolean(std::string_view name) const;
  std::optional<std::string> text(std::string_view name) const;
  // The elements of a list of exactly `length`, or nullptr when the field is absent.
  const nlohmann::json* list(std::string_view name, int64_t length) const;
  // A reader of a nested object, or nothing when the field is absent.
  std::optional<ConfigReader> object(std::string_view name) const;

  // THROWS: Error "config.json: <name> is <value>; expected <expected>".
  [[noreturn]] void refuse(std::string_view name, const nlohmann::json& value,
                           std::string_view expected) const;

 private:
  int64_t checked_integer(std::string_view name, const nlohmann::json& value, int64_t low,
                          int64_t high) const;
  [[noreturn]] void refuse_absent(std::string_view name, std::string_view expected) const;

  const nlohmann::json& object_;
  std::string prefix_;
};

}  // namespace minimax::models
