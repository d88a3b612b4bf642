// Grammar: a compiled context-free grammar over bytes, constant once built, safe from any thread.
//
// Each rule is a nondeterministic automaton whose edges read a byte, read nothing, or call a rule and go on
// behind it. No rule calls itself before it has read a byte (left recursion is refused), and every state has
// a way to the end of its rule, so a text that has begun well can always be completed.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace minimax::grammar {

inline constexpr int64_t kMaxStates = 400'000;

struct ByteEdge {
  uint8_t first = 0;
  uint8_t last = 0;
  int32_t target = 0;
};

struct CallEdge {
  int32_t rule = 0;
  int32_t target = 0;
};

struct GrammarRule {
  std::string name;
  int32_t start = 0;
  // Rules that a rule calls before it reads a byte have a larger rank.
  int32_t rank = 0;
};

struct Grammar {
  struct State {  // where its edges begin; they end where the next state's begin
    int32_t bytes = 0;
    int32_t empties = 0;
    int32_t calls = 0;
    bool is_final = false;  // of its rule
    bool is_tail = false;   // nothing but the end of its rule can follow
  };

  std::vector<State> states;  // and one behind the last
  std::vector<ByteEdge> byte_edges;
  std::vector<int32_t> empty_edges;  // targets
  std::vector<CallEdge> call_edges;
  std::vector<GrammarRule> rules;
  int32_t root = 0;

  // Bytes that no edge tells apart are one class.
  std::array<uint8_t, 256> class_of{};
  std::vector<uint8_t> byte_of_class;

  std::span<const ByteEdge> bytes_of(int32_t state) const {
    return edges(byte_edges, at(state).bytes, at(state + 1).bytes);
  }
  std::span<const int32_t> empties_of(int32_t state) const {
    return edges(empty_edges, at(state).empties, at(state + 1).empties);
  }
  std::span<const CallEdge> calls_of(int32_t state) const {
    return edges(call_edges, at(state).calls, at(state + 1).calls);
  }
  const State& at(int32_t state) const { return states[static_cast<size_t>(state)]; }
  int32_t num_classes() const { return static_cast<int32_t>(byte_of_class.size()); }

 private:
  template <typename T>
  static std::span<const T> edges(const std::vector<T>& all, int32_t begin, int32_t end) {
    return std::span(all).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  }
};

}  // namespace minimax::grammar
