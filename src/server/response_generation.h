// One request of /v1/responses on its way through the engine to its client.
#pragma once

#include <functional>
#include <memory>

#include "http/message.h"
#include "openai/responses_request.h"
#include "server/api.h"

namespace minimax::server {

// As start_generation. The answer goes into `store` when it is to be kept and has not failed.
// THROWS: ApiError when the engine refuses the request.
void start_response(const Service& service, openai::ResponsesRequest request,
                    const std::shared_ptr<openai::ResponseStore>& store,
                    const std::shared_ptr<http::Reply>& reply, const std::shared_ptr<Seats>& seats);

}  // namespace minimax::server
