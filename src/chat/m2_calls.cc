// M2: <invoke name="f"> with a <parameter name="p">value</parameter> for each argument, values unescaped.
//
// Values may hold closing tags, so a `</parameter>` ends one only where the format goes on after it. What the
// format does not provide for is left out, and reading goes on at the next tag: nothing that a model writes
// hides the calls after it.
#include <unordered_set>

#include "chat/argument_text.h"
#include "chat/call_reader.h"
#include "chat/marker_scanner.h"

namespace minimax::chat {
namespace {

constexpr std::string_view kEndValue = "</parameter>";

// What can follow in a call, by place in the scanner's list.
enum CallMarker { kParameter, kEndCall, kNextCall, kEndBlock };
std::vector<std::string_view> call_markers() {
  return {"<parameter name=", "</invoke>", kM2FirstCall, "</minimax:tool_call>"};
}

class M2Calls final : public CallReader {
 public:
  M2Calls(const std::vector<Tool>& tools, CallSink& sink) : tools_(tools), sink_(sink) {}

  void begin() override { begin_tag(State::kCallTag); }

  void feed(char c) override {
    std::string text;
    switch (state_) {
      case State::kOutside:
        if (outside_.feed(c, text) != MarkerScanner::kNone) state_ = State::kBlock;
        break;
      case State::kBlock:
        if (const int marker = block_.feed(c, text); marker != MarkerScanner::kNone) {
          if (marker == 0) begin_tag(State::kCallTag);
          if (marker == 1) state_ = State::kOutside;
        }
        break;
      case State::kCallTag:
      case State::kParameterTag:
        feed_tag(c);
        break;
      case State::kCall:
        if (const int marker = call_.feed(c, text); marker != MarkerScanner::kNone) on_call_marker(marker);
        break;
      case State::kValue:
        if (value_.feed(c, text) != MarkerScanner::kNone) state_ = State::kAfterValue;
        add_value(text);
        break;
      case State::kAfterValue:
        feed_after_value(c);
        break;
    }
  }

  bool finish() override { return state_ != State::kOutside && state_ != State::kBlock; }

 private:
  enum class State {
    kOutside,       // of a block
    kBlock,         // between its calls
    kCallTag,       // after `<invoke name=`
    kCall,          // between parameters
    kParameterTag,  // after `<parameter name=`
    kValue,
    kAfterValue  // after a `</parameter>` that may end the value
  };

  void begin_tag(State state) {
    state_ = state;
    tag_.clear();
  }

  void feed_tag(char c) {
    const bool is_call = state_ == State::kCallTag;
    if (c == '<' || c == '\n' || tag_.size() > kLongestTag) {
      state_ = is_call ? State::kBlock : State::kCall;
      feed(c);
    } else if (c != '>') {
      tag_ += c;
    } else if (is_call) {
      begin_call(attribute_value(tag_));
    } else {
      begin_value(attribute_value(tag_));
    }
  }

  void begin_call(const std::string& name) {
    state_ = name.empty() ? State::kBlock : State::kCall;
    if (name.empty()) return;
    schema_ = arguments_schema(tools_, name);
    written_.clear();
    sink_.begin(name);
    sink_.arguments() += '{';
  }

  void end_call(State next) {
    sink_.arguments() += '}';
    sink_.end();
    state_ = next;
  }

  void on_call_marker(int marker) {
    if (marker == kParameter) begin_tag(State::kParameterTag);
    if (marker == kEndCall) end_call(State::kBlock);
    if (marker == kEndBlock) end_call(State::kOutside);
    if (marker == kNextCall) {
      end_call(State::kBlock);
      begin_tag(State::kCallTag);
    }
  }

  void begin_value(const std::string& name) {
    state_ = State::kValue;
    types_ = schema_.property(name).types();
    raw_.clear();
    string_ = TextValue(true, true);
    // A name that comes again cannot take back what was sent.
    is_repeated_ = !written_.insert(name).second;
    if (is_repeated_) return;
    std::string& arguments = sink_.arguments();
    if (written_.size() > 1) arguments += ", ";
    arguments += json_string(name) + ": ";
  }

  bool is_streamed() const { return types_.empty() || types_.is_text(); }

  void add_value(std::string_view text) {
    if (text.empty() || is_repeated_) return;
    if (!is_streamed()) {
      raw_ += text;
      return;
    }
    std::string& arguments = sink_.arguments();
    for (const char c : text) string_.push(c, arguments);
  }

  void end_value() {
    if (is_repeated_) return;
    if (is_streamed()) {
      string_.finish(sink_.arguments());
    } else {
      sink_.arguments() += typed_value(stripped(raw_), types_, NullRule::kAlways);
    }
  }

  void feed_after_value(char c) {
    std::string text;
    const int marker = call_.feed(c, text);
    if (marker != MarkerScanner::kNone) {
      gap_.clear();
      end_value();
      state_ = State::kCall;
      on_call_marker(marker);
    } else if (text.size() == 1 && is_space(c)) {
      gap_ += c;
    } else if (!text.empty()) {
      // The tag was the value's own.
      const std::string rest = std::exchange(gap_, {}) + text + call_.take_held();
      state_ = State::kValue;
      add_value(kEndValue);
      for (const char again : rest) feed(again);
    }
  }

  const std::vector<Tool>& tools_;
  CallSink& sink_;
  State state_ = State::kOutside;
  MarkerScanner outside_{{kM2Open}};
  MarkerScanner block_{{kM2FirstCall, "</minimax:tool_call>"}};
  MarkerScanner call_{call_markers()};
  MarkerScanner value_{{kEndValue}};
  std::string tag_;
  Schema schema_;                            // of the call's arguments
  std::unordered_set<std::string> written_;  // their names
  bool is_repeated_ = false;                 // the parameter's name came before
  TypeSet types_;                            // of the parameter
  TextValue string_;                         // its value, if that is streamed
  std::string raw_;                          // else
  std::string gap_;                          // white space after a `</parameter>`
};

}  // namespace

std::unique_ptr<CallReader> make_m2_calls(const std::vector<Tool>& tools, CallSink& sink) {
  return std::make_unique<M2Calls>(tools, sink);
}

}  // namespace minimax::chat
