// Expressions to automata: states are laid out, ways that lead nowhere are cut, rules are ranked.
#include <algorithm>
#include <map>
#include <queue>

#include "core/error.h"
#include "grammar/builder.h"
#include "grammar/grammar.h"

namespace minimax::grammar {
namespace {

constexpr int64_t kMaxEdges = 4 * kMaxStates;

struct Draft {
  struct Bytes {
    int32_t source;
    ByteRange range;
    int32_t target;
  };
  struct Empty {
    int32_t source;
    int32_t target;
  };
  struct Call {
    int32_t source;
    int32_t rule;
    int32_t target;
  };
  struct Ends {
    int32_t start = 0;
    int32_t final = 0;
  };
  std::vector<Bytes> bytes;
  std::vector<Empty> empties;
  std::vector<Call> calls;
  std::vector<Ends> rules;
  std::vector<std::string> names;
  int32_t num_states = 0;

  int32_t state() {
    if (num_states >= kMaxStates || std::ssize(bytes) + std::ssize(empties) + std::ssize(calls) > kMaxEdges) {
      fail("the grammar has more than {} states; lower its repetition counts or simplify it", kMaxStates);
    }
    return num_states++;
  }
};

// Lays out rules, and rules without a name for parts that are repeated a counted number of times.
class Layout {
 public:
  explicit Layout(const GrammarBuilder& builder) : builder_(builder) {}

  Draft run() {
    for (const GrammarBuilder::Rule& rule : builder_.rules()) {
      if (rule.body < 0) fail("the grammar uses rule \"{}\" and does not define it", rule.name);
      draft_.names.push_back(rule.name);
    }
    draft_.rules.resize(builder_.rules().size());
    for (size_t rule = 0; rule < builder_.rules().size(); ++rule) lay_rule(rule, builder_.rules()[rule].body);
    return std::move(draft_);
  }

 private:
  void lay_rule(size_t rule, ExprId body) {
    const int32_t start = draft_.state();
    const int32_t final = draft_.state();
    draft_.rules[rule] = {start, final};
    lay(body, start, final);
  }

  // Adds no edge into `from` and none out of `to`, so options and rules may share both.
  void lay(ExprId id, int32_t from, int32_t to) {
    const Expression& e = builder_.at(id);
    switch (e.kind) {
      case Expression::Kind::kLiteral:
        return lay_literal(e.text, from, to);
      case Expression::Kind::kBytes:
        return lay_bytes(e.bytes, from, to);
      case Expression::Kind::kChars:
        return lay_chars(e.chars, from, to);
      case Expression::Kind::kSequence:
        for (size_t i = 0; i < e.children.size(); ++i) {
          const int32_t next = i + 1 == e.children.size() ? to : draft_.state();
          lay(e.children[i], from, next);
          from = next;
        }
        if (e.children.empty()) draft_.empties.push_back({from, to});
        return;
      case Expression::Kind::kChoice:
        for (const ExprId child : e.children) lay(child, from, to);
        return;
      case Expression::Kind::kRepeat:
        return lay_repeat(e, from, to);
      case Expression::Kind::kCall:
        draft_.calls.push_back({from, e.rule, to});
        return;
    }
  }

  void lay_literal(const std::string& text, int32_t from, int32_t to) {
    for (size_t i = 0; i < text.size(); ++i) {
      const int32_t next = i + 1 == text.size() ? to : draft_.state();
      const auto byte = static_cast<uint8_t>(text[i]);
      draft_.bytes.push_back({from, {byte, byte}, next});
      from = next;
    }
  }

  void lay_bytes(const ByteSet& set, int32_t from, int32_t to) {
    for (int first = 0; first < 256; ++first) {
      if (!set.test(static_cast<size_t>(first))) continue;
      int last = first;
      while (last < 255 && set.test(static_cast<size_t>(last) + 1)) ++last;
      draft_.bytes.push_back({from, {static_cast<uint8_t>(first), static_cast<uint8_t>(last)}, to});
      first = last;
    }
  }

  void lay_chars(const CharSet& set, int32_t from, int32_t to) {
    std::map<size_t, int32_t> any_tail;  // states before so many bytes of any continuation
    any_tail[0] = to;
    for (const std::vector<ByteRange>& sequence : utf8_sequences(set)) {
      int32_t at = from;
      for (size_t i = 0; i < sequence.size(); ++i) {
        const size_t left = sequence.size() - i - 1;
        const bool is_any = std::all_of(sequence.begin() + static_cast<std::ptrdiff_t>(i) + 1, sequence.end(),
                                        [](const ByteRange& r) {
                                          return r == ByteRange{0x80, 0xBF};
                                        });
        int32_t next = -1;
        if (!is_any) {
          next = draft_.state();
        } else {
          for (size_t n = 1; n <= left; ++n) {
            if (any_tail.contains(n)) continue;
            any_tail[n] = draft_.state();
            draft_.bytes.push_back({any_tail[n], {0x80, 0xBF}, any_tail[n - 1]});
          }
          next = any_tail[left];
        }
        draft_.bytes.push_back({at, sequence[i], next});
        at = next;
        if (is_any) break;
      }
    }
  }

  void lay_repeat(const Expression& e, int32_t from, int32_t to) {
    const bool is_bounded = e.max != kUnbounded;
    if (!is_bounded && e.min <= 1) {
      const int32_t start = draft_.state();
      const int32_t end = draft_.state();
      draft_.empties.push_back({from, start});
      lay(e.children.front(), start, end);
      draft_.empties.push_back({end, start});
      draft_.empties.push_back({end, to});
      if (e.min == 0) draft_.empties.push_back({from, to});
      return;
    }
    const int64_t copies = is_bounded ? e.max : e.min;
    const int32_t rule = copies > 1 ? repeated_rule(e.children.front()) : -1;
    for (int64_t i = 0; i < copies; ++i) {
      if (i >= e.min) draft_.empties.push_back({from, to});
      const int32_t next = draft_.state();
      lay_copy(e.children.front(), rule, from, next);
      from = next;
    }
    if (!is_bounded) lay_copy(e.children.front(), rule, from, from);
    draft_.empties.push_back({from, to});
  }

  // -1 when a copy is no larger than a call.
  int32_t repeated_rule(ExprId part) {
    const Expression& e = builder_.at(part);
    if (e.kind == Expression::Kind::kBytes || e.kind == Expression::Kind::kCall) return -1;
    const auto [found, is_new] = repeated_.try_emplace(part, static_cast<int32_t>(draft_.rules.size()));
    if (is_new) {
      draft_.rules.emplace_back();
      draft_.names.emplace_back("(repeated part)");
      lay_rule(static_cast<size_t>(found->second), part);
    }
    return found->second;
  }

  void lay_copy(ExprId part, int32_t rule, int32_t from, int32_t to) {
    if (rule < 0) {
      lay(part, from, to);
    } else {
      draft_.calls.push_back({from, rule, to});
    }
  }

  const GrammarBuilder& builder_;
  Draft draft_;
  std::map<ExprId, int32_t> repeated_;
};

// Lists of edge numbers by a state or rule.
class EdgeIndex {
 public:
  template <typename Edges, typename Key>
  EdgeIndex(const Edges& edges, size_t num_keys, Key key) : starts_(num_keys + 1) {
    for (const auto& edge : edges) ++starts_[static_cast<size_t>(key(edge)) + 1];
    for (size_t i = 0; i < num_keys; ++i) starts_[i + 1] += starts_[i];
    std::vector<int32_t> next(starts_.begin(), starts_.end() - 1);
    edges_.resize(edges.size());
    for (size_t i = 0; i < edges.size(); ++i) {
      edges_[static_cast<size_t>(next[static_cast<size_t>(key(edges[i]))]++)] = static_cast<int32_t>(i);
    }
  }
  std::span<const int32_t> of(int32_t key) const {
    const auto at = static_cast<size_t>(key);
    return std::span(edges_).subspan(static_cast<size_t>(starts_[at]),
                                     static_cast<size_t>(starts_[at + 1] - starts_[at]));
  }

 private:
  std::vector<int32_t> starts_;
  std::vector<int32_t> edges_;
};

// The states from which the end of their rule can be reached, over all edges or without reading a byte.
std::vector<char> reaching_end(const Draft& draft, bool reads_bytes) {
  const auto num_states = static_cast<size_t>(draft.num_states);
  const EdgeIndex bytes(draft.bytes, num_states, [](const auto& e) { return e.target; });
  const EdgeIndex empties(draft.empties, num_states, [](const auto& e) { return e.target; });
  const EdgeIndex calls(draft.calls, num_states, [](const auto& e) { return e.target; });
  const EdgeIndex callers(draft.calls, draft.rules.size(), [](const auto& e) { return e.rule; });
  const EdgeIndex rules(draft.rules, num_states, [](const auto& r) { return r.start; });

  std::vector<char> reaches(num_states);
  std::vector<int32_t> pending;
  const auto mark = [&](int32_t state) {
    if (std::exchange(reaches[static_cast<size_t>(state)], char{1}) == 0) pending.push_back(state);
  };
  const auto is_marked = [&](int32_t state) { return reaches[static_cast<size_t>(state)] != 0; };
  for (const Draft::Ends& rule : draft.rules) mark(rule.final);
  while (!pending.empty()) {
    const int32_t state = pending.back();
    pending.pop_back();
    for (const int32_t e : empties.of(state)) mark(draft.empties[static_cast<size_t>(e)].source);
    if (reads_bytes) {
      for (const int32_t e : bytes.of(state)) mark(draft.bytes[static_cast<size_t>(e)].source);
    }
    for (const int32_t e : calls.of(state)) {
      const Draft::Call& call = draft.calls[static_cast<size_t>(e)];
      if (is_marked(draft.rules[static_cast<size_t>(call.rule)].start)) mark(call.source);
    }
    for (const int32_t rule : rules.of(state)) {
      for (const int32_t e : callers.of(rule)) {
        const Draft::Call& call = draft.calls[static_cast<size_t>(e)];
        if (is_marked(call.target)) mark(call.source);
      }
    }
  }
  return reaches;
}

// Cuts edges from which the end cannot be reached; calls of rules that match the empty text may be skipped.
void prune(Draft& draft) {
  const std::vector<char> alive = reaching_end(draft, true);
  const auto is_dead = [&](int32_t state) { return alive[static_cast<size_t>(state)] == 0; };
  const auto is_dead_rule = [&](int32_t rule) {
    return is_dead(draft.rules[static_cast<size_t>(rule)].start);
  };
  std::erase_if(draft.bytes, [&](const auto& e) { return is_dead(e.target); });
  std::erase_if(draft.empties, [&](const auto& e) { return is_dead(e.target); });
  std::erase_if(draft.calls, [&](const auto& e) { return is_dead(e.target) || is_dead_rule(e.rule); });
  const std::vector<char> nullable = reaching_end(draft, false);
  for (const Draft::Call& call : draft.calls) {
    if (nullable[static_cast<size_t>(draft.rules[static_cast<size_t>(call.rule)].start)] != 0)
      draft.empties.push_back({call.source, call.target});
  }
}

void set_classes(const Draft& draft, Grammar& grammar) {
  // A class begins wherever some edge's range begins or has just ended.
  std::array<bool, 257> begins{};
  begins[0] = true;
  std::vector<Draft::Bytes> ranges = draft.bytes;
  for (const Draft::Bytes& edge : ranges) {
    begins[edge.range.first] = true;
    begins[static_cast<size_t>(edge.range.last) + 1] = true;
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (begins[byte]) grammar.byte_of_class.push_back(static_cast<uint8_t>(byte));
    grammar.class_of[byte] = static_cast<uint8_t>(grammar.byte_of_class.size() - 1);
  }
}

void set_states(const Draft& draft, Grammar& grammar) {
  const auto num_states = static_cast<size_t>(draft.num_states);
  const EdgeIndex bytes(draft.bytes, num_states, [](const auto& e) { return e.source; });
  const EdgeIndex empties(draft.empties, num_states, [](const auto& e) { return e.source; });
  const EdgeIndex calls(draft.calls, num_states, [](const auto& e) { return e.source; });
  const auto place = [&] {
    return Grammar::State{static_cast<int32_t>(grammar.byte_edges.size()),
                          static_cast<int32_t>(grammar.empty_edges.size()),
                          static_cast<int32_t>(grammar.call_edges.size())};
  };
  for (int32_t state = 0; state < draft.num_states; ++state) {
    grammar.states.push_back(place());
    for (const int32_t e : bytes.of(state)) {
      const Draft::Bytes& edge = draft.bytes[static_cast<size_t>(e)];
      grammar.byte_edges.push_back({edge.range.first, edge.range.last, edge.target});
    }
    for (const int32_t e : empties.of(state))
      grammar.empty_edges.push_back(draft.empties[static_cast<size_t>(e)].target);
    for (const int32_t e : calls.of(state)) {
      const Draft::Call& edge = draft.calls[static_cast<size_t>(e)];
      grammar.call_edges.push_back({edge.rule, edge.target});
    }
  }
  grammar.states.push_back(place());
  for (const Draft::Ends& rule : draft.rules) {
    Grammar::State& final = grammar.states[static_cast<size_t>(rule.final)];
    final.is_final = true;
    // Nothing leaves the end of a rule: lay() gives it no edges.
    final.is_tail = true;
  }
}

// A state is a tail too when one empty edge to a tail is all it has.
void set_tails(const Draft& draft, Grammar& grammar) {
  for (int round = 0; round < 8; ++round) {
    for (int32_t s = draft.num_states - 1; s >= 0; --s) {
      const auto targets = grammar.empties_of(s);
      if (grammar.at(s).is_tail || targets.empty() || !grammar.bytes_of(s).empty() ||
          !grammar.calls_of(s).empty()) {
        continue;
      }
      grammar.states[static_cast<size_t>(s)].is_tail = std::all_of(
          targets.begin(), targets.end(), [&](int32_t target) { return grammar.at(target).is_tail; });
    }
  }
}

// The rules that `rule` calls before it has read a byte.
std::vector<int32_t> left_calls(const Grammar& grammar, int32_t rule, std::vector<int32_t>& seen_by) {
  std::vector<int32_t> called;
  std::vector<int32_t> pending{grammar.rules[static_cast<size_t>(rule)].start};
  while (!pending.empty()) {
    const int32_t state = pending.back();
    pending.pop_back();
    if (std::exchange(seen_by[static_cast<size_t>(state)], rule) == rule) continue;
    for (const int32_t target : grammar.empties_of(state)) pending.push_back(target);
    for (const CallEdge& call : grammar.calls_of(state)) called.push_back(call.rule);
  }
  std::sort(called.begin(), called.end());
  called.erase(std::unique(called.begin(), called.end()), called.end());
  return called;
}

void rank_rules(Grammar& grammar) {
  const size_t num_rules = grammar.rules.size();
  std::vector<int32_t> seen_by(grammar.states.size(), -1);
  std::vector<std::vector<int32_t>> called(num_rules);
  std::vector<int32_t> num_callers(num_rules);
  for (size_t rule = 0; rule < num_rules; ++rule) {
    called[rule] = left_calls(grammar, static_cast<int32_t>(rule), seen_by);
    for (const int32_t other : called[rule]) ++num_callers[static_cast<size_t>(other)];
  }
  std::queue<size_t> ready;
  for (size_t rule = 0; rule < num_rules; ++rule) {
    if (num_callers[rule] == 0) ready.push(rule);
  }
  int32_t rank = 0;
  while (!ready.empty()) {
    const size_t rule = ready.front();
    ready.pop();
    grammar.rules[rule].rank = rank++;
    for (const int32_t other : called[rule]) {
      if (--num_callers[static_cast<size_t>(other)] == 0) ready.push(static_cast<size_t>(other));
    }
  }
  if (rank == std::ssize(grammar.rules)) return;
  const auto recursive =
      std::find_if(num_callers.begin(), num_callers.end(), [](int32_t n) { return n > 0; });
  fail(
      "rule \"{}\" of the grammar leads back to itself before it reads anything (left recursion); begin it "
      "with a part that reads",
      grammar.rules[static_cast<size_t>(recursive - num_callers.begin())].name);
}

}  // namespace

std::shared_ptr<const Grammar> GrammarBuilder::build(RuleId root) && {
  Draft draft = Layout(*this).run();
  prune(draft);
  auto grammar = std::make_shared<Grammar>();
  grammar->root = root;
  for (size_t rule = 0; rule < draft.rules.size(); ++rule) {
    grammar->rules.push_back({draft.names[rule], draft.rules[rule].start});
  }
  set_classes(draft, *grammar);
  set_states(draft, *grammar);
  set_tails(draft, *grammar);
  const int32_t start = grammar->rules[static_cast<size_t>(root)].start;
  const bool has_ways = !grammar->bytes_of(start).empty() || !grammar->empties_of(start).empty() ||
                        !grammar->calls_of(start).empty();
  if (!has_ways) fail("no text matches the grammar; its conditions exclude each other");
  rank_rules(*grammar);
  return grammar;
}

}  // namespace minimax::grammar
