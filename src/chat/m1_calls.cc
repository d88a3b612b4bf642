// M1: a JSON object with a name and arguments on each line of the block.
#include "chat/argument_text.h"
#include "chat/call_reader.h"

namespace minimax::chat {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kClose = "</tool_calls>";

class M1Calls final : public CallReader {
 public:
  explicit M1Calls(CallSink& sink) : sink_(sink) {}

  void begin() override { line_ = kM1FirstCall; }

  void feed(char c) override {
    if (is_closed_) return;
    if (c == '\n') {
      end_line();
    } else if (!line_.empty() || !is_space(c)) {
      line_ += c;
      is_closed_ = line_ == kClose;
    }
  }

  bool finish() override {
    if (is_closed_) return false;
    const bool is_begun = line_.starts_with('{');
    return !end_line() && is_begun;
  }

 private:
  // RETURNS: whether the line was a call. One that is none is left out, and the next still counts.
  bool end_line() {
    const std::string line = std::exchange(line_, {});
    std::string_view text = stripped(line);
    if (add_call(text)) return true;
    if (!text.ends_with(kClose)) return false;
    text.remove_suffix(kClose.size());
    is_closed_ = add_call(stripped(text));
    return is_closed_;
  }

  bool add_call(std::string_view text) {
    if (!is_json(text, '{')) return false;
    const Json call = Json::parse(text);
    const auto name = call.find("name");
    if (name == call.end() || !name->is_string() || name->get_ref<const std::string&>().empty()) return false;
    const auto found = call.find("arguments");
    Json arguments = found == call.end() || found->is_null() ? Json::object() : *found;
    // Some answers hold the arguments as OpenAI's API does: a string of JSON.
    if (arguments.is_string()) {
      const auto inner = arguments.get<std::string>();
      if (is_json(inner, '{')) arguments = Json::parse(inner);
    }
    if (!arguments.is_object()) return false;
    sink_.begin(name->get<std::string>());
    sink_.arguments() += arguments.dump();
    sink_.end();
    return true;
  }

  CallSink& sink_;
  std::string line_;
  bool is_closed_ = false;
};

}  // namespace

std::unique_ptr<CallReader> make_m1_calls(CallSink& sink) { return std::make_unique<M1Calls>(sink); }

}  // namespace minimax::chat
