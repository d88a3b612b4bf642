// What reads a family's call blocks: everything from the first call to the end of the answer.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "chat/output_parser.h"
#include "chat/schema.h"

namespace minimax::chat {

// The calls of the delta that is being made.
class CallSink {
 public:
  // REQUIRES: `delta` outlives its use here.
  void attach(OutputDelta& delta) { delta_ = &delta; }

  void begin(std::string name);
  // The text to append the current call's arguments to.
  std::string& arguments() { return current().arguments; }
  void end();

 private:
  CallDelta& current();

  OutputDelta* delta_ = nullptr;
  int32_t index_ = -1;
};

class CallReader {
 public:
  virtual ~CallReader() = default;
  // The opener of the first call has been read.
  virtual void begin() = 0;
  virtual void feed(char c) = 0;
  // RETURNS: whether the end of the text cut a call.
  virtual bool finish() = 0;
};

// REQUIRES: `tools` and `sink` outlive the reader.
std::unique_ptr<CallReader> make_m1_calls(CallSink& sink);
std::unique_ptr<CallReader> make_m2_calls(const std::vector<Tool>& tools, CallSink& sink);
std::unique_ptr<CallReader> make_m3_calls(const std::vector<Tool>& tools, CallSink& sink);

inline constexpr std::string_view kM1Open = "<tool_calls>";
inline constexpr std::string_view kM1FirstCall = "{";
inline constexpr std::string_view kM2Open = "<minimax:tool_call>";
inline constexpr std::string_view kM2FirstCall = "<invoke name=";
inline constexpr std::string_view kM3Namespace = "]<]minimax[>[";
inline constexpr std::string_view kM3Open = "]<]minimax[>[<tool_call>";
inline constexpr std::string_view kM3FirstCall = "]<]minimax[>[<invoke name=";

// Tags longer than this are text.
inline constexpr size_t kLongestTag = 512;

// The value of a tag's attribute: `"a">`, `'a'>` or `a>` without its `>`.
std::string attribute_value(std::string_view text);

// The schema of a tool's arguments; of any value when there is no such tool.
Schema arguments_schema(const std::vector<Tool>& tools, std::string_view name);

}  // namespace minimax::chat
