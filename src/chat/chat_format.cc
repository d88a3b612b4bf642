#include "chat/chat_format.h"

#include <fmt/ranges.h>

#include "core/error.h"

namespace minimax::chat {
namespace {

struct Name {
  std::string_view text;
  ChatFormat format;
};

constexpr Name kNames[] = {{"MiniMaxM1ForCausalLM", ChatFormat::kM1},
                           {"MiniMaxText01ForCausalLM", ChatFormat::kM1},
                           {"MiniMaxForCausalLM", ChatFormat::kM1},
                           {"MiniMaxVL01ForConditionalGeneration", ChatFormat::kM1},
                           {"MiniMaxM2ForCausalLM", ChatFormat::kM2},
                           {"MiniMaxM3SparseForConditionalGeneration", ChatFormat::kM3},
                           {"MiniMaxM3SparseForCausalLM", ChatFormat::kM3},
                           {"MiniMaxM3VLForCausalLM", ChatFormat::kM3},
                           {"minimax_m1", ChatFormat::kM1},
                           {"minimax_text_01", ChatFormat::kM1},
                           {"minimax", ChatFormat::kM1},
                           {"minimax_m2", ChatFormat::kM2},
                           {"minimax_m3_vl", ChatFormat::kM3},
                           {"minimax_m3_vl_text", ChatFormat::kM3}};

}  // namespace

ChatFormat chat_format_of(std::string_view name) {
  std::vector<std::string_view> known;
  for (const Name& entry : kNames) {
    if (entry.text == name) return entry.format;
    known.push_back(entry.text);
  }
  fail("no chat format is known for the architecture \"{}\"; known are {}", name, fmt::join(known, ", "));
}

ChatFormat parse_chat_format(std::string_view text) {
  if (text == "m1") return ChatFormat::kM1;
  if (text == "m2") return ChatFormat::kM2;
  if (text == "m3") return ChatFormat::kM3;
  fail("\"{}\" is no chat format; expected m1, m2 or m3", text);
}

}  // namespace minimax::chat
