// Where reasoning, content and calls begin and end. The calls themselves are read by the family's CallReader.
#include "chat/output_parser.h"

#include "chat/argument_text.h"
#include "chat/call_reader.h"
#include "chat/marker_scanner.h"
#include "chat/utf8_input.h"

namespace minimax::chat {
namespace {

// How a family writes the sections of an answer.
struct Sections {
  std::string_view open;  // of the reasoning
  std::string_view close;
  std::string_view call;        // opens a block of calls,
  std::string_view first_call;  // if this comes next
  bool has_newlines;            // around the markers, and white space before the calls
  bool calls_end_reasoning;
  bool reopens;      // an opening marker within the content begins reasoning again
  bool late_closes;  // a closing marker alone makes what came before it reasoning
};

constexpr Sections kM1 = {"<think>", "</think>", kM1Open, kM1FirstCall, true, false, false, true};
constexpr Sections kM2 = {"<think>", "</think>", kM2Open, kM2FirstCall, true, true, false, false};
constexpr Sections kM3 = {"<mm:think>", "</mm:think>", kM3Open, kM3FirstCall, false, true, true, false};

enum class Marker { kOpen, kClose, kCall };

// Markers that are looked for at one place, and what each means.
class Markers {
 public:
  explicit Markers(std::vector<std::pair<std::string, Marker>> list)
      : list_(std::move(list)), scanner_(texts()) {}
  Markers(const Markers&) = delete;
  Markers& operator=(const Markers&) = delete;

  // As MarkerScanner. RETURNS: the marker found, else null.
  const std::pair<std::string, Marker>* feed(char c, std::string& text) {
    const int found = scanner_.feed(c, text);
    return found == MarkerScanner::kNone ? nullptr : &list_[static_cast<size_t>(found)];
  }
  std::string take_held() { return scanner_.take_held(); }

 private:
  std::vector<std::string_view> texts() const {
    std::vector<std::string_view> texts;
    for (const auto& [text, marker] : list_) texts.push_back(text);
    return texts;
  }

  std::vector<std::pair<std::string, Marker>> list_;
  MarkerScanner scanner_;
};

using MarkerList = std::vector<std::pair<std::string, Marker>>;

MarkerList leading_markers(const Sections& sections, bool is_inside) {
  MarkerList list = {{std::string(sections.open), Marker::kOpen}};
  if (!is_inside) list.emplace_back(sections.close, Marker::kClose);
  return list;
}

MarkerList reasoning_markers(const Sections& sections) {
  MarkerList list = {{std::string(sections.close), Marker::kClose}};
  if (sections.calls_end_reasoning) list.emplace_back(sections.call, Marker::kCall);
  // A newline before a marker is the marker's.
  const size_t count = sections.has_newlines ? list.size() : 0;
  for (size_t i = 0; i < count; ++i) list.emplace_back("\n" + list[i].first, list[i].second);
  return list;
}

MarkerList content_markers(const Sections& sections) {
  MarkerList list = {{std::string(sections.call), Marker::kCall}};
  if (sections.reopens) list.emplace_back(sections.open, Marker::kOpen);
  if (sections.late_closes) list.emplace_back(sections.close, Marker::kClose);
  return list;
}

bool is_blank(std::string_view text) { return stripped(text).empty(); }

std::string_view without_newlines(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

class SectionParser final : public OutputParser {
 public:
  SectionParser(ChatFormat format, std::vector<Tool> tools, std::string_view prompt_tail)
      : sections_(format == ChatFormat::kM1   ? kM1
                  : format == ChatFormat::kM2 ? kM2
                                              : kM3),
        tools_(std::move(tools)),
        is_inside_(starts_inside(sections_, prompt_tail)),
        leading_(leading_markers(sections_, is_inside_)),
        reasoning_(reasoning_markers(sections_)),
        content_(content_markers(sections_)),
        first_call_({sections_.first_call}) {
    const std::string_view tail = without_newlines(prompt_tail);
    const bool has_newline = tail.size() != prompt_tail.size();
    if (sections_.has_newlines && is_inside_ && !has_newline) skip_ = Skip::kOne;
    if (!is_inside_ && tail.ends_with(sections_.close)) {
      may_close_late_ = false;
      if (sections_.has_newlines) skip_ = Skip::kAll;
    }
    may_close_late_ = may_close_late_ && sections_.late_closes && !is_inside_;
    calls_ = format == ChatFormat::kM1   ? make_m1_calls(sink_)
             : format == ChatFormat::kM2 ? make_m2_calls(tools_, sink_)
                                         : make_m3_calls(tools_, sink_);
    sink_.attach(delta_);
  }

  OutputDelta push(std::string_view text) override {
    for (const char c : input_.push(text)) feed(c);
    return take_delta();
  }

  OutputDelta finish() override {
    for (const char c : input_.finish()) feed(c);
    if (state_ == State::kLeading) leave_leading(leading_.take_held());
    switch (state_) {
      case State::kLeading:
      case State::kReasoning:
        delta_.reasoning += reasoning_.take_held();
        break;
      case State::kContent:
        add_content(content_.take_held());
        delta_.content += std::exchange(space_, {});
        break;
      case State::kOpener:
        is_call_cut_ = true;
        break;
      case State::kCalls:
        is_call_cut_ = calls_->finish();
        break;
    }
    return take_delta();
  }

  bool is_reasoning() const override { return is_inside_; }
  bool is_call_cut() const override { return is_call_cut_; }

 private:
  enum class State {
    kLeading,  // before the first text: a marker here is the format's
    kReasoning,
    kContent,
    kOpener,  // after what opens a block, if a call follows
    kCalls
  };
  enum class Skip { kNothing, kOne, kAll };  // newlines after a marker

  static bool starts_inside(const Sections& sections, std::string_view tail) {
    return (sections.has_newlines ? without_newlines(tail) : tail).ends_with(sections.open);
  }

  OutputDelta take_delta() {
    has_sent_content_ = has_sent_content_ || !delta_.content.empty();
    return std::exchange(delta_, {});
  }

  void feed(char c) {
    switch (state_) {
      case State::kLeading:
        feed_leading(c);
        break;
      case State::kReasoning:
        if (!skips(c)) feed_reasoning(c);
        break;
      case State::kContent:
        if (!skips(c)) feed_content(c);
        break;
      case State::kOpener:
        feed_opener(c);
        break;
      case State::kCalls:
        calls_->feed(c);
        break;
    }
  }

  void feed_again(const std::string& text) {
    for (const char c : text) feed(c);
  }

  bool skips(char c) {
    const bool skips = c == '\n' && skip_ != Skip::kNothing;
    if (!skips || skip_ == Skip::kOne) skip_ = Skip::kNothing;
    return skips;
  }

  void enter(State state, Skip skip) {
    state_ = state;
    is_inside_ = state == State::kReasoning;
    skip_ = sections_.has_newlines ? skip : Skip::kNothing;
  }

  void feed_leading(char c) {
    std::string text;
    if (const auto* found = leading_.feed(c, text)) {
      space_.clear();
      may_close_late_ = false;
      if (found->second == Marker::kOpen) {
        enter(State::kReasoning, Skip::kOne);
      } else {
        enter(State::kContent, Skip::kAll);
      }
    } else if (sections_.has_newlines && is_blank(text)) {
      space_ += text;
    } else if (!text.empty()) {
      leave_leading(text + leading_.take_held());
    }
  }

  void leave_leading(const std::string& text) {
    state_ = is_inside_ ? State::kReasoning : State::kContent;
    feed_again(std::exchange(space_, {}) + text);
  }

  void feed_reasoning(char c) {
    const auto* found = reasoning_.feed(c, delta_.reasoning);
    if (found == nullptr) return;
    if (found->second == Marker::kClose) {
      enter(State::kContent, Skip::kAll);
    } else {
      enter_opener(found->first);
    }
  }

  void feed_content(char c) {
    std::string text;
    const auto* found = content_.feed(c, text);
    add_content(text);
    if (found == nullptr) return;
    if (found->second == Marker::kCall) {
      enter_opener(found->first);
    } else if (found->second == Marker::kOpen) {
      enter(State::kReasoning, Skip::kOne);
    } else if (may_close_late_) {
      close_late();
    } else {
      add_content(found->first);
    }
  }

  // White space waits: before calls it is left out.
  void add_content(std::string_view text) {
    for (const char c : text) {
      space_ += c;
      if (sections_.has_newlines && is_space(c)) continue;
      delta_.content += space_;
      space_.clear();
    }
  }

  // The reasoning began without a marker. What was sent as content stays that.
  void close_late() {
    may_close_late_ = false;
    if (has_sent_content_) return;
    delta_.reasoning = std::exchange(delta_.content, {}) + std::exchange(space_, {});
    if (delta_.reasoning.ends_with('\n')) delta_.reasoning.pop_back();
    enter(State::kContent, Skip::kAll);
  }

  void enter_opener(const std::string& opener) {
    state_ = State::kOpener;
    opener_ = opener;
  }

  void feed_opener(char c) {
    std::string text;
    if (first_call_.feed(c, text) != MarkerScanner::kNone) {
      enter(State::kCalls, Skip::kNothing);
      space_.clear();
      calls_->begin();
    } else if (text.size() == 1 && is_space(c)) {
      gap_ += c;
    } else if (!text.empty()) {
      leave_opener(std::exchange(gap_, {}) + text + first_call_.take_held());
    }
  }

  // No call followed: the opener was text.
  void leave_opener(const std::string& rest) {
    if (is_inside_) {
      state_ = State::kReasoning;
      delta_.reasoning += opener_;
    } else {
      state_ = State::kContent;
      add_content(opener_);
    }
    feed_again(rest);
  }

  const Sections& sections_;
  const std::vector<Tool> tools_;
  bool is_inside_;  // the reasoning
  Markers leading_, reasoning_, content_;
  MarkerScanner first_call_;
  std::unique_ptr<CallReader> calls_;
  CallSink sink_;
  Utf8Input input_;
  OutputDelta delta_;
  State state_ = State::kLeading;
  Skip skip_ = Skip::kNothing;
  bool may_close_late_ = true;
  bool has_sent_content_ = false;
  bool is_call_cut_ = false;
  std::string space_;   // white space that may be left out
  std::string opener_;  // in State::kOpener
  std::string gap_;     // white space after it
};

}  // namespace

std::unique_ptr<OutputParser> make_output_parser(ChatFormat format, std::vector<Tool> tools,
                                                 std::string_view prompt_tail) {
  return std::make_unique<SectionParser>(format, std::move(tools), prompt_tail);
}

}  // namespace minimax::chat
