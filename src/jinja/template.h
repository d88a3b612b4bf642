// Jinja2 templates as Hugging Face renders chat templates with: trim_blocks and lstrip_blocks on, break and
// continue, {% generation %}, plain-JSON tojson, raise_exception, strftime_now, and nothing that mutates a
// list or a mapping. Output equals that of Python's Jinja2 byte for byte.
//
// A template is foreign text: every render is bounded by Limits.
#pragma once

#include <ctime>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "core/error.h"
#include "jinja/limits.h"

namespace minimax::jinja {

// The template itself refused its input: raise_exception(message).
class RaisedError : public Error {
 public:
  using Error::Error;
};

struct RenderOptions {
  std::time_t now = 0;  // what strftime_now sees, in the local time zone; 0 is the time of the call
};

struct Syntax;

// Parsed once, rendered often. Rendering is const and safe from several threads at once.
class Template {
 public:
  // THROWS: Error naming the line when `source` is no template.
  explicit Template(std::string_view source, const Limits& limits = {});
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // Renders with the members of the object `context` as variables. Key order is kept, hence ordered_json.
  // RETURNS: valid UTF-8. THROWS: RaisedError from raise_exception; Error for everything else, with the line.
  std::string render(const nlohmann::ordered_json& context, const RenderOptions& options = {}) const;

 private:
  std::unique_ptr<const Syntax> syntax_;
  Limits limits_;
};

}  // namespace minimax::jinja
