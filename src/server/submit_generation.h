// What generations of every API share: their names, their places and their way into the engine.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "http/message.h"
#include "server/api.h"

namespace minimax::server {

// 128 random bits as text.
inline std::string random_name() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

// Submits `requests`, all of as many samples, for a Generation that takes tokens with
// `add(choice, token)` and ends each choice with `finish(finish)`, whose sample is the choice; choices count
// samples over all requests. A Generation with `add_prompt(request, logprobs)` hears of prompts too.
// A client that leaves cancels them. THROWS: ApiError when the engine refuses one; nothing is submitted then.
template <typename Generation>
void submit_generation(const Service& service, const std::shared_ptr<Generation>& generation,
                       const std::vector<engine::Request>& requests,
                       const std::shared_ptr<http::Reply>& reply, const std::shared_ptr<Seats>& seats) {
  std::vector<engine::EngineRequestId> ids;
  try {
    for (const engine::Request& request : requests) service.engine.check(request);
    for (const engine::Request& request : requests) {
      const auto index = static_cast<int32_t>(ids.size());
      const int32_t first = index * request.n;
      engine::Callbacks callbacks;
      callbacks.on_token = [generation, first](const engine::TokenOutput& output) {
        return generation->add(first + output.sample, output.token);
      };
      callbacks.on_finish = [generation, seats, first](engine::FinishedSample finish) {
        seats->leave();
        finish.sample += first;
        generation->finish(finish);
      };
      if constexpr (requires { generation->add_prompt(index, {}); }) {
        callbacks.on_prompt = [generation, index](const std::vector<engine::SampledToken>& logprobs) {
          generation->add_prompt(index, logprobs);
        };
      }
      ids.push_back(service.engine.submit(request, std::move(callbacks)));
    }
  } catch (const Error& error) {
    // Behind the first, only an engine that has failed refuses: then what is under way tells the client.
    if (ids.empty()) throw openai::ApiError("", error.what());
  }
  reply->on_close([&engine = service.engine, ids] {
    for (const engine::EngineRequestId id : ids) engine.cancel(id);
  });
}

}  // namespace minimax::server
