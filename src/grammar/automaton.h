// Automaton: a grammar at work. Configurations are the places a text can be in, found when first needed and
// kept, so that a byte that was seen in a place before costs one look-up.
//
// A configuration is a set of items (state, stack). A stack is the set of items to go on with when the rule
// is done; all calls of a rule at one byte share one stack (a graph-structured stack), and equal sets are
// stored once. So equal configurations have equal numbers, copying one copies a number, and an ambiguous
// grammar costs what Earley's algorithm costs, never more than the square of the text.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/grammar.h"

namespace minimax::grammar {

struct Item {
  int32_t state = 0;
  int32_t stack = 0;
  bool operator==(const Item&) const = default;
  bool operator<(const Item& other) const {
    return state != other.state ? state < other.state : stack < other.stack;
  }
};

struct AutomatonLimits {
  int32_t max_depth = 4096;                // calls inside calls: deeper ways are not gone
  int64_t max_bytes = int64_t{128} << 20;  // of everything kept
};

// Sorted sets of items, each stored once.
class ItemSets {
 public:
  // REQUIRES: sorted, without doubles. RETURNS: its number, and whether it is new.
  std::pair<int32_t, bool> intern(std::span<const Item> items);
  std::span<const Item> operator[](int32_t id) const;
  int32_t size() const { return static_cast<int32_t>(starts_.size()) - 1; }
  int64_t bytes() const;

 private:
  void grow();

  std::vector<Item> items_;
  std::vector<int64_t> starts_{0};
  std::vector<uint64_t> hashes_;
  std::vector<int32_t> table_;  // open addressing, -1: free
};

// Not safe from several threads.
class Automaton {
 public:
  static constexpr int32_t kDead = -1;

  explicit Automaton(std::shared_ptr<const Grammar> grammar, const AutomatonLimits& limits = {});

  int32_t start() const { return start_; }
  // Of a byte's class; kDead: no text goes on so. THROWS: Error when the limits are exceeded.
  int32_t next(int32_t configuration, uint8_t byte_class) {
    const int32_t known =
        transitions_[static_cast<size_t>(configuration) * static_cast<size_t>(num_classes_) + byte_class];
    return known != kUnknown ? known : compute(configuration, byte_class);
  }
  // Items that may be visited from here on; beyond, steps that are not known yet throw Error.
  void set_budget(int64_t items) { budget_ = items; }
  // RETURNS: the configuration after `text`, or kDead.
  int32_t advance(int32_t configuration, std::string_view text);
  // Whether the text may end here, and whether it may go on.
  bool is_complete(int32_t configuration) const;
  bool can_continue(int32_t configuration) const;

  const Grammar& grammar() const { return *grammar_; }
  int64_t bytes() const;
  int32_t num_configurations() const { return configurations_.size(); }

 private:
  static constexpr int32_t kUnknown = -2;
  static constexpr int32_t kAccept = -1;  // the state behind the root
  static constexpr int32_t kBottom = 0;   // the stack below it

  // Items in the order they were found, each once.
  class Worklist {
   public:
    void clear();
    void add(Item item);
    // The oldest item that was not taken yet, also one added meanwhile. RETURNS: false when there is none.
    bool take(Item& item);
    int64_t size() const { return static_cast<int64_t>(items_.size()); }

   private:
    void grow();

    std::vector<Item> items_;
    size_t num_taken_ = 0;
    std::vector<int32_t> table_;
    std::vector<uint32_t> stamps_;
    uint32_t stamp_ = 0;
  };

  int32_t compute(int32_t configuration, uint8_t byte_class);
  int32_t close();
  void follow(Item item, bool may_end);
  void call(const CallEdge& call, int32_t stack);
  void enter_called_rules();
  int32_t stack_of(std::vector<Item>& callers);

  std::shared_ptr<const Grammar> grammar_;
  AutomatonLimits limits_;
  int32_t num_classes_;
  ItemSets stacks_;
  std::vector<int32_t> depths_;  // of the stacks
  ItemSets configurations_;
  std::vector<int32_t> transitions_;  // [configurations, classes]
  int32_t start_ = kDead;
  int64_t budget_ = INT64_MAX;

  // Used within one step.
  Worklist work_;
  std::vector<std::vector<Item>> callers_;        // by rule
  std::vector<std::pair<int32_t, int32_t>> due_;  // a heap of (rank, rule) with callers, smallest rank first
  std::vector<Item> kept_;
};

}  // namespace minimax::grammar
