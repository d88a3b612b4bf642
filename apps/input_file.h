// Files that commands read: text, and JSON lists. "-" is standard input.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace minimax::apps {

// THROWS: Error naming `option` and the path when the file cannot be read.
std::string read_text_file(const std::string& path, const std::string& option);

// Null when `path` is empty. THROWS: Error naming `option`, the path and `what` when it is no JSON list.
nlohmann::ordered_json read_json_list(const std::string& path, const std::string& option,
                                      const std::string& what);

}  // namespace minimax::apps
