#include "models/config_reader.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "formats/printable.h"

namespace minimax::models {

using nlohmann::json;

ConfigReader::ConfigReader(const json& object, std::string prefix)
    : object_(object), prefix_(std::move(prefix)) {
  MM_CHECK(object.is_object(), "config reader: {} is no object", prefix_);
}

const json* ConfigReader::find(std::initializer_list<std::string_view> names) const {
  for (const std::string_view name : names) {
    const auto found = object_.find(name);
    if (found != object_.end() && !found->is_null()) return &*found;
  }
  return nullptr;
}

int64_t ConfigReader::integer(std::string_view name, int64_t low, int64_t high) const {
  const json* value = find(name);
  if (value == nullptr) refuse_absent(name, fmt::format("an integer from {} to {}", low, high));
  return checked_integer(name, *value, low, high);
}

int64_t ConfigReader::integer_or(std::string_view name, int64_t absent, int64_t low, int64_t high) const {
  const json* value = find(name);
  return value == nullptr ? absent : checked_integer(name, *value, low, high);
}

std::optional<int64_t> ConfigReader::uniform_integer(std::string_view name, int64_t low, int64_t high,
                                                     int64_t length) const {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_array()) return checked_integer(name, *value, low, high);
  const auto size = static_cast<int64_t>(value->size());
  if (size != 1 && size != length) {
    refuse(name, *value, fmt::format("one integer, or a list of 1 or {} of them", length));
  }
  const int64_t first = checked_integer(name, value->front(), low, high);
  for (const json& element : *value) {
    if (checked_integer(name, element, low, high) != first) {
      refuse(name, *value, "the same value for every layer; layers of different sizes are not supported");
    }
  }
  return first;
}

std::optional<double> ConfigReader::number(std::initializer_list<std::string_view> names, double low,
                                           double high) const {
  for (const std::string_view name : names) {
    const json* value = find(name);
    if (value == nullptr) continue;
    const double x = value->is_number() ? value->get<double>() : NAN;
    if (!(x >= low && x <= high)) refuse(name, *value, fmt::format("a number from {} to {}", low, high));
    return x;
  }
  return std::nullopt;
}

double ConfigReader::required_number(std::string_view name, double low, double high) const {
  const auto value = number({name}, low, high);
  if (!value) refuse_absent(name, fmt::format("a number from {} to {}", low, high));
  return *value;
}

std::optional<bool> ConfigReader::boolean(std::string_view name) const {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse(name, *value, "true or false");
  return value->get<bool>();
}

std::optional<std::string> ConfigReader::text(std::string_view name) const {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(name, *value, "a text");
  return value->get<std::string>();
}

const json* ConfigReader::list(std::string_view name, int64_t length) const {
  const json* value = find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) refuse(name, *value, "a list");
  if (static_cast<int64_t>(value->size()) != length) {
    fail("config.json: {}{} has {} elements; expected {}, one per layer", prefix_, name, value->size(),
         length);
  }
  return value;
}

std::optional<ConfigReader> ConfigReader::object(std::string_view name) const {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) refuse(name, *value, "an object");
  return ConfigReader(*value, fmt::format("{}{}.", prefix_, name));
}

int64_t ConfigReader::checked_integer(std::string_view name, const json& value, int64_t low,
                                      int64_t high) const {
  const bool is_in_range =
      value.is_number_integer() &&
      !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(high)) &&
      value.get<int64_t>() >= low && value.get<int64_t>() <= high;
  if (!is_in_range) refuse(name, value, fmt::format("an integer from {} to {}", low, high));
  return value.get<int64_t>();
}

void ConfigReader::refuse(std::string_view name, const json& value, std::string_view expected) const {
  const std::string found = value.dump(-1, ' ', true, json::error_handler_t::replace);
  fail("config.json: {}{} is {}; expected {}", prefix_, name, formats::printable(found, 80), expected);
}

void ConfigReader::refuse_absent(std::string_view name, std::string_view expected) const {
  fail(
      "config.json: {}{} is missing; expected {}; sizes are never guessed, add it or download the file again",
      prefix_, name, expected);
}

}  // namespace minimax::models
