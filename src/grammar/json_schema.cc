#include "grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "grammar/schema_types.h"

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
  SchemaCompiler(JsonText& json, const Json& root)
      : json_(json),
        b_(json.builder()),
        types_(json,
               [this](const Json& schema, const std::string& pointer) { return compile(schema, pointer); }),
        root_(root) {}

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

  ExprId compile_one(const Json& schema, const std::string& pointer) {
    if (schema.is_boolean()) return schema.get<bool>() ? json_.value() : b_.nothing();
    if (!schema.is_object()) refuse_schema(pointer, schema, "an object, true or false");
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
    if (!ref.is_string()) refuse_schema(pointer, ref, "a text");
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
    if (!parts.is_array() || parts.empty()) refuse_schema(below(pointer, word), parts, "a list of schemas");
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
      refuse_schema(below(pointer, "enum"), *values, "a list of values");
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
        refuse_schema(below(pointer, "type"), name,
                      "object, array, string, number, integer, boolean or null");
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
    options.reserve(types.size());
    for (const std::string& type : types) options.push_back(types_.of_type(type, schema, pointer));
    return b_.choice(std::move(options));
  }

  JsonText& json_;
  GrammarBuilder& b_;
  SchemaTypes types_;
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
