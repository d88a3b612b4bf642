// JSON schema as grammar: every text of the grammar is valid JSON that the schema accepts.
//
// Supported: type (also lists), enum, const, properties, required, additionalProperties, items, prefixItems,
// minItems, maxItems, minLength, maxLength, pattern, format (date, date-time, time, uuid, email, hostname,
// ipv4, uri), minimum, maximum, exclusiveMinimum, exclusiveMaximum, minProperties (0 and 1) and maxProperties
// without declared properties, anyOf, oneOf, allOf, and $ref into the same document, also recursive. Other
// keywords that a validator would check are refused with their place; annotations are ignored.
//
// What a schema leaves open is narrowed, as common servers do:
//  - an object's declared properties come in their order; others only where additionalProperties asks for
//    them, behind the declared ones. An object without any of these words is free, and so is an array.
//  - items behind prefixItems come only where `items` or minItems asks for them.
//  - without `type`, the type is the one that the other words are about.
//  - oneOf is taken as anyOf: an answer is not checked against fitting several.
#pragma once

#include <nlohmann/json.hpp>

#include "grammar/json_text.h"

namespace minimax::grammar {

inline constexpr int64_t kMaxSchemaDepth = 64;
inline constexpr int64_t kMaxSchemaParts = 100'000;

// THROWS: Error naming the JSON pointer of what is wrong or not supported.
ExprId add_json_schema(JsonText& json, const nlohmann::ordered_json& schema);

// The part of `schema` at a JSON pointer, whose references lead into all of it. REQUIRES: it is there.
ExprId add_json_schema(JsonText& json, const nlohmann::ordered_json& schema, const std::string& pointer);

// The JSON pointer of `key` in what `pointer` leads to.
std::string below(const std::string& pointer, std::string_view key);

// `base` and `other` at once, as one schema. THROWS: Error when words of both cannot be joined.
nlohmann::ordered_json merge_schemas(const nlohmann::ordered_json& base, const nlohmann::ordered_json& other,
                                     const std::string& pointer);

}  // namespace minimax::grammar
