#include "jinja/template.h"

#include <nlohmann/json.hpp>

#include "jinja/ast.h"
#include "jinja/interpreter.h"
#include "jinja/parser.h"

namespace minimax::jinja {

Template::Template(std::string_view source, const Limits& limits) : limits_(limits) {
  try {
    syntax_ = std::make_unique<const Syntax>(parse(source, limits));
  } catch (const Error& e) {
    fail("template {}", e.what());
  }
}

Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

std::string Template::render(const nlohmann::ordered_json& context, const RenderOptions& options) const {
  if (!context.is_object()) fail("a template's context must be a JSON object, not {}", context.type_name());
  Interpreter interpreter(*syntax_, context, limits_, options.now != 0 ? options.now : std::time(nullptr));
  try {
    return interpreter.run();
  } catch (const RaisedError& e) {
    throw RaisedError(fmt::format("{} (template line {})", e.what(), interpreter.line()));
  } catch (const Error& e) {
    fail("template line {}: {}", interpreter.line(), e.what());
  }
}

}  // namespace minimax::jinja
