// What a JSON schema says about the value at one place: only what is needed to give text its type.
//
// Schemas come with requests: nothing in them is trusted, and a walk through one visits a bounded number of
// nodes.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace minimax::chat {

// A set of JSON types; empty: the schema does not say.
struct TypeSet {
  enum Bit : uint8_t {
    kNull = 1,
    kBoolean = 2,
    kInteger = 4,
    kNumber = 8,
    kString = 16,
    kArray = 32,
    kObject = 64
  };
  uint8_t bits = 0;

  bool empty() const { return bits == 0; }
  bool has(Bit bit) const { return (bits & bit) != 0; }
  // Whether values are strings, or strings and null.
  bool is_text() const { return has(kString) && (bits & ~(kString | kNull)) == 0; }
  bool is_scalar() const { return bits != 0 && (bits & (kArray | kObject)) == 0; }
};

// A place in a schema. Unions (a list of types, anyOf, oneOf, allOf) count with all their parts; "$ref"s into
// the same document are followed.
class Schema {
 public:
  using Json = nlohmann::ordered_json;

  // Of any value.
  Schema() = default;
  // REQUIRES: `document`, which may be null, outlives this.
  explicit Schema(const Json& document) : document_(&document), node_(&document) {}

  bool is_known() const { return node_ != nullptr; }
  TypeSet types() const;
  // Of an object's field, also by additionalProperties; of any value when the schema does not say.
  Schema property(const std::string& name) const;
  // Whether the field is listed by name.
  bool lists(const std::string& name) const;
  // Of an array's items, likewise.
  Schema items() const;

 private:
  Schema(const Json* document, const Json* node) : document_(document), node_(node) {}
  const Json* listed(const std::string& name) const;

  const Json* document_ = nullptr;
  const Json* node_ = nullptr;
};

}  // namespace minimax::chat
