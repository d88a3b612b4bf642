// What generations of every API share: their names, and their way into the engine.
#pragma once

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>

#include "http/message.h"
#include "server/api.h"

namespace minimax::server {

// 128 random bits as text.
inline std::string random_name() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

// Submits a Generation: it has the engine's `request()`, and takes tokens with `add` and ends with `finish`.
// A client that leaves cancels it. THROWS: ApiError when the engine refuses the request.
template <typename Generation>
void submit_generation(const Service& service, openai::CompletionRequest request,
                       std::shared_ptr<http::Reply> reply, std::function<void(int64_t)> on_finish) {
  const int64_t count = request.request.n;
  engine::EngineRequestId id = 0;
  try {
    const auto generation = std::make_shared<Generation>(service, std::move(request), reply);
    engine::Callbacks callbacks;
    callbacks.on_token = [generation](const engine::TokenOutput& output) { return generation->add(output); };
    callbacks.on_finish = [generation, on_finish](const engine::FinishedSample& finish) {
      on_finish(1);
      generation->finish(finish);
    };
    id = service.engine.submit(generation->request(), std::move(callbacks));
  } catch (const Error& error) {
    on_finish(count);
    throw openai::ApiError("", error.what());
  }
  reply->on_close([&engine = service.engine, id] { engine.cancel(id); });
}

}  // namespace minimax::server
