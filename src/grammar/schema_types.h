// Schemas of one type as grammar, and what the compiler of schemas shares with them.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/json_text.h"

namespace minimax::grammar {

// A pointer for messages.
std::string place(const std::string& pointer);
// A value for messages, cut when it is long.
std::string shown(const nlohmann::ordered_json& value);
// RETURNS: the value of a word, null when the schema has none.
const nlohmann::ordered_json* find(const nlohmann::ordered_json& schema, std::string_view word);
[[noreturn]] void refuse_schema(const std::string& pointer, const nlohmann::ordered_json& value,
                                std::string_view expected);

class SchemaTypes {
 public:
  using Json = nlohmann::ordered_json;
  // Of a schema inside the one at hand, with its pointer.
  using Compile = std::function<ExprId(const Json& schema, const std::string& pointer)>;

  SchemaTypes(JsonText& json, Compile compile)
      : json_(json), b_(json.builder()), compile_(std::move(compile)) {}

  // The words of `schema` that are about `type`. THROWS: Error naming what is wrong or not supported.
  ExprId of_type(const std::string& type, const Json& schema, const std::string& pointer);

 private:
  struct Property {
    std::string name;
    ExprId pair;
    bool is_required;
  };

  ExprId string(const Json& schema, const std::string& pointer);
  ExprId array(const Json& schema, const std::string& pointer);
  ExprId object(const Json& schema, const std::string& pointer);
  std::vector<Property> properties_of(const Json& schema, const std::vector<std::string>& required,
                                      ExprId other_value, const std::string& pointer);
  ExprId declared_object(const std::vector<Property>& properties, std::optional<ExprId> other_value);

  JsonText& json_;
  GrammarBuilder& b_;
  Compile compile_;
};

}  // namespace minimax::grammar
