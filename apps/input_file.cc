#include "apps/input_file.h"

#include <fstream>
#include <iostream>
#include <iterator>

#include "core/error.h"

namespace minimax::apps {

std::string read_text_file(const std::string& path, const std::string& option) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file) fail("{} {}: cannot be read", option, path);
  return text;
}

nlohmann::ordered_json read_json_list(const std::string& path, const std::string& option,
                                      const std::string& what) {
  if (path.empty()) return nullptr;
  auto list = nlohmann::ordered_json::parse(read_text_file(path, option), nullptr, false);
  if (!list.is_array()) fail("{} {}: expected a JSON list of {}", option, path, what);
  return list;
}

}  // namespace minimax::apps
