// Answers of /v1/responses, kept for a while so that a later request may go on from one, or ask for it again.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_map>

namespace minimax::openai {

// Safe from any thread. Holds texts, since those are a fraction of what parsed JSON takes.
class ResponseStore {
 public:
  // Beyond either limit the one that was used longest ago is forgotten.
  ResponseStore(int64_t max_responses, int64_t max_bytes)
      : max_responses_(max_responses), max_bytes_(max_bytes) {}

  struct Kept {
    std::string body;   // the response object
    std::string items;  // the conversation up to its end, a list of items
  };

  // Whether anything is kept at all.
  bool is_on() const { return max_responses_ > 0; }
  void put(const std::string& id, Kept kept);
  std::optional<Kept> get(const std::string& id);
  // RETURNS: whether there was one.
  bool erase(const std::string& id);

 private:
  struct Entry {
    std::string id;
    Kept kept;
  };
  using Entries = std::list<Entry>;

  void forget(Entries::iterator entry);
  static int64_t bytes_of(const Entry& entry);

  const int64_t max_responses_;
  const int64_t max_bytes_;
  std::mutex mutex_;  // of the following
  Entries entries_;   // used last first
  std::unordered_map<std::string, Entries::iterator> index_;
  int64_t bytes_ = 0;
};

}  // namespace minimax::openai
