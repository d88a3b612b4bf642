// The chat page's files as answers.
#pragma once

#include "http/message.h"

namespace minimax::server {

// RETURNS: the file of a path, or `error(404, ...)`.
http::Response page_file(const http::Request& request,
                         const std::function<http::Response(int, const std::string&)>& error);

}  // namespace minimax::server
