// Which family's way of writing a checkpoint follows.
#pragma once

#include <string_view>

#include "chat/output_parser.h"

namespace minimax::chat {

// `name`: a class of config.json's "architectures", or its "model_type". THROWS: Error with the known names.
ChatFormat chat_format_of(std::string_view name);

// "m1", "m2" or "m3". THROWS: Error.
ChatFormat parse_chat_format(std::string_view text);

}  // namespace minimax::chat
