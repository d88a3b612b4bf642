// Blocks of tool calls as the MiniMax families write them, with arguments as the tools' schemas have them.
//
// M1: <tool_calls>, a line {"name": ..., "arguments": {...}} for each call, </tool_calls>.
// M2: <minimax:tool_call>, <invoke name="..."> with lines <parameter name="...">value</parameter>.
// M3: the same idea with a namespace token before each tag; the parameter's name is the tag, objects nest as
//     tags, list items are <item>.
// In M2 and M3 texts stand without quotes: of their schema only enum and const are kept to, and a text ends
// where the closing tag begins. Parameters come in their order; those not required may be missing.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "grammar/builder.h"

namespace minimax::grammar {

enum class CallFormat : uint8_t { kM1, kM2, kM3 };

struct CallTool {
  std::string name;
  nlohmann::ordered_json parameters;  // JSON schema of an object; null: no parameters
};

// From the opening to the closing tag: one call of one of the tools, or several when `is_repeated`.
// THROWS: Error naming the tool and what of it cannot be written.
ExprId add_call_block(GrammarBuilder& builder, CallFormat format, const std::vector<CallTool>& tools,
                      bool is_repeated);

}  // namespace minimax::grammar
