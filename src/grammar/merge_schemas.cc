// Two schemas that must hold at once, as one.
#include <algorithm>

#include "core/error.h"
#include "grammar/json_schema.h"
#include "grammar/schema_types.h"

namespace minimax::grammar {
namespace {

using Json = nlohmann::ordered_json;

Json as_list(const Json& value) { return value.is_array() ? value : Json::array({value}); }

// Types in both; an integer is a number.
Json common_types(const Json& a, const Json& b) {
  Json common = Json::array();
  const auto add = [&](const Json& type) {
    if (std::find(common.begin(), common.end(), type) == common.end()) common.push_back(type);
  };
  for (const Json& x : as_list(a)) {
    for (const Json& y : as_list(b)) {
      if (x == y) add(x);
      if ((x == "integer" && y == "number") || (x == "number" && y == "integer")) add("integer");
    }
  }
  return common;
}

Json common_values(const Json& a, const Json& b) {
  Json common = Json::array();
  for (const Json& value : a) {
    if (std::find(b.begin(), b.end(), value) != b.end()) common.push_back(value);
  }
  return common;
}

Json united(const Json& a, const Json& b) {
  Json all = a;
  for (const Json& value : b) {
    if (std::find(all.begin(), all.end(), value) == all.end()) all.push_back(value);
  }
  return all;
}

bool is_lower_bound(const std::string& word) {
  return word == "minimum" || word == "exclusiveMinimum" || word == "minItems" || word == "minLength" ||
         word == "minProperties";
}
bool is_upper_bound(const std::string& word) {
  return word == "maximum" || word == "exclusiveMaximum" || word == "maxItems" || word == "maxLength" ||
         word == "maxProperties";
}

// A schema of {allOf: [a, b]}, without the list where one side says nothing.
Json both(const Json& a, const Json& b) {
  if (a == b || b == Json(true) || b == Json::object()) return a;
  if (a == Json(true) || a == Json::object()) return b;
  return Json{{"allOf", Json::array({a, b})}};
}

Json merged_word(const std::string& word, const Json& a, const Json& b, const std::string& pointer) {
  if (a == b) return a;
  if (word == "type") return common_types(a, b);
  if (a.is_number() && b.is_number()) {
    if (is_lower_bound(word)) return a < b ? b : a;
    if (is_upper_bound(word)) return a < b ? a : b;
  }
  if (a.is_array() && b.is_array()) {
    if (word == "enum") return common_values(a, b);
    if (word == "required" || word == "allOf") return united(a, b);
  }
  if (word == "properties" && a.is_object() && b.is_object()) {
    Json properties = a;
    for (const auto& [name, schema] : b.items()) {
      properties[name] = a.contains(name) ? both(a[name], schema) : schema;
    }
    return properties;
  }
  if (word == "items" || word == "additionalProperties") return both(a, b);
  fail("JSON schema at {}: \"{}\" stands on both sides of allOf, anyOf or $ref and cannot be joined",
       place(pointer), word);
}

// One side's additionalProperties is about all that it does not declare, the other side's properties
// included.
void check_closed(const Json& closed, const Json& other, const std::string& pointer) {
  const auto additional = closed.find("additionalProperties");
  const auto names = other.find("properties");
  if (additional == closed.end() || *additional == Json(true) || names == other.end()) return;
  const Json declared = closed.value("properties", Json::object());
  for (const auto& [name, _] : names->items()) {
    if (!declared.contains(name)) {
      fail(
          "JSON schema at {}: property \"{}\" falls under the additionalProperties of the other side of "
          "allOf, "
          "anyOf or $ref; declare it there too",
          place(pointer), name);
    }
  }
}

}  // namespace

std::string below(const std::string& pointer, std::string_view key) {
  std::string escaped;
  for (const char c : key) escaped += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return pointer + "/" + escaped;
}

Json merge_schemas(const Json& base, const Json& other, const std::string& pointer) {
  if (base == Json(false) || other == Json(false)) return false;
  if (base == Json(true)) return other;
  if (other == Json(true)) return base;
  if (!base.is_object() || !other.is_object()) {
    fail("JSON schema at {}: a schema is neither an object nor true or false", place(pointer));
  }
  check_closed(base, other, pointer);
  check_closed(other, base, pointer);
  Json result = base;
  for (const auto& [word, value] : other.items()) {
    const auto found = base.find(word);
    const bool is_annotation = word == "title" || word == "description" || word == "default" ||
                               word == "examples" || word == "$defs" || word == "definitions";
    if (is_annotation) continue;
    result[word] = found == base.end() ? value : merged_word(word, *found, value, pointer);
  }
  return result;
}

}  // namespace minimax::grammar
