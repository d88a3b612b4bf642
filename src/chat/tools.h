// Lists of tools as requests and files give them.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "chat/output_parser.h"

namespace minimax::chat {

// OpenAI's tools ({"type": "function", "function": {"name", "parameters"}}) or the functions alone; null
// gives none. THROWS: Error with the entry that has no name.
std::vector<Tool> tools_from_json(const nlohmann::ordered_json& list);

}  // namespace minimax::chat
