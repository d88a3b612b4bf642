#include "engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "engine/engine_plan.h"
#include "engine/step_thread.h"

namespace minimax::engine {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// As vLLM's metrics call it.
std::string_view metric_name(FinishReason reason) {
  return reason == FinishReason::kCancelled || reason == FinishReason::kTimeout ? "abort" : name(reason);
}

// A request as submitted.
struct Submission {
  EngineRequestId id = 0;
  Request request;
  Callbacks callbacks;
  Clock::time_point arrival;
  std::vector<std::shared_ptr<ConstrainedSample>> constrained;  // by sample, none when anything may be drawn
};

// One sample of a request.
struct Sample {
  std::shared_ptr<const Submission> submission;
  int32_t index = 0;
  SamplingParams sampling;
  std::shared_ptr<ConstrainedSample> constrained;  // null: any token may be drawn

  // Used by the planning thread.
  bool is_admitted = false;
  Clock::time_point admission, first_token, last_token;
  int64_t num_tokens = 0;
  int64_t num_preemptions = 0;
  int64_t cached_tokens = 0;
  std::vector<SampledToken> prompt_logprobs;

  // Used by the thread of the callbacks.
  bool is_stopped = false;
  int64_t num_reported = 0;
};

// What the thread of the callbacks is told.
struct Event {
  enum class Kind : uint8_t { kPrompt, kToken, kFinish };
  Kind kind = Kind::kToken;
  std::shared_ptr<Sample> sample;
  RequestId id = 0;
  SampledToken token;
  FinishedSample finish;
};

struct Command {
  enum class Kind : uint8_t { kSubmit, kCancel, kStop, kResetCache };
  Kind kind = Kind::kSubmit;
  std::shared_ptr<const Submission> submission;
  EngineRequestId request = 0;  // of kCancel
  RequestId sample = 0;         // of kStop
};

// Hands things from one thread to another, all that is there at once: one lock a step.
template <typename T>
class Inbox {
 public:
  void put(T item) {
    {
      const std::lock_guard lock(mutex_);
      items_.push_back(std::move(item));
    }
    changed_.notify_one();
  }
  void put_all(std::vector<T>& items) {
    if (items.empty()) return;
    {
      const std::lock_guard lock(mutex_);
      std::move(items.begin(), items.end(), std::back_inserter(items_));
    }
    items.clear();
    changed_.notify_one();
  }
  void close() {
    {
      const std::lock_guard lock(mutex_);
      is_closed_ = true;
    }
    changed_.notify_one();
  }
  // Swaps what is there into `items`, waiting for it until `until`. RETURNS: false when closed and empty.
  bool take(std::vector<T>& items, Clock::time_point until) {
    items.clear();
    std::unique_lock lock(mutex_);
    const auto is_ready = [this] { return is_closed_ || !items_.empty(); };
    if (until == Clock::time_point::max()) {
      changed_.wait(lock, is_ready);
    } else {
      changed_.wait_until(lock, until, is_ready);
    }
    std::swap(items, items_);
    return !items.empty() || !is_closed_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> items_;
  bool is_closed_ = false;
};

// Made where the request is submitted, which hears of errors.
void constrain(Submission& submission) {
  const Request& request = submission.request;
  for (int32_t i = 0; request.constraint && i < request.n; ++i) {
    auto sample = std::make_shared<ConstrainedSample>();
    sample->constraint = request.constraint();
    sample->stop_tokens = request.stop_token_ids;
    submission.constrained.push_back(std::move(sample));
  }
}

// Why no token may follow in the sample of a row; empty when one may.
std::string constraint_error(const StepBuffers& step, size_t row) {
  const auto job =
      std::find_if(step.mask_jobs.begin(), step.mask_jobs.end(),
                   [row](const MaskJob& candidate) { return candidate.row == static_cast<int64_t>(row); });
  return job == step.mask_jobs.end() ? "" : job->error;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(const models::Model& model, ops::Backend& backend, const EngineOptions& options)
      : options_(options),
        vocab_size_(model.vocab_size()),
        setup_(set_up(model, backend, options)),
        runner_(model, backend, setup_.runner),
        plan_(describe(setup_, runner_.memory())),
        cache_(setup_.cache),
        scheduler_(setup_.scheduler, cache_),
        steps_(runner_) {
    for (auto& buffers : buffers_) {
      buffers = runner_.make_buffers();
      runner_.record_decodes(*buffers);
    }
    report_caches();
    callback_thread_ = std::thread([this] { run_callbacks(); });
    planning_thread_ = std::thread([this] { run_planning(); });
  }
  ~Impl() {
    commands_.close();
    planning_thread_.join();
    events_.close();
    callback_thread_.join();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  const EnginePlan& plan() const { return plan_; }
  void check(const Request& request) const;

  EngineRequestId submit(Request request, Callbacks callbacks) {
    check(request);
    auto submission = std::make_shared<Submission>();
    submission->request = std::move(request);
    submission->callbacks = std::move(callbacks);
    submission->arrival = Clock::now();
    constrain(*submission);
    {
      const std::lock_guard lock(mutex_);
      if (!failure_.empty()) fail("the engine has stopped: {}", failure_);
      submission->id = next_id_++;
      num_open_ += submission->request.n;
    }
    const EngineRequestId id = submission->id;
    commands_.put({Command::Kind::kSubmit, std::move(submission), 0, 0});
    return id;
  }
  void reset_prefix_cache() { commands_.put({Command::Kind::kResetCache, nullptr, 0, 0}); }
  void cancel(EngineRequestId id) { commands_.put({Command::Kind::kCancel, nullptr, id, 0}); }
  void drain() {
    std::unique_lock lock(mutex_);
    drained_.wait(lock, [this] { return num_open_ == 0; });
  }
  EngineStats stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  void run_planning();
  void plan_until_closed();
  bool take_commands();
  void apply(const Command& command);
  void admit(const std::shared_ptr<const Submission>& submission);
  void expire();
  bool begin_step();
  void note(const StepPlan& plan);
  void finish_step();
  void report(const StepBuffers& step, std::vector<StepToken>& tokens);
  void report_token(RequestId id, const std::shared_ptr<Sample>& sample, SampledToken token, bool is_stop);
  void end(RequestId id, FinishReason reason, const std::string& error = "");
  void log_end(EngineRequestId id, const Sample& sample, const FinishedSample& finish) const;
  void end_all(FinishReason reason, const std::string& error);
  void report_caches();
  void update_load();
  void count_step(double step_seconds);
  void run_callbacks();
  void deliver(const Event& event);

  EngineOptions options_;
  int64_t vocab_size_;
  EngineSetup setup_;
  ModelRunner runner_;
  EnginePlan plan_;

  // The planning thread's own.
  cache::HybridCache cache_;
  Scheduler scheduler_;
  std::array<std::unique_ptr<StepBuffers>, 2> buffers_;
  std::vector<Command> taken_commands_;
  std::map<RequestId, std::shared_ptr<Sample>> samples_;
  std::map<EngineRequestId, std::vector<RequestId>> ids_;
  std::set<std::pair<Clock::time_point, RequestId>> deadlines_;
  std::vector<SequenceView> views_;
  std::vector<Event> new_events_;
  int64_t num_begun_ = 0;
  EngineStats live_;
  cache::HybridCacheStats counted_;
  observe::Metrics::Step counts_;

  Inbox<Command> commands_;
  Inbox<Event> events_;
  mutable std::mutex mutex_;  // of the following
  std::condition_variable drained_;
  EngineRequestId next_id_ = 1;
  int64_t num_open_ = 0;  // samples submitted whose on_finish has not returned
  std::string failure_;
  EngineStats stats_;

  StepThread steps_;
  std::thread callback_thread_;
  std::thread planning_thread_;
};

void Engine::Impl::check(const Request& request) const {
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length == 0) fail("the prompt is empty; give at least one token");
  for (const int32_t id : request.prompt) {
    if (id < 0 || id >= vocab_size_)
      fail("token id {} of the prompt is outside the model's vocabulary of {}", id, vocab_size_);
  }
  request.sampling.check();
  if (request.max_tokens < 1) fail("max_tokens is {}; expected at least 1", request.max_tokens);
  if (length + request.max_tokens > plan_.max_model_len) {
    fail("the prompt of {} tokens and max_tokens {} exceed max_model_len {}; shorten either", length,
         request.max_tokens, plan_.max_model_len);
  }
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens) {
    fail("min_tokens is {}; expected 0 to max_tokens {}", request.min_tokens, request.max_tokens);
  }
  if (request.n < 1 || request.n > 1024) fail("n is {}; expected 1 to 1024", request.n);
  if (request.prompt_logprobs && *request.prompt_logprobs < 0) {
    fail("prompt_logprobs is {}; it must not be negative", *request.prompt_logprobs);
  }
  if (request.timeout_seconds && !(*request.timeout_seconds > 0)) {
    fail("timeout_seconds is {}; expected more than 0", *request.timeout_seconds);
  }
  for (const int64_t boundary : request.boundaries) {
    if (boundary < 0 || boundary > length)
      fail("a prefix boundary at {} is outside the prompt of {} tokens", boundary, length);
  }
}

// --- planning ---------------------------------------------------------------------------------------------

void Engine::Impl::run_planning() {
  try {
    plan_until_closed();
    end_all(FinishReason::kCancelled, "");
  } catch (const std::exception& error) {
    {
      const std::lock_guard lock(mutex_);
      failure_ = error.what();
    }
    end_all(FinishReason::kError, error.what());
    events_.put_all(new_events_);
    // What was submitted before the failure was known finishes too.
    while (commands_.take(taken_commands_, Clock::time_point::max())) {
      for (const Command& command : taken_commands_) {
        if (command.kind == Command::Kind::kSubmit) admit(command.submission);
      }
      end_all(FinishReason::kError, error.what());
      events_.put_all(new_events_);
    }
  }
  events_.put_all(new_events_);
}

void Engine::Impl::plan_until_closed() {
  const int64_t depth = options_.overlaps_planning ? 2 : 1;
  while (take_commands()) {
    expire();
    const bool is_planned = scheduler_.num_unfinished_steps() < depth && begin_step();
    const int64_t unfinished = scheduler_.num_unfinished_steps();
    if (unfinished == depth || (unfinished > 0 && !is_planned)) finish_step();
    events_.put_all(new_events_);
  }
  while (scheduler_.num_unfinished_steps() > 0) finish_step();
}

bool Engine::Impl::take_commands() {
  Clock::time_point until = Clock::now();
  if (!scheduler_.has_work() && scheduler_.num_unfinished_steps() == 0) {
    until = deadlines_.empty() ? Clock::time_point::max() : deadlines_.begin()->first;
  }
  const bool is_open = commands_.take(taken_commands_, until);
  for (const Command& command : taken_commands_) apply(command);
  if (!taken_commands_.empty()) update_load();
  return is_open;
}

void Engine::Impl::apply(const Command& command) {
  switch (command.kind) {
    case Command::Kind::kSubmit:
      admit(command.submission);
      return;
    case Command::Kind::kStop:
      if (samples_.contains(command.sample)) end(command.sample, FinishReason::kStop);
      return;
    case Command::Kind::kCancel:
      if (const auto found = ids_.find(command.request); found != ids_.end()) {
        for (const RequestId id : std::vector(found->second)) end(id, FinishReason::kCancelled);
      }
      return;
    case Command::Kind::kResetCache:
      cache_.clear();
      return;
  }
}

void Engine::Impl::admit(const std::shared_ptr<const Submission>& submission) {
  const Request& request = submission->request;
  RequestId first = 0;
  for (int32_t i = 0; i < request.n; ++i) {
    auto sample = std::make_shared<Sample>();
    sample->submission = submission;
    sample->index = i;
    sample->sampling = request.sampling;
    sample->sampling.seed += i;
    if (request.constraint) sample->constrained = submission->constrained[static_cast<size_t>(i)];
    SequenceRequest sequence{request.prompt, request.max_tokens, request.priority};
    sequence.after = first;
    sequence.boundaries = request.boundaries;
    sequence.wants_prompt_logits = i == 0 && request.prompt_logprobs.has_value();
    const RequestId id = scheduler_.submit(std::move(sequence));
    if (i == 0) first = id;
    ids_[submission->id].push_back(id);
    samples_[id] = std::move(sample);
    if (request.timeout_seconds) {
      const auto wait = std::chrono::duration<double>(*request.timeout_seconds);
      deadlines_.emplace(submission->arrival + std::chrono::duration_cast<Clock::duration>(wait), id);
    }
  }
}

void Engine::Impl::expire() {
  const auto now = Clock::now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const RequestId id = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    if (samples_.contains(id)) end(id, FinishReason::kTimeout);
  }
}

bool Engine::Impl::begin_step() {
  const auto begin = Clock::now();
  const StepPlan plan = scheduler_.plan_step();
  if (plan.sequences.empty()) return false;
  note(plan);
  views_.clear();
  for (const ScheduledSequence& s : plan.sequences) {
    const Sample& sample = *samples_.at(s.id);
    const Request& request = sample.submission->request;
    SequenceView view{scheduler_.tokens(s.id), &scheduler_.cached(s.id), &sample.sampling,
                      std::ssize(request.prompt)};
    view.prompt_top_logprobs = request.prompt_logprobs.value_or(0);
    const bool is_below_minimum = s.num_generated < request.min_tokens;
    view.constrained = sample.constrained;
    view.bans_stop = is_below_minimum;
    if (is_below_minimum && view.constrained == nullptr) view.banned = request.stop_token_ids;
    views_.push_back(view);
  }
  StepBuffers& step = *buffers_[static_cast<size_t>(num_begun_ % 2)];
  const bool has_previous = scheduler_.num_unfinished_steps() > 1;
  runner_.prepare(plan, views_,
                  has_previous ? buffers_[static_cast<size_t>((num_begun_ + 1) % 2)].get() : nullptr, step);
  ++num_begun_;
  steps_.begin(step);
  live_.computed_tokens += plan.num_tokens;
  const auto end = Clock::now();
  live_.planning_seconds += seconds(end - begin);
  if (options_.trace != nullptr) {
    options_.trace->add("plan", "plan", begin, end,
                        {{"sequences", std::ssize(plan.sequences)}, {"tokens", plan.num_tokens}});
  }
  return true;
}

void Engine::Impl::note(const StepPlan& plan) {
  const auto now = Clock::now();
  for (const RequestId id : plan.admitted) {
    Sample& sample = *samples_.at(id);
    if (sample.is_admitted) continue;
    sample.is_admitted = true;
    sample.admission = now;
    sample.cached_tokens = scheduler_.cached(id).start;
    const auto prompt = std::ssize(sample.submission->request.prompt);
    live_.prompt_tokens += prompt;
    counts_.prompt_tokens += prompt;
  }
  for (const RequestId id : plan.preempted) ++samples_.at(id)->num_preemptions;
  live_.num_preemptions += std::ssize(plan.preempted);
  counts_.preemptions += std::ssize(plan.preempted);
}

void Engine::Impl::finish_step() {
  const StepThread::Result result = steps_.wait();
  if (result.error) std::rethrow_exception(result.error);
  const auto begin = Clock::now();
  std::vector<StepToken> tokens;
  report(*result.step, tokens);
  for (const RequestId id : scheduler_.finish_step(tokens)) {
    const auto token =
        std::find_if(tokens.begin(), tokens.end(), [id](const StepToken& t) { return t.id == id; });
    if (samples_.contains(id)) end(id, token->is_last ? FinishReason::kStop : FinishReason::kLength);
  }
  const auto end_time = Clock::now();
  const double step_seconds = seconds(result.end - result.begin);
  live_.executing_seconds += step_seconds;
  live_.planning_seconds += seconds(end_time - begin);
  ++live_.num_steps;
  update_load();
  count_step(step_seconds);
  if (options_.trace != nullptr) {
    options_.trace->add("model", "step", result.begin, result.end, {{"rows", std::ssize(result.step->rows)}});
    options_.trace->add("plan", "finish", begin, end_time);
  }
}

void Engine::Impl::report(const StepBuffers& step, std::vector<StepToken>& tokens) {
  for (size_t row = 0; row < step.rows.size(); ++row) {
    const StepRow& info = step.rows[row];
    const auto found = samples_.find(info.id);
    const int32_t drawn = step.sampling.token(static_cast<int64_t>(row));
    if (found == samples_.end()) {
      if (!info.is_prompt) tokens.push_back({info.id, drawn, false});
      continue;
    }
    const std::shared_ptr<Sample>& sample = found->second;
    if (info.is_prompt) {
      // After a preemption the same rows come again.
      if (info.position == std::ssize(sample->prompt_logprobs) + 1)
        sample->prompt_logprobs.push_back(step.sampling.sampled(static_cast<int64_t>(row)));
      continue;
    }
    if (const std::string error = constraint_error(step, row); !error.empty()) {
      tokens.push_back({info.id, drawn, false});
      end(info.id, FinishReason::kError, error);
      continue;
    }
    const auto& stops = sample->submission->request.stop_token_ids;
    const bool is_stop = std::find(stops.begin(), stops.end(), drawn) != stops.end();
    tokens.push_back({info.id, drawn, is_stop});
    report_token(info.id, sample, step.sampling.sampled(static_cast<int64_t>(row)), is_stop);
  }
}

void Engine::Impl::report_token(RequestId id, const std::shared_ptr<Sample>& sample, SampledToken token,
                                bool is_stop) {
  const auto now = Clock::now();
  if (sample->num_tokens++ == 0) {
    sample->first_token = now;
    if (options_.metrics != nullptr)
      options_.metrics->add_first_token(seconds(now - sample->submission->arrival));
    if (sample->index == 0 && sample->submission->request.prompt_logprobs) {
      new_events_.push_back({Event::Kind::kPrompt, sample, id, {}, {}});
    }
  } else if (options_.metrics != nullptr) {
    options_.metrics->add_token(seconds(now - sample->last_token));
  }
  sample->last_token = now;
  ++live_.generated_tokens;
  ++counts_.generated_tokens;
  if (!is_stop) new_events_.push_back({Event::Kind::kToken, sample, id, std::move(token), {}});
}

void Engine::Impl::end(RequestId id, FinishReason reason, const std::string& error) {
  scheduler_.cancel(id);
  const std::shared_ptr<Sample> sample = samples_.at(id);
  samples_.erase(id);
  const Submission& submission = *sample->submission;
  auto& ids = ids_.at(submission.id);
  std::erase(ids, id);
  if (ids.empty()) ids_.erase(submission.id);

  const auto now = Clock::now();
  FinishedSample finish;
  finish.sample = sample->index;
  finish.reason = reason;
  finish.error = error;
  finish.prompt_tokens = std::ssize(submission.request.prompt);
  finish.cached_tokens = sample->cached_tokens;
  finish.num_preemptions = sample->num_preemptions;
  finish.timings.queue = seconds((sample->is_admitted ? sample->admission : now) - submission.arrival);
  finish.timings.total = seconds(now - submission.arrival);
  if (sample->num_tokens > 0) {
    finish.timings.prefill = seconds(sample->first_token - sample->admission);
    finish.timings.first_token = seconds(sample->first_token - submission.arrival);
  }
  if (options_.metrics != nullptr) {
    options_.metrics->add_request(
        {metric_name(reason), finish.prompt_tokens, sample->num_tokens, finish.timings.queue,
         finish.timings.prefill,
         sample->num_tokens > 0 ? finish.timings.total - finish.timings.first_token : 0,
         finish.timings.total});
  }
  if (options_.log != nullptr) log_end(submission.id, *sample, finish);
  new_events_.push_back({Event::Kind::kFinish, sample, id, {}, finish});
}

void Engine::Impl::log_end(EngineRequestId id, const Sample& sample, const FinishedSample& finish) const {
  nlohmann::ordered_json fields = {{"request", id},
                                   {"sample", finish.sample},
                                   {"reason", name(finish.reason)},
                                   {"prompt_tokens", finish.prompt_tokens},
                                   {"cached_tokens", finish.cached_tokens},
                                   {"tokens", sample.num_tokens},
                                   {"preemptions", finish.num_preemptions},
                                   {"queue_s", finish.timings.queue},
                                   {"prefill_s", finish.timings.prefill},
                                   {"first_token_s", finish.timings.first_token},
                                   {"total_s", finish.timings.total}};
  if (sample.num_tokens > 1) {
    const double decode = finish.timings.total - finish.timings.first_token;
    fields["per_token_s"] = decode / static_cast<double>(sample.num_tokens - 1);
  }
  if (finish.error.empty()) {
    options_.log->info("request finished", fields);
  } else {
    fields["error"] = finish.error;
    options_.log->warning("request failed", fields);
  }
}

void Engine::Impl::end_all(FinishReason reason, const std::string& error) {
  while (!samples_.empty()) end(samples_.begin()->first, reason, error);
}

void Engine::Impl::report_caches() {
  live_.num_pages = setup_.cache.num_pages;
  live_.num_slots = setup_.cache.num_slots;
  if (options_.metrics != nullptr)
    options_.metrics->set_caches(
        {live_.num_pages, setup_.cache.page_size, live_.num_slots, options_.share_prefixes});
  update_load();
}

void Engine::Impl::update_load() {
  live_.num_running = scheduler_.num_running();
  live_.num_waiting = scheduler_.num_waiting();
  live_.pages_in_use = cache_.num_pages_in_use();
  live_.pages_cached = cache_.num_cached_pages();
  live_.free_pages = cache_.num_free_pages();
  live_.free_slots = cache_.num_free_slots();
  live_.num_snapshots = cache_.num_snapshots();
  live_.cache = cache_.stats();
  {
    const std::lock_guard lock(mutex_);
    stats_ = live_;
  }
  if (options_.metrics == nullptr) return;
  options_.metrics->set_load({live_.num_running, live_.num_waiting,
                              static_cast<double>(live_.pages_in_use) / static_cast<double>(live_.num_pages),
                              live_.free_pages, live_.free_slots});
}

void Engine::Impl::count_step(double step_seconds) {
  if (options_.metrics == nullptr) return;
  const cache::HybridCacheStats& now = cache_.stats();
  counts_.prefix_query_tokens = now.query_tokens - counted_.query_tokens;
  counts_.prefix_page_hit_tokens = now.page_hit_tokens - counted_.page_hit_tokens;
  counts_.prefix_hit_tokens = now.hit_tokens - counted_.hit_tokens;
  counts_.prefix_misses_new = now.misses_new - counted_.misses_new;
  counts_.prefix_misses_no_snapshot = now.misses_no_snapshot - counted_.misses_no_snapshot;
  counts_.seconds = step_seconds;
  options_.metrics->add_step(counts_);
  counted_ = now;
  counts_ = {};
}

// --- callbacks --------------------------------------------------------------------------------------------

void Engine::Impl::run_callbacks() {
  std::vector<Event> events;
  while (events_.take(events, Clock::time_point::max())) {
    for (const Event& event : events) deliver(event);
  }
}

void Engine::Impl::deliver(const Event& event) {
  Sample& sample = *event.sample;
  const Callbacks& callbacks = sample.submission->callbacks;
  switch (event.kind) {
    case Event::Kind::kPrompt:
      if (callbacks.on_prompt) callbacks.on_prompt(sample.prompt_logprobs);
      return;
    case Event::Kind::kToken:
      if (sample.is_stopped) return;
      ++sample.num_reported;
      if (callbacks.on_token && !callbacks.on_token({sample.index, event.token})) {
        sample.is_stopped = true;
        commands_.put({Command::Kind::kStop, nullptr, 0, event.id});
      }
      return;
    case Event::Kind::kFinish: {
      FinishedSample finish = event.finish;
      if (sample.is_stopped) finish.reason = FinishReason::kStop;
      finish.num_tokens = sample.num_reported;
      if (callbacks.on_finish) callbacks.on_finish(finish);
      const std::lock_guard lock(mutex_);
      --num_open_;
      drained_.notify_all();
      return;
    }
  }
}

// --- the interface ----------------------------------------------------------------------------------------

Engine::Engine(const models::Model& model, ops::Backend& backend, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(model, backend, options)) {}
Engine::~Engine() = default;

EnginePlan Engine::plan(const models::Model& model, ops::Backend& backend, const EngineOptions& options) {
  const EngineSetup setup = set_up(model, backend, options);
  return describe(setup, ModelRunner::plan(model, backend, setup.runner));
}

const EnginePlan& Engine::plan() const { return impl_->plan(); }
void Engine::check(const Request& request) const { impl_->check(request); }
EngineRequestId Engine::submit(Request request, Callbacks callbacks) {
  return impl_->submit(std::move(request), std::move(callbacks));
}
void Engine::cancel(EngineRequestId id) { impl_->cancel(id); }
void Engine::reset_prefix_cache() { impl_->reset_prefix_cache(); }
void Engine::drain() { impl_->drain(); }
EngineStats Engine::stats() const { return impl_->stats(); }

std::vector<int32_t> Completion::token_ids() const {
  std::vector<int32_t> ids;
  for (const SampledToken& token : tokens) ids.push_back(token.id);
  return ids;
}

std::vector<Completion> complete(Engine& engine, Request request) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable done;
    std::vector<Completion> samples;
    size_t num_finished = 0;
  };
  const auto wait = std::make_shared<Wait>();
  const auto count = static_cast<size_t>(std::max(request.n, 1));
  wait->samples.resize(count);
  Callbacks callbacks;
  callbacks.on_token = [wait](const TokenOutput& output) {
    wait->samples[static_cast<size_t>(output.sample)].tokens.push_back(output.token);
    return true;
  };
  callbacks.on_finish = [wait](const FinishedSample& finish) {
    wait->samples[static_cast<size_t>(finish.sample)].finish = finish;
    const std::lock_guard lock(wait->mutex);
    ++wait->num_finished;
    wait->done.notify_one();
  };
  engine.submit(std::move(request), std::move(callbacks));
  std::unique_lock lock(wait->mutex);
  wait->done.wait(lock, [&] { return wait->num_finished == count; });
  for (const Completion& sample : wait->samples) {
    if (sample.finish.reason == FinishReason::kError) fail("{}", sample.finish.error);
  }
  return std::move(wait->samples);
}

}  // namespace minimax::engine
