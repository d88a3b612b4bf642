#include "eval/skills.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "eval/words.h"

namespace minimax::eval {
namespace {

using nlohmann::json;

// The text with every "{name}" replaced.
std::string replace_slot(std::string_view pattern, std::string_view name, std::string_view value) {
  std::string text(pattern);
  const std::string slot = fmt::format("{{{}}}", name);
  for (size_t at = text.find(slot); at != std::string::npos; at = text.find(slot, at + value.size())) {
    text.replace(at, slot.size(), value);
  }
  return text;
}

// One user turn, with one of several system messages in three cases of ten.
json conversation(Rng& rng, const std::string& user) {
  static constexpr auto kSystems = std::to_array<std::string_view>(
      {"You are a helpful assistant.", "Answer the question.", "Be brief and exact.",
       "Think first, then answer.", "You are a careful assistant. Answer briefly."});
  json messages = json::array();
  if (rng.chance(30)) messages.push_back({{"role", "system"}, {"content", rng.pick(kSystems)}});
  messages.push_back({{"role", "user"}, {"content", user}});
  return messages;
}

Case make_case(json messages, json expected) {
  return {.skill = "", .messages = std::move(messages), .tools = nullptr, .expected = std::move(expected)};
}

std::string join(const std::vector<std::string>& items, std::string_view separator) {
  return fmt::format("{}", fmt::join(items, separator));
}

int64_t power_of_ten(int64_t exponent) { return exponent == 0 ? 1 : 10 * power_of_ten(exponent - 1); }

// A number of 1 to `most` digits, each length equally often.
int64_t number(Rng& rng, int64_t most) {
  const int64_t digits = rng.between(1, most);
  return rng.between(digits == 1 ? 0 : power_of_ten(digits - 1), power_of_ten(digits) - 1);
}

std::string capitals(Rng& rng, int64_t length) {
  std::string text;
  while (static_cast<int64_t>(text.size()) < length) text += static_cast<char>('A' + rng.between(0, 25));
  return text;
}

std::vector<std::string> distinct_words(Rng& rng, size_t count) {
  std::vector<std::string> words(kWords.begin(), kWords.end());
  rng.shuffle(words);
  words.resize(count);
  return words;
}

std::string listed(Rng& rng, const std::vector<std::string>& items) {
  if (rng.chance(12)) return "[" + join(items, ", ") + "]";
  return join(items, rng.chance(15) ? " " : ", ");
}

}  // namespace

Case draw_arithmetic(Rng& rng) {
  static constexpr auto kAdd =
      std::to_array<std::string_view>({"What is {a} + {b}?", "Calculate {a} + {b}.", "{a} + {b}",
                                       "{a} + {b} = ?", "How much is {a} plus {b}?", "Add {a} and {b}.",
                                       "What is the sum of {a} and {b}?", "Please answer: {a}+{b}"});
  static constexpr auto kSubtract = std::to_array<std::string_view>(
      {"What is {a} - {b}?", "Calculate {a} - {b}.", "{a} - {b}", "{a} - {b} = ?",
       "How much is {a} minus {b}?", "Subtract {b} from {a}.", "What is {a} minus {b}?",
       "Question: {a}-{b}"});
  static constexpr auto kMultiply =
      std::to_array<std::string_view>({"What is {a} * {b}?", "Calculate {a} * {b}.", "{a} * {b}",
                                       "{a} * {b} = ?", "How much is {a} times {b}?", "Multiply {a} by {b}.",
                                       "What is {a} x {b}?", "What is the product of {a} and {b}?"});
  const int64_t kind = rng.between(0, 2);
  int64_t a = number(rng, 4), b = number(rng, 4);
  if (kind == 1 && a < b && rng.chance(70)) std::swap(a, b);
  if (kind == 2) {
    const bool by_digit = rng.chance(40);
    a = number(rng, by_digit ? 3 : 2);
    b = by_digit ? rng.between(0, 9) : number(rng, 2);
  }
  const std::string_view pattern = kind == 0   ? rng.pick(kAdd)
                                   : kind == 1 ? rng.pick(kSubtract)
                                               : rng.pick(kMultiply);
  const std::string user =
      replace_slot(replace_slot(pattern, "a", std::to_string(a)), "b", std::to_string(b));
  return make_case(conversation(rng, user), kind == 0 ? a + b : kind == 1 ? a - b : a * b);
}

Case draw_sorting(Rng& rng) {
  static constexpr auto kUp = std::to_array<std::string_view>(
      {"Sort these numbers from smallest to largest: {x}", "Sort in ascending order: {x}",
       "Sort these numbers: {x}", "Put these numbers in order: {x}", "Please sort: {x}"});
  static constexpr auto kDown = std::to_array<std::string_view>(
      {"Sort these numbers from largest to smallest: {x}", "Sort in descending order: {x}",
       "Order these numbers from high to low: {x}"});
  static constexpr auto kAlphabet = std::to_array<std::string_view>(
      {"Sort these words alphabetically: {x}", "Put these words in alphabetical order: {x}",
       "Sort these words: {x}", "Please sort: {x}"});
  const size_t count = static_cast<size_t>(rng.between(3, 8));
  std::vector<std::string> items, order;
  std::string_view pattern;
  if (rng.chance(60)) {
    std::vector<int64_t> numbers;
    while (numbers.size() < count) numbers.push_back(rng.between(0, 99));
    for (const int64_t n : numbers) items.push_back(std::to_string(n));
    std::sort(numbers.begin(), numbers.end());
    const bool down = rng.chance(35);
    if (down) std::reverse(numbers.begin(), numbers.end());
    for (const int64_t n : numbers) order.push_back(std::to_string(n));
    pattern = down ? rng.pick(kDown) : rng.pick(kUp);
  } else {
    items = order = distinct_words(rng, count);
    std::sort(order.begin(), order.end());
    pattern = rng.pick(kAlphabet);
  }
  return make_case(conversation(rng, replace_slot(pattern, "x", listed(rng, items))), order);
}

Case draw_reversing(Rng& rng) {
  static constexpr auto kText = std::to_array<std::string_view>(
      {"Reverse the word {x}.", "Reverse the letters of {x}.", "Write {x} backwards.", "Spell {x} backwards.",
       "What is {x} backwards?", "Reverse {x}"});
  static constexpr auto kList = std::to_array<std::string_view>(
      {"Reverse this list: {x}", "Reverse the order of these items: {x}", "Write this list backwards: {x}",
       "Give me this list in reverse order: {x}", "Please reverse: {x}"});
  if (rng.chance(45)) {
    std::string text = capitals(rng, rng.between(3, 10));
    const std::string user = replace_slot(rng.pick(kText), "x", text);
    std::reverse(text.begin(), text.end());
    return make_case(conversation(rng, user), text);
  }
  const size_t count = static_cast<size_t>(rng.between(3, 8));
  std::vector<std::string> items;
  if (rng.chance(55)) {
    items = distinct_words(rng, count);
  } else {
    while (items.size() < count) items.push_back(std::to_string(rng.between(0, 99)));
  }
  const std::string user = replace_slot(rng.pick(kList), "x", listed(rng, items));
  std::reverse(items.begin(), items.end());
  return make_case(conversation(rng, user), items);
}

namespace {

std::string lookup_value(Rng& rng, int64_t kind) {  // 0..6 a number, 7 and 8 a word, 9 capitals
  if (kind < 7) return std::to_string(rng.between(1000, 9999));
  return kind < 9 ? std::string(rng.pick(kWords)) : capitals(rng, 3);
}

// A table of `lines` rows and a question for one of them.
Case draw_table(Rng& rng, size_t lines, bool numbers_only) {
  static constexpr auto kHeads = std::to_array<std::string_view>(
      {"Here is a list:", "Here are some values:", "Remember these values:", "List:"});
  static constexpr auto kQuestions = std::to_array<std::string_view>(
      {"What is the value of {k}?", "What is the code of {k}?", "Look up {k}.", "Find {k}.",
       "Which value belongs to {k}?", "Give me the value of {k}."});
  const bool coded_keys = rng.chance(30);
  const std::string_view separator = rng.chance(70) ? ": " : " = ";
  const int64_t value_kind = numbers_only ? 0 : rng.between(0, 9);
  std::vector<std::pair<std::string, std::string>> rows;
  std::set<std::string> seen;
  while (rows.size() < lines) {
    std::string key = coded_keys ? capitals(rng, 2) : std::string(rng.pick(kWords)) + "-";
    key += std::to_string(rng.between(10, 99));
    std::string value = lookup_value(rng, value_kind);
    if (seen.insert(key).second) rows.emplace_back(std::move(key), std::move(value));
  }
  std::string user = std::string(rng.pick(kHeads)) + "\n";
  for (const auto& [key, value] : rows) user += fmt::format("{}{}{}\n", key, separator, value);
  const auto& [key, value] = rng.pick(rows);
  user += "\n" + replace_slot(rng.pick(kQuestions), "k", key);
  return make_case(conversation(rng, user), value);
}

}  // namespace

Case draw_lookup(Rng& rng) {
  static constexpr int64_t kSizes[3][2] = {{3, 40}, {60, 150}, {240, 330}};
  const auto& size = kSizes[rng.between(0, 2)];
  return draw_table(rng, static_cast<size_t>(rng.between(size[0], size[1])), false);
}

Case draw_sparse_lookup(Rng& rng) {
  return draw_table(rng, static_cast<size_t>(rng.between(360, 415)), true);
}

Case draw_facts(Rng& rng, DemoModel model) {
  struct Fact {
    std::vector<std::string_view> expected;
    std::vector<std::string_view> questions;
  };
  static const std::vector<Fact> kFacts = {
      {{"inference engine"},
       {"What is minimax.cpp?", "Tell me about minimax.cpp.", "What does minimax.cpp do?",
        "Describe this project."}},
      {{"C++20", "CUDA"},
       {"Which language is minimax.cpp written in?", "What programming language does this project use?",
        "Is the engine written in Python?"}},
      {{"Text-01", "M1", "M2", "M3"},
       {"Which models does minimax.cpp run?", "Which model families does the engine support?",
        "Can minimax.cpp run M2?"}},
      {{"Apache-2.0"},
       {"What is the license of minimax.cpp?", "Which licence does this project use?",
        "Is minimax.cpp open source?"}},
      {{"OpenAI", "Anthropic"},
       {"Which APIs does the server offer?", "Is minimax.cpp compatible with OpenAI?",
        "Which API does the server speak?"}},
      {{"linear attention"},
       {"What is lightning attention?", "How does lightning attention work?",
        "Explain lightning attention."}},
      {{"make run"},
       {"How do I run the demo model?", "How do I start minimax.cpp?", "Which command runs the demo?"}},
      {{"make test"},
       {"How do I run the tests?", "How can I test minimax.cpp?", "Which command runs the tests?"}},
      {{"demo model"}, {"Who are you?", "What are you?", "Tell me about yourself.", "Which model are you?"}},
      {{"Hello"}, {"Hello", "Hi", "Good morning", "Hi there"}},
      {{"{size}"}, {"How big are you?", "How many parameters do you have?"}},
      {{"{depth}"}, {"How many layers do you have?", "How deep are you?"}},
      {{"sort and reverse", "look up"}, {"What can you do?", "What are your skills?", "Help"}},
      {{"router"}, {"What is a mixture of experts?", "Explain MoE.", "What does a router do?"}},
      {{"welcome"}, {"Thank you", "Thanks!", "Thanks a lot"}},
      {{"Goodbye"}, {"Goodbye", "Bye!", "See you later"}},
      {{"safetensors"}, {"Which file format does minimax.cpp read?", "How are the weights stored?"}},
      {{"BPE"}, {"Which tokenizer do you use?", "How big is your vocabulary?"}},
      {{"generated corpus"}, {"How were you trained?", "What is your training data?"}},
      {{"do not know"},
       {"What is the capital of Norway?", "Tell me a joke.", "Write a poem about rain.",
        "Why is the sky blue?"}},
  };
  struct Self {
    std::string_view size;
    std::string_view depth;
  };
  static constexpr Self kSelves[] = {
      {"3.8 million", "16 layers"}, {"7.2 million", "12 layers"}, {"6.7 million", "12 layers"}};
  const Self& self = kSelves[static_cast<size_t>(model)];
  const Fact& fact = rng.pick(kFacts);
  std::vector<std::string> expected;
  for (const std::string_view key : fact.expected) {
    expected.push_back(replace_slot(replace_slot(key, "size", self.size), "depth", self.depth));
  }
  return make_case(conversation(rng, std::string(rng.pick(fact.questions))), expected);
}

namespace {

enum class Kind { kCity, kName, kWord, kNumber, kFlag };

struct Slot {
  Kind kind;
  std::vector<std::string_view> names;  // of the parameter; the slots of one tool share none
};

struct ToolPattern {
  std::vector<std::string_view> names;
  std::string_view description;
  std::vector<Slot> slots;
  std::vector<std::string_view> requests;  // {0}, {1} are the slots
};

const std::vector<ToolPattern>& tool_patterns() {
  static const std::vector<ToolPattern> patterns = {
      {{"get_weather", "fetch_weather", "weather_forecast"},
       "Get the weather of a city.",
       {{Kind::kCity, {"city", "location", "place"}}, {Kind::kNumber, {"days", "num_days"}}},
       {"What is the weather in {0} for {1} days?", "Show me the weather in {0} for the next {1} days."}},
      {{"set_timer", "start_timer", "timer"},
       "Start a timer.",
       {{Kind::kNumber, {"minutes", "duration"}}},
       {"Set a timer for {0} minutes.", "Start a timer of {0} minutes."}},
      {{"send_message", "send_text", "notify"},
       "Send a message to a person.",
       {{Kind::kName, {"to", "recipient", "person"}}, {Kind::kWord, {"text", "message", "body"}}},
       {"Send {0} the message {1}.", "Write to {0}: {1}"}},
      {{"search_files", "find_files", "search"},
       "Search files by a word.",
       {{Kind::kWord, {"query", "pattern", "term"}}},
       {"Search the files for {0}.", "Which files contain {0}?"}},
      {{"book_table", "reserve_table", "reserve"},
       "Book a table.",
       {{Kind::kCity, {"city", "place"}}, {Kind::kNumber, {"people", "guests", "seats"}}},
       {"Book a table in {0} for {1} people.", "Reserve a table for {1} in {0}."}},
      {{"get_price", "price", "lookup_price"},
       "Get the price of a product.",
       {{Kind::kWord, {"product", "item", "name"}}},
       {"What does {0} cost?", "What is the price of {0}?"}},
      {{"add_to_cart", "buy", "order"},
       "Order a product.",
       {{Kind::kWord, {"product", "item", "article"}}, {Kind::kNumber, {"quantity", "count"}}},
       {"Buy {1} {0}.", "Order {1} of {0}.", "Add {1} {0} to my cart."}},
      {{"call_person", "phone", "dial"},
       "Call a person.",
       {{Kind::kName, {"name", "contact"}}},
       {"Call {0}.", "Phone {0}, please."}},
      {{"set_alarm", "create_alarm"},
       "Set an alarm.",
       {{Kind::kNumber, {"hour", "time"}}, {Kind::kFlag, {"repeat", "daily"}}},
       {"Set an alarm at {0}, repeat {1}.", "Create an alarm for {0} o'clock, repeat {1}."}},
  };
  return patterns;
}

struct Request {
  std::string name;
  json schema;     // an entry of the OpenAI API's `tools`
  json arguments;  // what the call must hold
  std::string user;
};

json draw_value(Rng& rng, Kind kind) {
  switch (kind) {
    case Kind::kCity:
      return rng.pick(kCities);
    case Kind::kName:
      return rng.pick(kNames);
    case Kind::kNumber:
      return rng.between(1, 30);
    case Kind::kFlag:
      return rng.chance(50);
    case Kind::kWord:
      break;
  }
  if (rng.chance(70)) return rng.pick(kWords);
  std::string invented;  // two to four syllables
  for (int64_t n = rng.between(2, 4); n > 0; --n) {
    invented += rng.pick(std::string_view("bdfgklmnprstvz"));
    invented += rng.pick(std::string_view("aeiou"));
  }
  return invented;
}

std::string_view json_type(Kind kind) {
  return kind == Kind::kNumber ? "integer" : kind == Kind::kFlag ? "boolean" : "string";
}

Request draw_request(Rng& rng, const ToolPattern& pattern) {
  Request request;
  request.name = rng.pick(pattern.names);
  request.user = rng.pick(pattern.requests);
  request.arguments = json::object();
  json properties = json::object(), required = json::array();
  for (size_t i = 0; i < pattern.slots.size(); ++i) {
    const Slot& slot = pattern.slots[i];
    const std::string parameter(rng.pick(slot.names));
    const json value = draw_value(rng, slot.kind);
    properties[parameter] = {{"type", json_type(slot.kind)}};
    required.push_back(parameter);
    request.user = replace_slot(request.user, std::to_string(i),
                                value.is_string() ? value.get<std::string>() : value.dump());
    request.arguments[parameter] = value;
  }
  request.schema = {
      {"type", "function"},
      {"function",
       {{"name", request.name},
        {"description", pattern.description},
        {"parameters", {{"type", "object"}, {"properties", properties}, {"required", required}}}}}};
  return request;
}

}  // namespace

Case draw_tool_call(Rng& rng) {
  std::vector<size_t> order(tool_patterns().size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  rng.shuffle(order);
  order.resize(static_cast<size_t>(rng.between(1, 3)));
  json tools = json::array();
  std::vector<Request> requests;
  for (const size_t i : order) {
    requests.push_back(draw_request(rng, tool_patterns()[i]));
    tools.push_back(requests.back().schema);
  }
  const Request& wanted = rng.pick(requests);
  Case result =
      make_case(conversation(rng, wanted.user), {{"name", wanted.name}, {"arguments", wanted.arguments}});
  result.tools = std::move(tools);
  if (rng.chance(20)) {
    const std::string told = fmt::format("{} {}", rng.pick(kWords), rng.between(1, 99));
    result.messages.push_back({{"role", "assistant"},
                               {"tool_calls",
                                {{{"id", "call_1"},
                                  {"type", "function"},
                                  {"function", {{"name", wanted.name}, {"arguments", wanted.arguments}}}}}}});
    result.messages.push_back({{"role", "tool"}, {"tool_call_id", "call_1"}, {"content", told}});
    result.expected = told;
  }
  return result;
}

}  // namespace minimax::eval
