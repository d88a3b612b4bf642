// Fields of a request's JSON, checked as they are read.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "openai/error.h"

namespace minimax::openai {

// THROWS: ApiError naming the byte where `text` is no JSON, or nests deeper than any request does.
nlohmann::ordered_json parse_json(std::string_view text);
// On one line; text that is no UTF-8 is replaced.
std::string dump_json(const nlohmann::ordered_json& json);

// THROWS: ApiError: "FIELD is VALUE; expected EXPECTED".
[[noreturn]] void refuse(const std::string& field, const nlohmann::ordered_json& value,
                         const std::string& expected);

// The field, unless it is absent or null. REQUIRES: `body` is an object.
const nlohmann::ordered_json* find(const nlohmann::ordered_json& body, const std::string& field);

// Each gives nothing, or `fallback`, for a field that is absent. THROWS: ApiError.
std::optional<double> number(const nlohmann::ordered_json& body, const std::string& field, double low,
                             double high);
std::optional<int64_t> integer(const nlohmann::ordered_json& body, const std::string& field, int64_t low,
                               int64_t high);
bool boolean(const nlohmann::ordered_json& body, const std::string& field, bool fallback);
std::optional<std::string> text(const nlohmann::ordered_json& body, const std::string& field);

// THROWS: ApiError.
std::vector<int32_t> token_ids(const nlohmann::ordered_json& value, const std::string& field);

}  // namespace minimax::openai
