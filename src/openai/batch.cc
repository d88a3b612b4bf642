#include "openai/batch.h"

#include <condition_variable>
#include <fstream>
#include <map>
#include <mutex>
#include <unordered_map>

#include "openai/fields.h"
#include "openai/response.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct BatchLine {
  std::string custom_id;
  std::string url;
  Json body;
};

// The custom_id of a line of results; empty when the line is none.
std::string custom_id_of(std::string_view line) {
  const Json result = Json::parse(line, nullptr, false);
  const auto id = result.is_object() ? result.find("custom_id") : result.end();
  return id != result.end() && id->is_string() ? id->get<std::string>() : "";
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("{}: cannot be read; check the path", path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

// Calls visit(line, number) for each line that is not blank. RETURNS: where the last whole line ends.
size_t for_each_line(std::string_view text, const std::function<void(std::string_view, int64_t)>& visit) {
  size_t whole = 0;
  int64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    const size_t stop = end == std::string_view::npos ? text.size() : end;
    const std::string_view line = text.substr(at, stop - at);
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) visit(line, number);
    if (end != std::string_view::npos) whole = end + 1;
    at = stop + 1;
  }
  return whole;
}

std::string text_field(const Json& object, const char* field, const std::string& where) {
  const auto value = object.find(field);
  if (value == object.end() || !value->is_string()) {
    fail("{}: \"{}\" is missing or no string", where, field);
  }
  return value->get<std::string>();
}

std::vector<BatchLine> parse_input(const fs::path& path, std::string_view text) {
  std::vector<BatchLine> lines;
  std::unordered_map<std::string, int64_t> seen;
  for_each_line(text, [&](std::string_view line, int64_t number) {
    const std::string where = fmt::format("{}:{}", path.string(), number);
    const Json object = Json::parse(line, nullptr, false);
    if (!object.is_object()) fail("{}: expected one JSON object a line", where);
    BatchLine parsed{text_field(object, "custom_id", where), text_field(object, "url", where),
                     object.value("body", Json())};
    if (const auto method = object.find("method"); method != object.end() && *method != "POST") {
      fail("{}: method is {}; expected \"POST\"", where, dump_json(*method));
    }
    if (parsed.url != "/v1/chat/completions" && parsed.url != "/v1/completions") {
      fail("{}: url is {}; expected /v1/chat/completions or /v1/completions", where, parsed.url);
    }
    const auto [entry, is_new] = seen.emplace(parsed.custom_id, number);
    if (!is_new) {
      fail("{}: custom_id {} is that of line {} too; results could not be told apart", where,
           parsed.custom_id, entry->second);
    }
    lines.push_back(std::move(parsed));
  });
  return lines;
}

uint64_t hash(std::string_view text) {
  uint64_t value = 14695981039346656037ULL;  // FNV-1a
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return value;
}

// The results of lines that are done, on disk.
class Journal {
 public:
  // Takes over what an earlier run of the same job left.
  Journal(const fs::path& path, const std::string& job) : path_(path) {
    if (fs::exists(path)) {
      const std::string text = read_file(path);
      bool is_first = true;
      const auto keep = [&](std::string_view line, int64_t) {
        if (std::exchange(is_first, false)) return check_job(line, job);
        const std::string custom_id = custom_id_of(line);
        if (!custom_id.empty()) results_[custom_id] = std::string(line);
      };
      // A last line without its end was torn when the run was killed.
      const size_t whole = for_each_line(text, [](std::string_view, int64_t) {});
      for_each_line(std::string_view(text).substr(0, whole), keep);
      fs::resize_file(path, whole);
    }
    file_.open(path, std::ios::binary | std::ios::app);
    if (!file_) fail("{}: cannot be written; check the folder and its permissions", path.string());
    if (!fs::exists(path) || fs::file_size(path) == 0) write_line(job);
  }

  bool has(const std::string& custom_id) const { return results_.contains(custom_id); }
  int64_t size() const { return static_cast<int64_t>(results_.size()); }
  void add(const std::string& custom_id, std::string line) {
    write_line(line);
    results_[custom_id] = std::move(line);
  }
  // All results in the order of `lines`, whole or not at all.
  void publish(const std::vector<BatchLine>& lines, const fs::path& output) {
    const fs::path fresh = output.string() + ".new";
    std::ofstream file(fresh, std::ios::binary);
    for (const BatchLine& line : lines) file << results_.at(line.custom_id) << '\n';
    file.close();
    if (!file) fail("{}: cannot be written; is the disk full?", fresh.string());
    fs::rename(fresh, output);
    file_.close();
    fs::remove(path_);
  }

 private:
  void check_job(std::string_view line, const std::string& job) const {
    if (line == job) return;
    fail("{} is of another job ({} instead of {}); finish that one as it was begun, or remove the file",
         path_.string(), line, job);
  }
  void write_line(const std::string& line) {
    file_ << line << '\n' << std::flush;
    if (!file_) fail("{}: cannot be written; is the disk full?", path_.string());
  }

  fs::path path_;
  std::ofstream file_;
  std::unordered_map<std::string, std::string> results_;  // by custom_id
};

int64_t modification_time(const fs::path& path) {
  const auto since = std::chrono::file_clock::to_sys(fs::last_write_time(path)).time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(since).count();
}

class BatchRun {
 public:
  BatchRun(engine::Engine& engine, const ServedModel& model, const BatchOptions& options,
           const BatchProgress& progress)
      : engine_(engine),
        model_(model),
        options_(options),
        progress_(progress),
        input_(read_file(options.input)),
        lines_(parse_input(options.input, input_)),
        created_(modification_time(options.input)) {}

  BatchSummary run() {
    BatchSummary summary;
    summary.num_requests = std::ssize(lines_);
    if (is_finished()) {
      summary.num_resumed = summary.num_requests;
      return summary;
    }
    const std::string job =
        dump_json({{"minimax_batch", fmt::format("{:016x}", hash(input_))}, {"settings", options_.settings}});
    Journal journal(options_.output.string() + ".partial", job);
    journal_ = &journal;
    summary.num_resumed = journal.size();
    report();
    for (size_t i = 0; i < lines_.size(); ++i) {
      if (!journal.has(lines_[i].custom_id)) start(i);
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return num_in_flight_ == 0; });
    if (!failure_.empty()) fail("{}", failure_);
    journal.publish(lines_, options_.output);
    summary.num_failed = num_failed_;
    return summary;
  }

 private:
  // One request under way; touched by the engine's callbacks, one at a time.
  struct Work {
    size_t line = 0;
    CompletionRequest request;
    std::vector<Answer> answers;
    size_t num_finished = 0;
  };

  // Whether the output holds this job's results already.
  bool is_finished() const {
    if (!fs::exists(options_.output)) return false;
    size_t at = 0;
    bool matches = true;
    for_each_line(read_file(options_.output), [&](std::string_view line, int64_t) {
      matches = matches && at < lines_.size() && custom_id_of(line) == lines_[at].custom_id;
      ++at;
    });
    if (!matches || at != lines_.size()) {
      fail("{} exists and holds other results; choose another --output or remove it",
           options_.output.string());
    }
    return true;
  }

  void start(size_t index) {
    const BatchLine& line = lines_[index];
    auto work = std::make_shared<Work>();
    work->line = index;
    try {
      work->request = line.url == "/v1/completions" ? parse_completion(line.body, model_)
                                                    : parse_chat_completion(line.body, model_);
    } catch (const ApiError& error) {
      return refuse(index, error);
    }
    if (!work->request.further.empty())
      return refuse(index, ApiError("prompt", "prompt has several prompts; give each a line of its own"));
    work->request.model.clear();  // results name the model that ran
    // Without a seed of its own a line's draws follow from its place: a resumed job draws the same.
    if (!line.body.contains("seed")) work->request.request.sampling.seed = static_cast<int64_t>(index) << 16;
    const auto count = static_cast<size_t>(work->request.request.n);
    for (size_t i = 0; i < count; ++i) work->answers.emplace_back(work->request, model_);
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return num_in_flight_ < options_.max_in_flight; });
      if (!failure_.empty()) return;
      ++num_in_flight_;
    }
    submit(work);
  }

  void submit(const std::shared_ptr<Work>& work) {
    engine::Callbacks callbacks;
    callbacks.on_token = [work](const engine::TokenOutput& output) {
      Answer& answer = work->answers[static_cast<size_t>(output.sample)];
      answer.push(output.token);
      return !answer.is_stopped();
    };
    callbacks.on_prompt = [work](const std::vector<engine::SampledToken>& logprobs) {
      for (Answer& answer : work->answers) answer.set_prompt(logprobs);
    };
    callbacks.on_finish = [this, work](const engine::FinishedSample& finish) {
      work->answers[static_cast<size_t>(finish.sample)].finish(finish);
      if (++work->num_finished == work->answers.size()) conclude(*work);
    };
    try {
      engine_.submit(work->request.request, std::move(callbacks));
    } catch (const Error& error) {
      refuse(work->line, ApiError("", error.what()));
      leave();
    }
  }

  void conclude(const Work& work) {
    std::vector<TextSample> samples;
    for (const Answer& answer : work.answers) samples.push_back(answer.sample());
    const auto is_error = [](const TextSample& s) { return s.finish.reason == engine::FinishReason::kError; };
    const auto failed = std::find_if(samples.begin(), samples.end(), is_error);
    if (failed != samples.end()) {
      const std::lock_guard lock(mutex_);
      failure_ = failed->finish.error;
    } else {
      // What the cache held when a line ran is no property of the line.
      const ResponseInfo info{fmt::format("cmpl-{}", work.line + 1), created_, false};
      write(work.line, 200, completion_body(work.request, model_, samples, info));
    }
    leave();
  }

  void refuse(size_t index, const ApiError& error) {
    {
      const std::lock_guard lock(mutex_);
      ++num_failed_;
    }
    write(index, error.status(), error.body());
  }

  void write(size_t index, int status, const Json& body) {
    const std::string& custom_id = lines_[index].custom_id;
    const Json result = {
        {"id", fmt::format("batch_req_{}", index + 1)},
        {"custom_id", custom_id},
        {"response",
         {{"status_code", status}, {"request_id", fmt::format("req_{}", index + 1)}, {"body", body}}},
        {"error", nullptr}};
    const std::lock_guard lock(mutex_);
    try {
      journal_->add(custom_id, dump_json(result));
    } catch (const Error& error) {
      failure_ = error.what();
    }
    report();
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    --num_in_flight_;
    changed_.notify_all();
  }

  void report() const {
    if (progress_) progress_(journal_->size(), std::ssize(lines_));
  }

  engine::Engine& engine_;
  const ServedModel& model_;
  const BatchOptions& options_;
  const BatchProgress& progress_;
  std::string input_;
  std::vector<BatchLine> lines_;
  int64_t created_;
  Journal* journal_ = nullptr;

  std::mutex mutex_;  // of the journal and the following
  std::condition_variable changed_;
  int64_t num_in_flight_ = 0;
  int64_t num_failed_ = 0;
  std::string failure_;
};

}  // namespace

BatchSummary run_batch(engine::Engine& engine, const ServedModel& model, const BatchOptions& options,
                       const BatchProgress& progress) {
  return BatchRun(engine, model, options, progress).run();
}

}  // namespace minimax::openai
