#include "formats/json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <vector>

#include "core/error.h"
#include "formats/mapped_file.h"
#include "formats/printable.h"

namespace minimax::formats {
namespace {

using nlohmann::json;

// Parser callback that keeps the keys of every open object.
class StrictKeys {
 public:
  explicit StrictKeys(std::string_view what) : what_(what) {}

  bool operator()(int depth, json::parse_event_t event, const json& parsed) {
    if (depth > kMaxJsonDepth) fail("{}: JSON is nested deeper than {} levels", what_, kMaxJsonDepth);
    switch (event) {
      case json::parse_event_t::object_start:
        open_.emplace_back();
        break;
      case json::parse_event_t::object_end:
        open_.pop_back();
        break;
      case json::parse_event_t::key:
        add_key(parsed.get_ref<const std::string&>());
        break;
      default:
        break;
    }
    return true;
  }

 private:
  void add_key(const std::string& key) {
    if (!open_.back().insert(key).second) fail("{}: JSON key \"{}\" appears twice", what_, printable(key));
  }

  std::string_view what_;
  std::vector<std::unordered_set<std::string>> open_;
};

}  // namespace

json parse_json(std::string_view text, std::string_view what) {
  StrictKeys keys(what);
  try {
    return json::parse(text, [&keys](int depth, json::parse_event_t event, const json& parsed) {
      return keys(depth, event, parsed);
    });
  } catch (const json::exception& e) {
    fail("{}: not valid JSON: {}; download the file again", what, printable(e.what(), 200));
  }
}

json read_json_object(const std::filesystem::path& path, int64_t max_bytes) {
  const MappedFile file = MappedFile::open(path);
  const auto size = static_cast<int64_t>(file.bytes().size());
  if (size > max_bytes) {
    fail("{}: has {} bytes; a file of this kind has at most {}", path.string(), size, max_bytes);
  }
  json value =
      parse_json({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path.string());
  if (!value.is_object()) fail("{}: holds a JSON {}; expected an object", path.string(), value.type_name());
  return value;
}

}  // namespace minimax::formats
