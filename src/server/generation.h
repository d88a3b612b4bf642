// One completion request on its way through the engine to its client.
#pragma once

#include <functional>
#include <memory>

#include "http/message.h"
#include "server/api.h"

namespace minimax::server {

// Submits the request and answers it, whole or as a stream; returns at once. A client that leaves, or does
// not read, cancels it. Samples leave their seats as they end. THROWS: ApiError when the engine refuses the
// request.
void start_generation(const Service& service, openai::CompletionRequest request,
                      const std::shared_ptr<http::Reply>& reply, const std::shared_ptr<Seats>& seats);

}  // namespace minimax::server
