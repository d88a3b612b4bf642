// minimax chat: a conversation on a terminal.
//
// A line that ends with a backslash goes on in the next one. Ctrl-C stops the answer, or clears the line;
// Ctrl-D leaves. Lines of history are kept by the line editor; the conversation's state is continued where
// the new prompt extends the old one and computed again where the template rewrites history.
#include <histedit.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <iostream>

#include "apps/commands.h"
#include "apps/text_model.h"

namespace minimax::apps {
namespace {

struct ChatOptions {
  ModelOptions model;
  SamplingOptions sampling;
  std::string system;
};

// Set by Ctrl-C; the answer in progress stops at the next token.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_interrupt(int) { interrupted = true; }

// Reads lines: with editing and history on a terminal, plainly elsewhere.
class LineReader {
 public:
  LineReader() : is_terminal_(isatty(STDIN_FILENO) != 0) {
    if (!is_terminal_) return;
    editor_ = el_init("minimax", stdin, stdout, stderr);
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, 1000);
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(editor_, EL_PROMPT, &LineReader::prompt_of);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_SIGNAL, 0);
    el_set(editor_, EL_HIST, history, history_);
  }
  ~LineReader() {
    if (history_ != nullptr) history_end(history_);
    if (editor_ != nullptr) el_end(editor_);
  }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  bool is_terminal() const { return is_terminal_; }

  // False at the end of input.
  bool read(const char* prompt, std::string& line) {
    if (!is_terminal_) return static_cast<bool>(std::getline(std::cin, line));
    prompt_ = prompt;
    int length = 0;
    interrupted = false;
    const char* text = el_gets(editor_, &length);
    if (text == nullptr || length <= 0) {
      line.clear();
      if (!interrupted) return false;
      el_reset(editor_);
      std::cout << "\n";
      return true;
    }
    line.assign(text, static_cast<size_t>(length));
    if (!line.empty() && line.back() == '\n') line.pop_back();
    HistEvent event;
    if (!line.empty()) history(history_, &event, H_ENTER, text);
    return true;
  }

  // A message of one or more lines.
  bool read_message(std::string& message) {
    message.clear();
    const char* prompt = "> ";
    for (std::string line; read(prompt, line); prompt = "| ") {
      if (line.empty() || line.back() != '\\') {
        message += line;
        return true;
      }
      line.back() = '\n';
      message += line;
    }
    return !message.empty();
  }

 private:
  static char* prompt_of(EditLine* editor) {
    LineReader* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return const_cast<char*>(self->prompt_);
  }

  bool is_terminal_;
  const char* prompt_ = "";
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
};

class Chat {
 public:
  Chat(const ChatOptions& options, const TextModel& text)
      : options_(options),
        text_(text),
        session_(*text.runtime.model, *text.runtime.backend, text.runtime.longest_session(options.model)) {
    if (!options.system.empty()) messages_.push_back({{"role", "system"}, {"content", options.system}});
  }

  void answer(const std::string& message) {
    messages_.push_back({{"role", "user"}, {"content", message}});
    const std::vector<int32_t> prompt = text_.chat_prompt(messages_, nullptr);
    const size_t kept = reuse(prompt);
    engine::GenerationRequest request =
        text_.request({prompt.begin() + static_cast<std::ptrdiff_t>(kept), prompt.end()}, options_.sampling,
                      kDefaultMaxTokens);

    tokenizer::Detokenizer detokenizer(*text_.tokenizer);
    std::string reply;
    interrupted = false;
    const engine::GenerationResult result =
        engine::generate(session_, *text_.runtime.model, *text_.runtime.backend, request,
                         [&](const engine::SampledToken& token) {
                           const std::string piece = detokenizer.push(token.id);
                           reply += piece;
                           std::cout << piece << std::flush;
                           return !interrupted;
                         });
    reply += detokenizer.finish();
    std::cout << (interrupted ? " [stopped]" : "") << std::endl;
    messages_.push_back({{"role", "assistant"}, {"content", reply}});
    remember(prompt, result.token_ids);
  }

 private:
  // Continues the session where `prompt` extends what it holds, else starts it again.
  size_t reuse(const std::vector<int32_t>& prompt) {
    const bool extends =
        held_.size() < prompt.size() && std::equal(held_.begin(), held_.end(), prompt.begin());
    if (extends) return held_.size();
    session_.reset();
    held_.clear();
    return 0;
  }

  // The last generated token has been drawn but not appended, unless a stop token came after it.
  void remember(const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer) {
    held_ = prompt;
    held_.insert(held_.end(), answer.begin(), answer.end());
    held_.resize(static_cast<size_t>(session_.length()));
  }

  const ChatOptions& options_;
  const TextModel& text_;
  engine::Session session_;
  nlohmann::ordered_json messages_ = nlohmann::ordered_json::array();
  std::vector<int32_t> held_;  // tokens in the session
};

void run_chat(const ChatOptions& options) {
  const TextModel text = set_up_text_model(options.model);
  text.required_tokenizer();
  if (text.runtime.planned) {
    std::cout << describe_plan(text.runtime, text.runtime.longest_session(options.model));
    return;
  }
  Chat chat(options, text);
  LineReader reader;
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  if (reader.is_terminal())
    std::cout << "A line ending in \\ continues; Ctrl-C stops an answer, Ctrl-D leaves.\n";
  for (std::string message; reader.read_message(message);) {
    if (message.empty()) continue;
    try {
      chat.answer(message);
    } catch (const Error& error) {
      std::cerr << "minimax: error: " << error.what() << "\n";
    }
  }
}

}  // namespace

void add_chat_command(CLI::App& app) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* command = app.add_subcommand("chat", "Talk with the model");
  options->model.add_to(*command);
  options->sampling.add_to(*command);
  command->add_option("--system", options->system, "A system message");
  command->callback([options] { run_chat(*options); });
}

}  // namespace minimax::apps
