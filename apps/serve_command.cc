// minimax serve: a model behind OpenAI's HTTP API.
//
// The listener opens first, so that a load of minutes can be watched; a thread loads; this one waits for a
// signal. SIGTERM and SIGINT let the answers under way end; a second SIGINT does not wait for them.
#include <sys/resource.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <thread>

#include "apps/commands.h"
#include "apps/input_file.h"
#include "apps/serve_options.h"
#include "server/api.h"

namespace minimax::apps {
namespace {

using Json = nlohmann::ordered_json;

// How far a load is, for those who ask meanwhile.
class LoadProgress : public formats::Progress {
 public:
  void start(std::string_view what, int64_t total_bytes) override {
    const std::lock_guard lock(mutex_);
    what_ = what;
    total_bytes_ = total_bytes;
    done_bytes_ = 0;
  }
  void advance(int64_t bytes) override {
    const std::lock_guard lock(mutex_);
    done_bytes_ += bytes;
  }
  Json state() const {
    const std::lock_guard lock(mutex_);
    return {{"step", what_}, {"done_bytes", done_bytes_}, {"total_bytes", total_bytes_}};
  }

 private:
  mutable std::mutex mutex_;
  std::string what_ = "starting";
  int64_t done_bytes_ = 0;
  int64_t total_bytes_ = 0;
};

// A model with its engine; nothing moves once it is made.
struct LoadedService {
  TextModel text;
  openai::ServedModel served;
  std::unique_ptr<engine::Engine> engine;

  LoadedService(const ServeFlags& flags, const engine::EngineOptions& observers)
      : text(set_up_text_model(flags.model)) {
    if (!flags.chat_template.empty()) {
      text.chat_template = tokenizer::ChatTemplate::for_checkpoint(
          read_text_file(flags.chat_template, "--chat-template"), flags.model.model);
    }
    engine::EngineOptions options = flags.engine.options(text.runtime, flags.model);
    options.vocab_limit = text.required_tokenizer().max_id() + 1;
    options.metrics = observers.metrics;
    options.trace = observers.trace;
    options.log = observers.log;
    if (text.runtime.planned) {
      std::cout << describe_plan(engine::Engine::plan(*text.runtime.model, *text.runtime.backend, options),
                                 text.runtime)
                << describe_paths(text.runtime);
      return;
    }
    engine = std::make_unique<engine::Engine>(*text.runtime.model, *text.runtime.backend, options);
    std::cerr << describe_plan(engine->plan(), text.runtime) << describe_paths(text.runtime);
    served = served_model(text, flags.names.front(), engine->plan().max_model_len);
    parse_answers(served, text.runtime.config);
  }
};

server::ApiOptions api_options(const ServeFlags& flags) {
  server::ApiOptions options;
  options.names = flags.names;
  options.api_keys = flags.api_keys;
  options.version = MINIMAX_VERSION;
  options.max_running = flags.engine.max_num_seqs;
  options.max_queue = flags.max_queue;
  options.max_stored_responses = flags.max_stored_responses;
  options.seed = flags.seed.value_or(0);
  return options;
}

class Serving {
 public:
  explicit Serving(ServeFlags flags)
      : flags_(std::move(flags)),
        metrics_(flags_.names.front()),
        observers_(flags_.engine, observed_),
        api_(api_options(flags_), &metrics_, [this] { return progress_.state(); }),
        server_(std::make_unique<http::Server>(flags_.http, api_.router(), observed_.log)) {
    observed_.metrics = &metrics_;
    flags_.model.watcher = &progress_;
  }
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;
  ~Serving() {
    // Another SIGTERM must not cut short what ends anyway: once `signals_` is gone this thread is the last
    // one.
    sigset_t terminate;
    sigemptyset(&terminate);
    sigaddset(&terminate, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &terminate, nullptr);
    server_.reset();  // no request comes after this, so that the engine may go
    if (loader_.joinable()) loader_.join();
  }

  void run() {
    std::cerr << "minimax: loading; " << url() << "/health says how far\n";
    wait_for_signal();
    loader_ = std::thread([this] { load(); });
    events_.run();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  std::string url() const {
    const bool is_any = flags_.http.host == "0.0.0.0" || flags_.http.host == "::";
    const char* scheme = flags_.http.tls_certificate.empty() ? "http" : "https";
    return fmt::format("{}://{}:{}", scheme, is_any ? "localhost" : flags_.http.host, server_->port());
  }

  void load() {
    try {
      flags_.model.locate();
      auto loaded = std::make_unique<LoadedService>(flags_, observed_);
      boost::asio::post(events_,
                        [this, loaded = std::move(loaded)]() mutable { be_ready(std::move(loaded)); });
    } catch (...) {
      boost::asio::post(events_, [this, error = std::current_exception()] {
        failure_ = error;
        signals_.cancel();
      });
    }
  }

  void be_ready(std::unique_ptr<LoadedService> loaded) {
    loaded_ = std::move(loaded);
    api_.set_ready({*loaded_->engine, loaded_->served});
    std::cerr << "minimax: ready: " << url() << "/v1\n";
  }

  void wait_for_signal() {
    signals_.async_wait([this](const boost::system::error_code& error, int) {
      if (!error) stop();
    });
  }

  void stop() {
    // A load cannot be interrupted, and nothing is answered yet.
    if (!loaded_) std::_Exit(0);
    signals_.remove(SIGINT);  // a second Ctrl-C ends the process
    api_.set_draining();
    std::cerr << "minimax: stopping; " << api_.num_open() << " answers have " << flags_.drain_seconds
              << " s to end\n";
    const int64_t num_cut =
        server_->drain(std::chrono::milliseconds(static_cast<int64_t>(flags_.drain_seconds * 1000)));
    if (num_cut > 0) std::cerr << "minimax: " << num_cut << " answers were cut off\n";
  }

  // Signals are taken until everything else is gone.
  boost::asio::io_context events_;
  boost::asio::signal_set signals_{events_, SIGINT, SIGTERM};
  ServeFlags flags_;
  LoadProgress progress_;
  observe::Metrics metrics_;
  engine::EngineOptions observed_;
  EngineObservers observers_;
  server::Api api_;
  std::unique_ptr<LoadedService> loaded_;
  std::unique_ptr<http::Server> server_;
  std::thread loader_;
  std::exception_ptr failure_;
};

// Each connection takes a descriptor; the usual limit is made for other programs.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // where that is not allowed, fewer connections fit
}

void run_serve(ServeFlags flags) {
  flags.finish();
  if (flags.model.dry_run) {
    flags.model.locate();
    const LoadedService planned(flags, {});  // prints its plan
    return;
  }
  raise_descriptor_limit();
  Serving(std::move(flags)).run();
}

}  // namespace

void add_serve_command(CLI::App& app) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model over HTTP as OpenAI's API");
  command->fallthrough();  // for --config
  flags->add_to(*command);
  command->callback([flags] { run_serve(*flags); });
}

}  // namespace minimax::apps
