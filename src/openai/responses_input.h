// Items of /v1/responses, in and out of a conversation, to messages of a chat.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace minimax::openai {

// What begins the encrypted_content of this server's reasoning items; the reasoning itself follows. Clients
// that keep nothing else of an item hand it back.
inline constexpr std::string_view kCarriedReasoning = "minimax:";

// The body's input as a list of items. THROWS: ApiError.
nlohmann::ordered_json items_of_input(const nlohmann::ordered_json& body);

// Reasoning, text and calls of one turn become one message. Instructions and the messages of system and
// developer in front become one system message, since templates read one; later ones become the user's.
// THROWS: ApiError naming an item that is wrong, or that is not text.
nlohmann::ordered_json messages_of_items(const nlohmann::ordered_json& items,
                                         const std::string& instructions);

}  // namespace minimax::openai
