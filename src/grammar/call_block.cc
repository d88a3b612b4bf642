#include "grammar/call_block.h"

#include <algorithm>

#include "core/error.h"
#include "grammar/json_schema.h"

namespace minimax::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kNamespace = "]<]minimax[>[";
constexpr int kMaxTagDepth = 16;

// The tags of M2 and M3 hold names as they are.
void check_name(const std::string& name) {
  const bool is_plain = !name.empty() && name.find_first_of("<>\"&\n") == std::string::npos;
  if (!is_plain) fail("\"{}\" cannot stand in a tag; use letters, digits and _", name);
}

class CallWriter {
 public:
  CallWriter(GrammarBuilder& builder, CallFormat format)
      : b_(builder),
        json_(builder, format == CallFormat::kM1 ? JsonSpace::kOneLine : JsonSpace::kLines),
        format_(format) {}

  ExprId call(const CallTool& tool) {
    schema_ = tool.parameters.is_null() ? Json{{"type", "object"}, {"properties", Json::object()}}
                                        : tool.parameters;
    if (!schema_.is_object()) fail("parameters are no object");
    switch (format_) {
      case CallFormat::kM1:
        return b_.sequence({b_.literal("{\"name\":"), json_.space(), json_.literal(tool.name), json_.comma(),
                            b_.literal("\"arguments\":"), json_.space(), add_json_schema(json_, schema_),
                            b_.literal("}\n")});
      case CallFormat::kM2:
        check_name(tool.name);
        return b_.sequence({b_.literal("<invoke name=\"" + tool.name + "\">\n"), parameters("", 0),
                            b_.literal("</invoke>\n")});
      case CallFormat::kM3:
        check_name(tool.name);
        return b_.sequence(
            {tag("invoke name=\"" + tool.name + "\""), parameters("", 0), tag("/invoke"), b_.literal("\n")});
    }
    fail("no such format");
  }

 private:
  // Of M3.
  ExprId tag(const std::string& text) { return b_.literal(std::string(kNamespace) + "<" + text + ">"); }

  // The schema at `pointer`, behind its references.
  std::pair<const Json*, std::string> resolved(std::string pointer) const {
    for (int hops = 0; hops < kMaxTagDepth; ++hops) {
      const Json::json_pointer at(pointer);
      if (!schema_.contains(at)) fail("$ref #{} leads nowhere", pointer);
      const Json& schema = schema_.at(at);
      const auto ref = schema.is_object() ? schema.find("$ref") : schema.end();
      if (!schema.is_object() || ref == schema.end()) return {&schema, pointer};
      const bool is_local = ref->is_string() && ref->get<std::string>().starts_with("#");
      if (!is_local) fail("$ref at {} does not begin with #", pointer);
      pointer = ref->get<std::string>().substr(1);
    }
    fail("$ref at {} leads in a circle", pointer);
  }

  ExprId parameters(const std::string& pointer, int depth) {
    const auto [schema, at] = resolved(pointer);
    if (!schema->is_object()) fail("the schema at {} is no object", at.empty() ? "/" : at);
    const Json none = Json::object();
    const auto properties = schema->find("properties");
    const Json required = schema->value("required", Json::array());
    std::vector<ExprId> parts;
    for (const auto& [name, _] : (properties == schema->end() ? none : *properties).items()) {
      check_name(name);
      const ExprId part = parameter(name, below(below(at, "properties"), name), depth);
      const bool is_required = std::find(required.begin(), required.end(), Json(name)) != required.end();
      parts.push_back(is_required ? part : b_.optional(part));
    }
    return b_.sequence(std::move(parts));
  }

  ExprId parameter(const std::string& name, const std::string& pointer, int depth) {
    if (format_ == CallFormat::kM3) return b_.sequence({tag(name), nested(pointer, depth), tag("/" + name)});
    return b_.sequence({b_.literal("<parameter name=\"" + name + "\">"), leaf(pointer, "</parameter>"),
                        b_.literal("</parameter>\n")});
  }

  // Objects and lists of M3.
  ExprId nested(const std::string& pointer, int depth) {
    if (depth > kMaxTagDepth) return leaf(pointer, kNamespace);
    const auto [schema, at] = resolved(pointer);
    const Json type = schema->is_object() ? schema->value("type", Json()) : Json();
    if (type == "object" && schema->contains("properties")) return parameters(at, depth + 1);
    if (type == "array" && schema->contains("items")) {
      const ExprId item = nested(below(at, "items"), depth + 1);
      return b_.repeat(b_.sequence({tag("item"), item, tag("/item")}), 0, kUnbounded);
    }
    return leaf(pointer, kNamespace);
  }

  // JSON where the type is known to be none of text; else text up to the closing tag.
  ExprId leaf(const std::string& pointer, std::string_view end) {
    const auto [schema, at] = resolved(pointer);
    if (schema->is_object()) {
      if (const auto values = schema->find("enum"); values != schema->end() && values->is_array())
        return raw(*values);
      if (const auto value = schema->find("const"); value != schema->end()) return raw(Json::array({*value}));
      const Json type = schema->value("type", Json());
      const bool is_tree = type == "object" || type == "array";
      const bool is_scalar = type == "integer" || type == "number" || type == "boolean";
      if (is_scalar || (is_tree && format_ == CallFormat::kM2)) return add_json_schema(json_, schema_, at);
    }
    return b_.text_without(end);
  }

  ExprId raw(const Json& values) {
    std::vector<ExprId> options;
    for (const Json& value : values)
      options.push_back(value.is_string() ? b_.literal(value.get<std::string>()) : json_.literal(value));
    return b_.choice(std::move(options));
  }

  GrammarBuilder& b_;
  JsonText json_;
  CallFormat format_;
  Json schema_;  // of the tool at hand
};

}  // namespace

ExprId add_call_block(GrammarBuilder& builder, CallFormat format, const std::vector<CallTool>& tools,
                      bool is_repeated) {
  CallWriter writer(builder, format);
  std::vector<ExprId> options;
  for (const CallTool& tool : tools) {
    try {
      options.push_back(writer.call(tool));
    } catch (const Error& error) {
      fail("tool \"{}\": {}", tool.name, error.what());
    }
  }
  const ExprId calls = builder.repeat(builder.choice(std::move(options)), 1, is_repeated ? kUnbounded : 1);
  const auto block = [&](const std::string& open, const std::string& close) {
    return builder.sequence({builder.literal(open + "\n"), calls, builder.literal(close)});
  };
  const std::string prefix(kNamespace);
  switch (format) {
    case CallFormat::kM1:
      return block("<tool_calls>", "</tool_calls>");
    case CallFormat::kM2:
      return block("<minimax:tool_call>", "</minimax:tool_call>");
    case CallFormat::kM3:
      return block(prefix + "<tool_call>", prefix + "</tool_call>");
  }
  return builder.nothing();
}

}  // namespace minimax::grammar
