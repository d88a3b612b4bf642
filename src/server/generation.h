// One completion request on its way through the engine to its client.
#pragma once

#include <functional>
#include <memory>

#include "http/message.h"
#include "server/api.h"

namespace minimax::server {

// Submits the request and answers it, whole or as a stream; returns at once. A client that leaves, or does
// not read, cancels it. `on_finish` is told how many samples have ended, until all have; also when this
// throws. THROWS: ApiError when the engine refuses the request.
void start_generation(const Service& service, openai::CompletionRequest request,
                      std::shared_ptr<http::Reply> reply, std::function<void(int64_t)> on_finish);

}  // namespace minimax::server
