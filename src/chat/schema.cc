#include "chat/schema.h"

#include <array>

namespace minimax::chat {
namespace {

using Json = Schema::Json;

// Nodes that one question may visit: references can form circles.
constexpr int kMostNodes = 64;

const Json* find(const Json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

std::string unescape_pointer(std::string_view token) {
  std::string name;
  for (size_t i = 0; i < token.size(); ++i) {
    const bool is_escape = token[i] == '~' && i + 1 < token.size();
    name += !is_escape ? token[i] : token[++i] == '1' ? '/' : '~';
  }
  return name;
}

// What "#/$defs/name" stands for, or null.
const Json* resolve(const Json& document, std::string_view reference) {
  if (!reference.starts_with('#')) return nullptr;
  reference.remove_prefix(1);
  const Json* node = &document;
  while (node != nullptr && reference.starts_with('/')) {
    reference.remove_prefix(1);
    const std::string_view token = reference.substr(0, reference.find('/'));
    node = node->is_object() ? find(*node, unescape_pointer(token)) : nullptr;
    reference.remove_prefix(token.size());
  }
  return reference.empty() ? node : nullptr;
}

// Calls `look` with every object that describes the same value, until it returns true.
template <typename Look>
bool visit(const Json& document, const Json& node, int& budget, const Look& look) {
  if (!node.is_object() || --budget < 0) return false;
  if (look(node)) return true;
  for (const char* key : {"anyOf", "oneOf", "allOf"}) {
    const Json* parts = find(node, key);
    if (parts == nullptr || !parts->is_array()) continue;
    for (const Json& part : *parts) {
      if (visit(document, part, budget, look)) return true;
    }
  }
  const Json* reference = find(node, "$ref");
  if (reference == nullptr || !reference->is_string()) return false;
  const Json* target = resolve(document, reference->get_ref<const std::string&>());
  return target != nullptr && visit(document, *target, budget, look);
}

template <typename Look>
void visit_all(const Json* document, const Json* node, const Look& look) {
  int budget = kMostNodes;
  if (node != nullptr) visit(*document, *node, budget, look);
}

uint8_t bit_of_name(const Json& name) {
  constexpr std::array<std::pair<std::string_view, TypeSet::Bit>, 7> kNames = {
      {{"null", TypeSet::kNull},
       {"boolean", TypeSet::kBoolean},
       {"integer", TypeSet::kInteger},
       {"number", TypeSet::kNumber},
       {"string", TypeSet::kString},
       {"array", TypeSet::kArray},
       {"object", TypeSet::kObject}}};
  if (!name.is_string()) return 0;
  for (const auto& [text, bit] : kNames) {
    if (name.get_ref<const std::string&>() == text) return bit;
  }
  return 0;
}

uint8_t bit_of_value(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return TypeSet::kNull;
    case Json::value_t::boolean:
      return TypeSet::kBoolean;
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return TypeSet::kInteger;
    case Json::value_t::number_float:
      return TypeSet::kNumber;
    case Json::value_t::string:
      return TypeSet::kString;
    case Json::value_t::array:
      return TypeSet::kArray;
    default:
      return TypeSet::kObject;
  }
}

// The types that one object names, else those its other words imply.
uint8_t bits_of(const Json& node) {
  uint8_t bits = 0;
  if (const Json* type = find(node, "type")) {
    for (const Json& name : type->is_array() ? *type : Json::array({*type})) bits |= bit_of_name(name);
    return bits;
  }
  if (const Json* values = find(node, "enum"); values != nullptr && values->is_array()) {
    for (const Json& value : *values) bits |= bit_of_value(value);
    return bits;
  }
  if (const Json* value = find(node, "const")) return bit_of_value(*value);
  if (node.contains("properties")) return TypeSet::kObject;
  return node.contains("items") ? TypeSet::kArray : 0;
}

}  // namespace

TypeSet Schema::types() const {
  TypeSet types;
  visit_all(document_, node_, [&types](const Json& node) {
    types.bits |= bits_of(node);
    return false;
  });
  return types;
}

const Json* Schema::listed(const std::string& name) const {
  const Json* field = nullptr;
  visit_all(document_, node_, [&](const Json& node) {
    const Json* properties = find(node, "properties");
    if (properties != nullptr && properties->is_object()) field = find(*properties, name);
    return field != nullptr;
  });
  return field;
}

bool Schema::lists(const std::string& name) const { return listed(name) != nullptr; }

Schema Schema::property(const std::string& name) const {
  if (const Json* field = listed(name)) return {document_, field};
  const Json* others = nullptr;
  visit_all(document_, node_, [&others](const Json& node) {
    others = find(node, "additionalProperties");
    return others != nullptr;
  });
  return others != nullptr && others->is_object() ? Schema(document_, others) : Schema();
}

Schema Schema::items() const {
  const Json* items = nullptr;
  visit_all(document_, node_, [&items](const Json& node) {
    items = find(node, "items");
    return items != nullptr;
  });
  return items != nullptr && items->is_object() ? Schema(document_, items) : Schema();
}

}  // namespace minimax::chat
