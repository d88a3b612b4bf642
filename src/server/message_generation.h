// One request of the Messages API on its way through the engine to its client.
#pragma once

#include <functional>
#include <memory>

#include "http/message.h"
#include "server/api.h"

namespace minimax::server {

// As start_generation, in the Messages API's shapes. THROWS: ApiError when the engine refuses the request.
void start_message(const Service& service, openai::CompletionRequest request,
                   const std::shared_ptr<http::Reply>& reply, const std::shared_ptr<Seats>& seats);

}  // namespace minimax::server
