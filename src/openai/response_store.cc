#include "openai/response_store.h"

#include <iterator>

namespace minimax::openai {

int64_t ResponseStore::bytes_of(const Entry& entry) {
  return static_cast<int64_t>(entry.id.size() + entry.kept.body.size() + entry.kept.items.size());
}

void ResponseStore::forget(Entries::iterator entry) {
  bytes_ -= bytes_of(*entry);
  index_.erase(entry->id);
  entries_.erase(entry);
}

void ResponseStore::put(const std::string& id, Kept kept) {
  const std::lock_guard lock(mutex_);
  entries_.push_front({id, std::move(kept)});
  index_[id] = entries_.begin();
  bytes_ += bytes_of(entries_.front());
  while (!entries_.empty() && (static_cast<int64_t>(entries_.size()) > max_responses_ || bytes_ > max_bytes_))
    forget(std::prev(entries_.end()));
}

std::optional<ResponseStore::Kept> ResponseStore::get(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = index_.find(id);
  if (found == index_.end()) return std::nullopt;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->kept;
}

bool ResponseStore::erase(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = index_.find(id);
  if (found == index_.end()) return false;
  forget(found->second);
  return true;
}

}  // namespace minimax::openai
