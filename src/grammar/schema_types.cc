#include "grammar/schema_types.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"
#include "grammar/string_formats.h"

namespace minimax::grammar {
namespace {

using Json = nlohmann::ordered_json;

void add_bound(const Json& value, bool is_integer, bool is_min, bool is_exclusive, const std::string& pointer,
               NumberBounds& bounds) {
  constexpr double kExact = 9e15;
  int64_t whole = 0;
  if (value.is_number_float()) {
    const double number = value.get<double>();
    const double rounded = is_min ? std::ceil(number) : std::floor(number);
    const bool is_usable = std::abs(number) <= kExact && (is_integer || rounded == number);
    if (!is_usable) refuse_schema(pointer, value, "a whole number below 9e15");
    whole = static_cast<int64_t>(rounded);
    is_exclusive = is_exclusive && rounded == number;
  } else if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) {
    refuse_schema(pointer, value, "a number of 63 bits");
  } else {
    whole = value.get<int64_t>();
  }
  std::optional<int64_t>& bound = is_min ? bounds.min : bounds.max;
  bool& excludes = is_min ? bounds.excludes_min : bounds.excludes_max;
  if (bound && *bound == whole) {
    excludes = excludes || is_exclusive;
  } else if (!bound || (is_min ? whole > *bound : whole < *bound)) {
    bound = whole;
    excludes = is_exclusive;
  }
}

std::optional<NumberBounds> bounds_of(const Json& schema, bool is_integer, const std::string& pointer) {
  NumberBounds bounds;
  bool has_bounds = false;
  for (const char* word : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
    const Json* value = find(schema, word);
    if (value == nullptr) continue;
    if (!value->is_number()) refuse_schema(below(pointer, word), *value, "a number");
    has_bounds = true;
    const std::string_view name = word;
    const bool is_min = name.ends_with("inimum");
    const bool is_exclusive = name.starts_with("exclusive");
    add_bound(*value, is_integer, is_min, is_exclusive, below(pointer, word), bounds);
  }
  return has_bounds ? std::optional(bounds) : std::nullopt;
}

int64_t count(const Json& schema, const char* word, int64_t otherwise, const std::string& pointer) {
  const Json* value = find(schema, word);
  if (value == nullptr) return otherwise;
  const bool is_whole = value->is_number_float() && value->get<double>() == std::floor(value->get<double>());
  if (!(value->is_number_integer() || is_whole) ||
      !(value->get<double>() >= 0 && value->get<double>() <= 1e6))
    refuse_schema(below(pointer, word), *value, "a count of at most a million");
  return value->is_number_float() ? static_cast<int64_t>(value->get<double>()) : value->get<int64_t>();
}

std::vector<std::string> required_of(const Json& schema, const std::string& pointer) {
  std::vector<std::string> names;
  const Json* required = find(schema, "required");
  if (required == nullptr) return names;
  if (!required->is_array()) refuse_schema(below(pointer, "required"), *required, "a list of names");
  for (const Json& name : *required) {
    if (!name.is_string()) refuse_schema(below(pointer, "required"), name, "a name");
    if (std::find(names.begin(), names.end(), name.get<std::string>()) == names.end())
      names.push_back(name.get<std::string>());
  }
  return names;
}

}  // namespace

std::string place(const std::string& pointer) { return pointer.empty() ? "/" : pointer; }

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  constexpr size_t kLongest = 60;
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

const Json* find(const Json& schema, std::string_view word) {
  const auto found = schema.find(word);
  return found == schema.end() ? nullptr : &*found;
}

void refuse_schema(const std::string& pointer, const Json& value, std::string_view expected) {
  fail("JSON schema at {}: {} where {} is expected", place(pointer), shown(value), expected);
}

ExprId SchemaTypes::of_type(const std::string& type, const Json& schema, const std::string& pointer) {
  if (type == "object") return object(schema, pointer);
  if (type == "array") return array(schema, pointer);
  if (type == "string") return string(schema, pointer);
  if (type == "null") return b_.literal("null");
  if (type == "boolean") return b_.choice({b_.literal("true"), b_.literal("false")});
  const std::optional<NumberBounds> bounds = bounds_of(schema, type == "integer", pointer);
  if (type == "integer") return bounds ? json_.integer_within(*bounds) : json_.integer();
  return bounds ? json_.number_within(*bounds) : json_.number();
}

ExprId SchemaTypes::string(const Json& schema, const std::string& pointer) {
  const int64_t min = count(schema, "minLength", 0, pointer);
  const int64_t max = count(schema, "maxLength", kUnbounded, pointer);
  if (max != kUnbounded && max < min) return b_.nothing();
  const Json* pattern = find(schema, "pattern");
  const Json* format = find(schema, "format");
  if (pattern == nullptr && format == nullptr) return json_.string(min, max);
  const bool has_lengths = find(schema, "minLength") != nullptr || find(schema, "maxLength") != nullptr;
  if (has_lengths || (pattern != nullptr && format != nullptr)) {
    fail("JSON schema at {}: pattern, format and lengths together are not supported; give one of them",
         place(pointer));
  }
  const char* word = pattern != nullptr ? "pattern" : "format";
  const Json& value = pattern != nullptr ? *pattern : *format;
  if (!value.is_string()) refuse_schema(below(pointer, word), value, "a text");
  RegexOptions options;
  options.spell = [this](const CharSet& set) { return json_.string_chars(set); };
  std::string text = value.get<std::string>();
  if (pattern != nullptr) {
    options.is_search = true;
    options.any = json_.string_char();
  } else {
    text = format_pattern(text);
    if (text.empty()) {
      fail("JSON schema at {}: format {} is not supported; supported are {}", place(pointer), shown(value),
           kFormatNames);
    }
  }
  try {
    const ExprId quote = b_.literal("\"");
    return b_.sequence({quote, add_regex(b_, text, options), quote});
  } catch (const Error& error) {
    fail("JSON schema at {}: {}", place(below(pointer, word)), error.what());
  }
}

ExprId SchemaTypes::array(const Json& schema, const std::string& pointer) {
  const int64_t min = count(schema, "minItems", 0, pointer);
  int64_t max = count(schema, "maxItems", kUnbounded, pointer);
  const Json* items = find(schema, "items");
  const Json* prefix = find(schema, "prefixItems");
  std::vector<ExprId> first;
  if (prefix != nullptr) {
    if (!prefix->is_array()) refuse_schema(below(pointer, "prefixItems"), *prefix, "a list of schemas");
    for (const Json& part : *prefix) {
      first.push_back(compile_(part, below(below(pointer, "prefixItems"), std::to_string(first.size()))));
    }
  }
  const auto num_first = std::ssize(first);
  const bool is_closed = items == nullptr ? prefix != nullptr && min <= num_first : *items == Json(false);
  if (is_closed) max = max == kUnbounded ? num_first : std::min(max, num_first);
  if (max != kUnbounded && max < min) return b_.nothing();
  const ExprId item = is_closed          ? b_.nothing()
                      : items == nullptr ? json_.value()
                                         : compile_(*items, below(pointer, "items"));
  if (first.empty()) return json_.array_of(item, min, max);

  // From the last to the first; behind k items more must come while k < min, and may while k < max.
  const auto bounded = [&](ExprId parts, int64_t k) { return k < min ? parts : b_.optional(parts); };
  ExprId rest = b_.repeat(b_.sequence({json_.comma(), item}), std::max<int64_t>(0, min - num_first),
                          max == kUnbounded ? kUnbounded : std::max<int64_t>(0, max - num_first));
  for (int64_t k = num_first - 1; k >= 0; --k) {
    if (max != kUnbounded && k >= max) {
      rest = b_.empty();
      continue;
    }
    std::vector<ExprId> parts{first[static_cast<size_t>(k)], rest};
    if (k > 0) parts.insert(parts.begin(), json_.comma());
    rest = bounded(b_.sequence(std::move(parts)), k);
  }
  return b_.sequence({b_.literal("["), json_.space(), rest, json_.space(), b_.literal("]")});
}

ExprId SchemaTypes::object(const Json& schema, const std::string& pointer) {
  const Json* declared = find(schema, "properties");
  const Json* additional = find(schema, "additionalProperties");
  if (declared != nullptr && !declared->is_object())
    refuse_schema(below(pointer, "properties"), *declared, "an object of schemas");
  const std::vector<std::string> required = required_of(schema, pointer);
  const bool is_free = declared == nullptr && required.empty();
  const bool is_open = additional == nullptr ? is_free : *additional != Json(false);
  const ExprId other_value = !is_open ? b_.nothing()
                             : additional == nullptr
                                 ? json_.value()
                                 : compile_(*additional, below(pointer, "additionalProperties"));
  const int64_t min = count(schema, "minProperties", 0, pointer);
  const int64_t max = count(schema, "maxProperties", kUnbounded, pointer);
  if (is_free) {
    if (min > 1) fail("JSON schema at {}: minProperties above 1 is not supported", place(pointer));
    return json_.object_of(json_.pair(json_.string(), other_value), min, max);
  }
  const std::vector<Property> properties = properties_of(schema, required, other_value, pointer);
  const auto num_required =
      std::count_if(properties.begin(), properties.end(), [](const Property& p) { return p.is_required; });
  const bool may_exceed = max != kUnbounded && (is_open || max < std::ssize(properties));
  if (min > num_required || may_exceed) {
    fail("JSON schema at {}: minProperties and maxProperties beside properties are not supported",
         place(pointer));
  }
  return declared_object(properties, is_open ? std::optional(other_value) : std::nullopt);
}

std::vector<SchemaTypes::Property> SchemaTypes::properties_of(const Json& schema,
                                                              const std::vector<std::string>& required,
                                                              ExprId other_value,
                                                              const std::string& pointer) {
  const Json* declared = find(schema, "properties");
  const Json* additional = find(schema, "additionalProperties");
  std::vector<Property> properties;
  const Json none = Json::object();
  for (const auto& [name, part] : (declared == nullptr ? none : *declared).items()) {
    const bool is_required = std::find(required.begin(), required.end(), name) != required.end();
    const ExprId value = compile_(part, below(below(pointer, "properties"), name));
    properties.push_back({name, json_.pair(json_.literal(name), value), is_required});
  }
  // A name that is required and not declared may have any value that further ones may have.
  for (const std::string& name : required) {
    if (declared != nullptr && declared->contains(name)) continue;
    const ExprId value = additional == nullptr ? json_.value() : other_value;
    properties.push_back({name, json_.pair(json_.literal(name), value), true});
  }
  return properties;
}

// Two rules for each property: what may come from it on when nothing, or something, came before.
ExprId SchemaTypes::declared_object(const std::vector<Property>& properties,
                                    std::optional<ExprId> other_value) {
  ExprId first = b_.empty();
  ExprId later = b_.empty();
  if (other_value) {
    std::vector<std::string> names;
    names.reserve(properties.size());
    for (const Property& property : properties) names.push_back(property.name);
    const ExprId other = json_.pair(json_.key_except(names), *other_value);
    later = b_.repeat(b_.sequence({json_.comma(), other}), 0, kUnbounded);
    first = b_.optional(b_.sequence({other, later}));
  }
  for (size_t i = properties.size(); i > 0; --i) {
    const Property& property = properties[i - 1];
    const ExprId rest = b_.call(b_.rule("properties behind " + property.name, later));
    std::vector<ExprId> begun{b_.sequence({property.pair, rest})};
    std::vector<ExprId> continued{b_.sequence({json_.comma(), property.pair, rest})};
    if (!property.is_required) {
      begun.push_back(b_.call(b_.rule("properties from behind " + property.name, first)));
      continued.push_back(rest);
    }
    first = b_.choice(std::move(begun));
    later = b_.choice(std::move(continued));
  }
  return b_.sequence({b_.literal("{"), json_.space(), first, json_.space(), b_.literal("}")});
}

}  // namespace minimax::grammar
