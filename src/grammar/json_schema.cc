#include "grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "grammar/regex.h"
#include "grammar/string_formats.h"

namespace minimax::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 19> kUnsupported{"patternProperties",
                                                        "propertyNames",
                                                        "dependentRequired",
                                                        "dependentSchemas",
                                                        "dependencies",
                                                        "if",
                                                        "then",
                                                        "else",
                                                        "not",
                                                        "contains",
                                                        "minContains",
                                                        "maxContains",
                                                        "unevaluatedItems",
                                                        "unevaluatedProperties",
                                                        "multipleOf",
                                                        "$dynamicRef",
                                                        "$recursiveRef",
                                                        "additionalItems",
                                                        "uniqueItems"};

// The words that say something about one type alone.
struct TypeWords {
  std::string_view type;
  std::vector<std::string_view> words;
};
const std::vector<TypeWords>& type_words() {
  static const std::vector<TypeWords> kWords{
      {"object", {"properties", "required", "additionalProperties", "minProperties", "maxProperties"}},
      {"array", {"items", "prefixItems", "minItems", "maxItems"}},
      {"string", {"minLength", "maxLength", "pattern", "format"}},
      {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}}};
  return kWords;
}

// Without them a schema says nothing else.
constexpr std::array<std::string_view, 7> kOtherWords{"type",  "enum",  "const", "anyOf",
                                                      "oneOf", "allOf", "$ref"};

bool constrains(std::string_view word) {
  const auto has = [word](const auto& words) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  return has(kOtherWords) || std::any_of(type_words().begin(), type_words().end(),
                                         [&](const TypeWords& of_type) { return has(of_type.words); });
}

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

bool is_of_type(const Json& value, const std::string& type) {
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
  }
  return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
         (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
         (type == "boolean" && value.is_boolean()) || (type == "null" && value.is_null());
}

class SchemaCompiler {
 public:
  SchemaCompiler(JsonText& json, const Json& root) : json_(json), b_(json.builder()), root_(root) {}

  ExprId run(const std::string& pointer) {
    const ExprId result = compile(root_.at(Json::json_pointer(pointer)), pointer);
    // Not where they are met, so that a chain of references is no nesting.
    while (!pending_.empty()) {
      const Pending next = pending_.back();
      pending_.pop_back();
      b_.define(next.rule, compile(*next.schema, next.pointer));
    }
    return result;
  }

 private:
  struct Pending {
    RuleId rule;
    const Json* schema;
    std::string pointer;
  };

  ExprId compile(const Json& schema, const std::string& pointer) {
    if (++depth_ > kMaxSchemaDepth) {
      fail("JSON schema at {}: nested deeper than {} levels", place(pointer), kMaxSchemaDepth);
    }
    if (++num_parts_ > kMaxSchemaParts) fail("JSON schema: more than {} parts; simplify it", kMaxSchemaParts);
    const ExprId result = compile_one(schema, pointer);
    --depth_;
    return result;
  }

  [[noreturn]] static void refuse(const std::string& pointer, const Json& value, std::string_view expected) {
    fail("JSON schema at {}: {} where {} is expected", place(pointer), shown(value), expected);
  }

  ExprId compile_one(const Json& schema, const std::string& pointer) {
    if (schema.is_boolean()) return schema.get<bool>() ? json_.value() : b_.nothing();
    if (!schema.is_object()) refuse(pointer, schema, "an object, true or false");
    refuse_unsupported(schema, pointer);
    if (const Json* ref = find(schema, "$ref")) return compile_ref(schema, *ref, pointer);
    if (find(schema, "allOf") != nullptr) return compile_all_of(schema, pointer);
    // Joined from types that exclude each other.
    if (const Json* type = find(schema, "type"); type != nullptr && *type == Json::array())
      return b_.nothing();
    for (const char* word : {"anyOf", "oneOf"}) {
      if (find(schema, word) != nullptr) return compile_any_of(schema, word, pointer);
    }
    if (find(schema, "enum") != nullptr || find(schema, "const") != nullptr)
      return compile_values(schema, pointer);
    return compile_types(schema, pointer);
  }

  static void refuse_unsupported(const Json& schema, const std::string& pointer) {
    for (const std::string_view word : kUnsupported) {
      const Json* value = find(schema, word);
      const bool is_off =
          value != nullptr && value->is_boolean() && word == "uniqueItems" && !value->get<bool>();
      if (value != nullptr && !is_off) {
        fail("JSON schema at {}: \"{}\" is not supported; leave it out and check it on the answer",
             place(pointer), word);
      }
    }
  }

  static Json without(const Json& schema, std::string_view word) {
    Json rest = Json::object();
    for (const auto& [key, value] : schema.items()) {
      if (key != word && constrains(key)) rest[key] = value;
    }
    return rest;
  }

  const Json& resolve(const Json& ref, const std::string& pointer) const {
    if (!ref.is_string()) refuse(pointer, ref, "a text");
    const auto& text = ref.get_ref<const std::string&>();
    if (text.empty() || text[0] != '#' || (text.size() > 1 && text[1] != '/')) {
      fail("JSON schema at {}: $ref {} does not begin with #/; only references into the schema are supported",
           place(pointer), shown(ref));
    }
    try {
      const Json::json_pointer target(text.substr(1));
      if (root_.contains(target)) return root_.at(target);
    } catch (const nlohmann::json::exception&) {
    }
    fail("JSON schema at {}: $ref {} leads nowhere", place(pointer), shown(ref));
  }

  ExprId compile_ref(const Json& schema, const Json& ref, const std::string& pointer) {
    const Json& target = resolve(ref, pointer);
    const Json rest = without(schema, "$ref");
    if (!rest.empty()) return compile(merge_schemas(target, rest, pointer), pointer);
    const std::string name = ref.get<std::string>().substr(1);
    const auto found = rules_.find(name);
    if (found != rules_.end()) return b_.call(found->second);
    const RuleId rule = b_.declare("$ref #" + name);
    rules_[name] = rule;
    pending_.push_back({rule, &target, name});
    return b_.call(rule);
  }

  const Json& list(const Json& schema, const char* word, const std::string& pointer) const {
    const Json& parts = *find(schema, word);
    if (!parts.is_array() || parts.empty()) refuse(below(pointer, word), parts, "a list of schemas");
    return parts;
  }

  // References are resolved as far as joining needs.
  Json dereferenced(Json schema, const std::string& pointer) const {
    for (int64_t hops = 0; schema.is_object() && find(schema, "$ref") != nullptr; ++hops) {
      if (hops > kMaxSchemaDepth) fail("JSON schema at {}: $ref leads in a circle", place(pointer));
      const Json rest = without(schema, "$ref");
      schema = merge_schemas(resolve(*find(schema, "$ref"), pointer), rest, pointer);
    }
    return schema;
  }

  ExprId compile_all_of(const Json& schema, const std::string& pointer) {
    Json merged = without(schema, "allOf");
    size_t i = 0;
    for (const Json& part : list(schema, "allOf", pointer)) {
      const std::string at = below(below(pointer, "allOf"), std::to_string(i++));
      if (part.is_object()) refuse_unsupported(part, at);
      merged = merge_schemas(merged, dereferenced(part, at), at);
    }
    return compile(merged, pointer);
  }

  ExprId compile_any_of(const Json& schema, const char* word, const std::string& pointer) {
    const Json rest = without(schema, word);
    std::vector<ExprId> options;
    size_t i = 0;
    for (const Json& part : list(schema, word, pointer)) {
      const std::string at = below(below(pointer, word), std::to_string(i++));
      if (part.is_object()) refuse_unsupported(part, at);
      options.push_back(compile(rest.empty() ? part : merge_schemas(dereferenced(part, at), rest, at), at));
    }
    return b_.choice(std::move(options));
  }

  ExprId compile_values(const Json& schema, const std::string& pointer) {
    for (const auto& [word, _] : schema.items()) {
      if (constrains(word) && word != "type" && word != "enum" && word != "const") {
        fail("JSON schema at {}: \"{}\" beside enum or const is not supported; leave it out", place(pointer),
             word);
      }
    }
    const Json* values = find(schema, "enum");
    const Json* one = find(schema, "const");
    if (values != nullptr && (!values->is_array() || values->empty()))
      refuse(below(pointer, "enum"), *values, "a list of values");
    const Json single = one != nullptr ? Json::array({*one}) : Json::array();
    const std::vector<std::string> types = types_of(schema, pointer);
    std::vector<ExprId> options;
    for (const Json& value : one != nullptr ? single : *values) {
      const bool is_listed = one == nullptr || values == nullptr ||
                             std::find(values->begin(), values->end(), value) != values->end();
      const bool is_typed = types.empty() || std::any_of(types.begin(), types.end(), [&](const auto& type) {
                              return is_of_type(value, type);
                            });
      if (is_listed && is_typed) options.push_back(json_.literal(value));
    }
    return b_.choice(std::move(options));
  }

  static std::vector<std::string> types_of(const Json& schema, const std::string& pointer) {
    static const std::set<std::string> kTypes{"object",  "array",   "string", "number",
                                              "integer", "boolean", "null"};
    const Json* type = find(schema, "type");
    std::vector<std::string> types;
    if (type == nullptr) return types;
    for (const Json& name : type->is_array() ? *type : Json::array({*type})) {
      if (!name.is_string() || !kTypes.contains(name.get<std::string>()))
        refuse(below(pointer, "type"), name, "object, array, string, number, integer, boolean or null");
      types.push_back(name.get<std::string>());
    }
    return types;
  }

  ExprId compile_types(const Json& schema, const std::string& pointer) {
    std::vector<std::string> types = types_of(schema, pointer);
    if (types.empty()) {
      for (const TypeWords& of_type : type_words()) {
        const bool is_meant =
            std::any_of(of_type.words.begin(), of_type.words.end(),
                        [&](std::string_view word) { return find(schema, word) != nullptr; });
        if (is_meant) types.emplace_back(of_type.type);
      }
    }
    if (types.empty()) return json_.value();
    std::vector<ExprId> options;
    for (const std::string& type : types) options.push_back(compile_type(type, schema, pointer));
    return b_.choice(std::move(options));
  }

  ExprId compile_type(const std::string& type, const Json& schema, const std::string& pointer) {
    if (type == "object") return compile_object(schema, pointer);
    if (type == "array") return compile_array(schema, pointer);
    if (type == "string") return compile_string(schema, pointer);
    if (type == "null") return b_.literal("null");
    if (type == "boolean") return b_.choice({b_.literal("true"), b_.literal("false")});
    const std::optional<NumberBounds> bounds = bounds_of(schema, type == "integer", pointer);
    if (type == "integer") return bounds ? json_.integer_within(*bounds) : json_.integer();
    return bounds ? json_.number_within(*bounds) : json_.number();
  }

  // --- numbers

  static std::optional<NumberBounds> bounds_of(const Json& schema, bool is_integer,
                                               const std::string& pointer) {
    NumberBounds bounds;
    bool has_bounds = false;
    for (const char* word : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
      const Json* value = find(schema, word);
      if (value == nullptr) continue;
      if (!value->is_number()) refuse(below(pointer, word), *value, "a number");
      has_bounds = true;
      const std::string_view name = word;
      const bool is_min = name.ends_with("inimum");
      const bool is_exclusive = name.starts_with("exclusive");
      add_bound(*value, is_integer, is_min, is_exclusive, below(pointer, word), bounds);
    }
    return has_bounds ? std::optional(bounds) : std::nullopt;
  }

  static void add_bound(const Json& value, bool is_integer, bool is_min, bool is_exclusive,
                        const std::string& pointer, NumberBounds& bounds) {
    constexpr double kExact = 9e15;
    int64_t whole = 0;
    if (value.is_number_float()) {
      const double number = value.get<double>();
      const double rounded = is_min ? std::ceil(number) : std::floor(number);
      const bool is_usable = std::abs(number) <= kExact && (is_integer || rounded == number);
      if (!is_usable) refuse(pointer, value, "a whole number below 9e15");
      whole = static_cast<int64_t>(rounded);
      is_exclusive = is_exclusive && rounded == number;
    } else if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) {
      refuse(pointer, value, "a number of 63 bits");
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

  // --- strings

  static int64_t count(const Json& schema, const char* word, int64_t otherwise, const std::string& pointer) {
    const Json* value = find(schema, word);
    if (value == nullptr) return otherwise;
    const bool is_whole =
        value->is_number_float() && value->get<double>() == std::floor(value->get<double>());
    if (!(value->is_number_integer() || is_whole) ||
        !(value->get<double>() >= 0 && value->get<double>() <= 1e6))
      refuse(below(pointer, word), *value, "a count of at most a million");
    return value->is_number_float() ? static_cast<int64_t>(value->get<double>()) : value->get<int64_t>();
  }

  ExprId compile_string(const Json& schema, const std::string& pointer) {
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
    if (!value.is_string()) refuse(below(pointer, word), value, "a text");
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

  // --- arrays

  ExprId compile_array(const Json& schema, const std::string& pointer) {
    const int64_t min = count(schema, "minItems", 0, pointer);
    int64_t max = count(schema, "maxItems", kUnbounded, pointer);
    const Json* items = find(schema, "items");
    const Json* prefix = find(schema, "prefixItems");
    std::vector<ExprId> first;
    if (prefix != nullptr) {
      if (!prefix->is_array()) refuse(below(pointer, "prefixItems"), *prefix, "a list of schemas");
      for (const Json& part : *prefix) {
        first.push_back(compile(part, below(below(pointer, "prefixItems"), std::to_string(first.size()))));
      }
    }
    const auto num_first = std::ssize(first);
    const bool is_closed = items == nullptr ? prefix != nullptr && min <= num_first : *items == Json(false);
    if (is_closed) max = max == kUnbounded ? num_first : std::min(max, num_first);
    if (max != kUnbounded && max < min) return b_.nothing();
    const ExprId item = is_closed          ? b_.nothing()
                        : items == nullptr ? json_.value()
                                           : compile(*items, below(pointer, "items"));
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

  // --- objects

  struct Property {
    std::string name;
    ExprId pair;
    bool is_required;
  };

  ExprId compile_object(const Json& schema, const std::string& pointer) {
    const Json* declared = find(schema, "properties");
    const Json* additional = find(schema, "additionalProperties");
    if (declared != nullptr && !declared->is_object())
      refuse(below(pointer, "properties"), *declared, "an object of schemas");
    const std::vector<std::string> required = required_of(schema, pointer);
    const bool is_free = declared == nullptr && required.empty();
    const bool is_open = additional == nullptr ? is_free : *additional != Json(false);
    const ExprId other_value = !is_open ? b_.nothing()
                               : additional == nullptr
                                   ? json_.value()
                                   : compile(*additional, below(pointer, "additionalProperties"));
    const int64_t min = count(schema, "minProperties", 0, pointer);
    const int64_t max = count(schema, "maxProperties", kUnbounded, pointer);
    if (is_free) {
      if (min > 1) fail("JSON schema at {}: minProperties above 1 is not supported", place(pointer));
      return json_.object_of(json_.pair(json_.string(), other_value), min, max);
    }
    std::vector<Property> properties;
    const Json none = Json::object();
    for (const auto& [name, part] : (declared == nullptr ? none : *declared).items()) {
      const bool is_required = std::find(required.begin(), required.end(), name) != required.end();
      const ExprId value = compile(part, below(below(pointer, "properties"), name));
      properties.push_back({name, json_.pair(json_.literal(name), value), is_required});
    }
    // A name that is required and not declared may have any value that further ones may have.
    for (const std::string& name : required) {
      if (declared != nullptr && declared->contains(name)) continue;
      const ExprId value = additional == nullptr ? json_.value() : other_value;
      properties.push_back({name, json_.pair(json_.literal(name), value), true});
    }
    const auto num_required =
        std::count_if(properties.begin(), properties.end(), [](const Property& p) { return p.is_required; });
    const bool may_exceed = max != kUnbounded && (is_open || max < std::ssize(properties));
    if (min > num_required || may_exceed) {
      fail("JSON schema at {}: minProperties and maxProperties beside properties are not supported",
           place(pointer));
    }
    return declared_object(properties, is_open ? std::optional(other_value) : std::nullopt);
  }

  static std::vector<std::string> required_of(const Json& schema, const std::string& pointer) {
    std::vector<std::string> names;
    const Json* required = find(schema, "required");
    if (required == nullptr) return names;
    if (!required->is_array()) refuse(below(pointer, "required"), *required, "a list of names");
    for (const Json& name : *required) {
      if (!name.is_string()) refuse(below(pointer, "required"), name, "a name");
      if (std::find(names.begin(), names.end(), name.get<std::string>()) == names.end())
        names.push_back(name.get<std::string>());
    }
    return names;
  }

  // Two rules for each property: what may come from it on when nothing, or something, came before.
  ExprId declared_object(const std::vector<Property>& properties, std::optional<ExprId> other_value) {
    ExprId first = b_.empty();
    ExprId later = b_.empty();
    if (other_value) {
      std::vector<std::string> names;
      for (const Property& property : properties) names.push_back(property.name);
      const ExprId other = json_.pair(json_.key_except(names), *other_value);
      later = b_.repeat(b_.sequence({json_.comma(), other}), 0, kUnbounded);
      first = b_.optional(b_.sequence({other, later}));
    }
    for (auto property = properties.rbegin(); property != properties.rend(); ++property) {
      const ExprId rest = b_.call(b_.rule("properties behind " + property->name, later));
      std::vector<ExprId> begun{b_.sequence({property->pair, rest})};
      std::vector<ExprId> continued{b_.sequence({json_.comma(), property->pair, rest})};
      if (!property->is_required) {
        begun.push_back(b_.call(b_.rule("properties from behind " + property->name, first)));
        continued.push_back(rest);
      }
      first = b_.choice(std::move(begun));
      later = b_.choice(std::move(continued));
    }
    return b_.sequence({b_.literal("{"), json_.space(), first, json_.space(), b_.literal("}")});
  }

  JsonText& json_;
  GrammarBuilder& b_;
  const Json& root_;
  std::map<std::string, RuleId> rules_;  // of $ref
  std::vector<Pending> pending_;
  int64_t depth_ = 0;
  int64_t num_parts_ = 0;
};

}  // namespace

ExprId add_json_schema(JsonText& json, const Json& schema) { return add_json_schema(json, schema, ""); }

ExprId add_json_schema(JsonText& json, const Json& schema, const std::string& pointer) {
  return SchemaCompiler(json, schema).run(pointer);
}

}  // namespace minimax::grammar
