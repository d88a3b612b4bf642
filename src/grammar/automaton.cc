#include "grammar/automaton.h"

#include <algorithm>
#include <functional>

#include "core/error.h"

namespace minimax::grammar {
namespace {

uint64_t hash_of(Item item) {
  uint64_t x =
      (static_cast<uint64_t>(static_cast<uint32_t>(item.state)) << 32U) | static_cast<uint32_t>(item.stack);
  x *= 0x9e3779b97f4a7c15ULL;
  return x ^ (x >> 29U);
}

uint64_t hash_of(std::span<const Item> items) {
  uint64_t hash = items.size();
  for (const Item item : items) hash = (hash ^ hash_of(item)) * 0xbf58476d1ce4e5b9ULL + 1;
  return hash ^ (hash >> 31U);
}

}  // namespace

std::pair<int32_t, bool> ItemSets::intern(std::span<const Item> items) {
  if (2 * hashes_.size() >= table_.size()) grow();
  const uint64_t hash = hash_of(items);
  size_t slot = hash & (table_.size() - 1);
  while (table_[slot] >= 0) {
    const int32_t id = table_[slot];
    if (hashes_[static_cast<size_t>(id)] == hash && std::ranges::equal((*this)[id], items))
      return {id, false};
    slot = (slot + 1) & (table_.size() - 1);
  }
  const int32_t id = size();
  table_[slot] = id;
  hashes_.push_back(hash);
  items_.insert(items_.end(), items.begin(), items.end());
  starts_.push_back(static_cast<int64_t>(items_.size()));
  return {id, true};
}

std::span<const Item> ItemSets::operator[](int32_t id) const {
  const auto at = static_cast<size_t>(id);
  return std::span(items_).subspan(static_cast<size_t>(starts_[at]),
                                   static_cast<size_t>(starts_[at + 1] - starts_[at]));
}

int64_t ItemSets::bytes() const {
  return static_cast<int64_t>(items_.size() * sizeof(Item) + starts_.size() * 16 + table_.size() * 4);
}

void ItemSets::grow() {
  table_.assign(std::max<size_t>(64, 2 * table_.size()), -1);
  for (size_t id = 0; id < hashes_.size(); ++id) {
    size_t slot = hashes_[id] & (table_.size() - 1);
    while (table_[slot] >= 0) slot = (slot + 1) & (table_.size() - 1);
    table_[slot] = static_cast<int32_t>(id);
  }
}

void Automaton::Worklist::clear() {
  items_.clear();
  num_taken_ = 0;
  if (++stamp_ != 0) return;
  stamps_.assign(stamps_.size(), 0);
  stamp_ = 1;
}

void Automaton::Worklist::add(Item item) {
  if (2 * items_.size() >= table_.size()) grow();
  size_t slot = hash_of(item) & (table_.size() - 1);
  while (stamps_[slot] == stamp_) {
    if (items_[static_cast<size_t>(table_[slot])] == item) return;
    slot = (slot + 1) & (table_.size() - 1);
  }
  stamps_[slot] = stamp_;
  table_[slot] = static_cast<int32_t>(items_.size());
  items_.push_back(item);
}

bool Automaton::Worklist::take(Item& item) {
  if (num_taken_ == items_.size()) return false;
  item = items_[num_taken_++];
  return true;
}

void Automaton::Worklist::grow() {
  const size_t num_taken = num_taken_;
  const std::vector<Item> items = std::move(items_);
  table_.assign(std::max<size_t>(64, 2 * table_.size()), 0);
  stamps_.assign(table_.size(), 0);
  stamp_ = 0;
  clear();
  items_.reserve(table_.size());
  for (const Item item : items) add(item);
  num_taken_ = num_taken;
}

Automaton::Automaton(std::shared_ptr<const Grammar> grammar, const AutomatonLimits& limits)
    : grammar_(std::move(grammar)),
      limits_(limits),
      num_classes_(grammar_->num_classes()),
      callers_(grammar_->rules.size()) {
  const Item accept{kAccept, kBottom};
  stacks_.intern({&accept, 1});
  depths_.push_back(0);
  work_.clear();
  work_.add({grammar_->rules[static_cast<size_t>(grammar_->root)].start, kBottom});
  for (Item item; work_.take(item);) follow(item, true);
  start_ = close();
}

int32_t Automaton::advance(int32_t configuration, std::string_view text) {
  for (const char byte : text) {
    if (configuration == kDead) return kDead;
    configuration = next(configuration, grammar_->class_of[static_cast<uint8_t>(byte)]);
  }
  return configuration;
}

bool Automaton::is_complete(int32_t configuration) const {
  const auto items = configurations_[configuration];
  return !items.empty() && items.front().state == kAccept;
}

bool Automaton::can_continue(int32_t configuration) const {
  const auto items = configurations_[configuration];
  return !items.empty() && items.back().state != kAccept;
}

int64_t Automaton::bytes() const {
  return stacks_.bytes() + configurations_.bytes() + std::ssize(transitions_) * 4 + std::ssize(depths_) * 4;
}

int32_t Automaton::compute(int32_t configuration, uint8_t byte_class) {
  if (budget_ < 0) fail("the grammar is too ambiguous to follow; simplify its repetitions");
  const uint8_t byte = grammar_->byte_of_class[byte_class];
  work_.clear();
  kept_.clear();
  for (const Item item : configurations_[configuration]) {
    if (item.state == kAccept) continue;
    for (const ByteEdge& edge : grammar_->bytes_of(item.state)) {
      if (edge.first <= byte && byte <= edge.last) work_.add({edge.target, item.stack});
    }
  }
  for (Item item; work_.take(item);) follow(item, true);
  budget_ -= work_.size() + std::ssize(configurations_[configuration]);
  const int32_t result = close();
  transitions_[static_cast<size_t>(configuration) * static_cast<size_t>(num_classes_) + byte_class] = result;
  return result;
}

// What an item leads to without reading a byte. Ends of rules that have read nothing do not count: their
// callers have a way around them.
void Automaton::follow(Item item, bool may_end) {
  if (item.state == kAccept) {
    kept_.push_back(item);
    return;
  }
  const Grammar::State& state = grammar_->at(item.state);
  if (state.is_final && may_end) {
    const auto rest = stacks_[item.stack];
    for (const Item next : rest) work_.add(next);
    budget_ -= std::ssize(rest);
  }
  for (const int32_t target : grammar_->empties_of(item.state)) work_.add({target, item.stack});
  for (const CallEdge& edge : grammar_->calls_of(item.state)) call(edge, item.stack);
  if (!grammar_->bytes_of(item.state).empty()) kept_.push_back(item);
}

void Automaton::call(const CallEdge& edge, int32_t stack) {
  std::vector<Item>& callers = callers_[static_cast<size_t>(edge.rule)];
  if (callers.empty()) {
    due_.emplace_back(grammar_->rules[static_cast<size_t>(edge.rule)].rank, edge.rule);
    std::push_heap(due_.begin(), due_.end(), std::greater<>());
  }
  if (grammar_->at(edge.target).is_tail) {
    // The end of the called rule is the end of the caller.
    const auto rest = stacks_[stack];
    callers.insert(callers.end(), rest.begin(), rest.end());
    budget_ -= std::ssize(rest);
  } else {
    callers.push_back({edge.target, stack});
  }
}

int32_t Automaton::stack_of(std::vector<Item>& callers) {
  std::sort(callers.begin(), callers.end());
  callers.erase(std::unique(callers.begin(), callers.end()), callers.end());
  const auto [stack, is_new] = stacks_.intern(callers);
  if (is_new) {
    int32_t depth = 0;
    for (const Item item : callers) depth = std::max(depth, depths_[static_cast<size_t>(item.stack)] + 1);
    depths_.push_back(depth);
  }
  return stack;
}

// Callers have smaller ranks, so when a rule's turn comes all its callers at this byte are known.
void Automaton::enter_called_rules() {
  while (!due_.empty()) {
    std::pop_heap(due_.begin(), due_.end(), std::greater<>());
    const int32_t rule = due_.back().second;
    due_.pop_back();
    std::vector<Item>& callers = callers_[static_cast<size_t>(rule)];
    const int32_t stack = stack_of(callers);
    callers.clear();
    if (depths_[static_cast<size_t>(stack)] > limits_.max_depth) continue;
    work_.clear();
    work_.add({grammar_->rules[static_cast<size_t>(rule)].start, stack});
    for (Item item; work_.take(item);) follow(item, false);
    budget_ -= work_.size();
  }
}

int32_t Automaton::close() {
  enter_called_rules();
  if (kept_.empty()) return kDead;
  std::sort(kept_.begin(), kept_.end());
  kept_.erase(std::unique(kept_.begin(), kept_.end()), kept_.end());
  const auto [configuration, is_new] = configurations_.intern(kept_);
  if (is_new) {
    transitions_.resize(transitions_.size() + static_cast<size_t>(num_classes_), kUnknown);
    if (bytes() > limits_.max_bytes) {
      fail("the grammar has taken more than {} MiB of states; simplify it", limits_.max_bytes >> 20);
    }
  }
  return configuration;
}

}  // namespace minimax::grammar
