#include "hub/transfer.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <fstream>
#include <list>
#include <memory>
#include <set>

namespace minimax::hub {
namespace {

using Clock = std::chrono::steady_clock;

constexpr long kOk = 200;
constexpr long kPartialContent = 206;

struct CleanUpEasy {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
struct CleanUpMulti {
  void operator()(CURLM* handle) const { curl_multi_cleanup(handle); }
};
using Easy = std::unique_ptr<CURL, CleanUpEasy>;
using Multi = std::unique_ptr<CURLM, CleanUpMulti>;
using WriteFunction = size_t (*)(char* data, size_t size, size_t count, void* target);

void initialise_curl() {
  static const CURLcode result = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (result != CURLE_OK) fail("libcurl cannot start: {}", curl_easy_strerror(result));
}

Easy make_request(const std::string& url, const TransferOptions& options, WriteFunction write, void* target) {
  initialise_curl();
  Easy handle(curl_easy_init());
  if (!handle) fail("{}: libcurl gives no handle", url);
  CURL* h = handle.get();
  constexpr long kConnectSeconds = 30;
  constexpr long kMostRedirects = 10;
  curl_easy_setopt(h, CURLOPT_URL, url.c_str());
  curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(h, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(h, CURLOPT_MAXREDIRS, kMostRedirects);
  curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options.stall_seconds));
  curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(h, CURLOPT_USERAGENT, "minimax.cpp");
  curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, write);
  curl_easy_setopt(h, CURLOPT_WRITEDATA, target);
  if (!options.token.empty()) {
    curl_easy_setopt(h, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
    curl_easy_setopt(h, CURLOPT_XOAUTH2_BEARER, options.token.c_str());
  }
  return handle;
}

long status_of(CURL* handle) {
  long status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

// The file that fetched ranges are written to, and the note of those that are whole.
class PartialFile {
 public:
  PartialFile(const FileToFetch& file, int64_t chunk_bytes)
      : file_(file), chunk_bytes_(chunk_bytes), notes_path_(file.path.string() + ".ranges") {
    fd_ = ::open(file.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) fail("{}: cannot be written: {}", file.path.string(), std::strerror(errno));
    read_notes();
    notes_.open(notes_path_, std::ios::app);
    if (done_.empty()) notes_ << header() << std::flush;
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() { ::close(fd_); }

  const FileToFetch& file() const { return file_; }
  int64_t num_chunks() const { return (file_.size + chunk_bytes_ - 1) / chunk_bytes_; }
  int64_t begin(int64_t chunk) const { return chunk * chunk_bytes_; }
  int64_t end(int64_t chunk) const { return std::min(file_.size, (chunk + 1) * chunk_bytes_); }
  bool is_done(int64_t chunk) const { return done_.contains(chunk); }
  bool is_whole() const { return static_cast<int64_t>(done_.size()) == num_chunks(); }

  void write(int64_t offset, const char* data, size_t size) const {
    while (size > 0) {
      const ssize_t written = ::pwrite(fd_, data, size, offset);
      if (written < 0) fail("{}: cannot be written: {}", file_.path.string(), std::strerror(errno));
      data += written;
      offset += written;
      size -= static_cast<size_t>(written);
    }
  }
  void note_done(int64_t chunk) {
    done_.insert(chunk);
    notes_ << chunk << "\n" << std::flush;
    if (is_whole()) std::filesystem::remove(notes_path_);
  }

 private:
  std::string header() const { return fmt::format("ranges of {} bytes of {}\n", chunk_bytes_, file_.size); }
  // A note of ranges of another size is of no use.
  void read_notes() {
    std::ifstream in(notes_path_);
    std::string line;
    if (!std::getline(in, line) || line + "\n" != header()) {
      in.close();
      std::filesystem::remove(notes_path_);
      return;
    }
    for (int64_t chunk = 0; in >> chunk;) {
      if (chunk >= 0 && chunk < num_chunks()) done_.insert(chunk);
    }
  }

  FileToFetch file_;
  int64_t chunk_bytes_;
  std::filesystem::path notes_path_;
  std::ofstream notes_;
  int fd_ = -1;
  std::set<int64_t> done_;
};

// A range on its way.
struct Range {
  PartialFile* file = nullptr;
  int64_t chunk = 0;
  int64_t at = 0;  // the next byte to come
  int num_failures = 0;
  Clock::time_point not_before;
  Easy handle;
  std::string write_problem;
  int64_t* total = nullptr;
};

size_t write_range(char* data, size_t, size_t count, void* target) {
  auto& range = *static_cast<Range*>(target);
  const long status = status_of(range.handle.get());
  const auto size = static_cast<int64_t>(count);
  // An answer that is no range of the file is not written into it.
  const bool is_file = status == kPartialContent || (status == kOk && range.at == 0);
  if (!is_file || range.at + size > range.file->end(range.chunk)) return 0;
  try {
    range.file->write(range.at, data, count);
  } catch (const Error& error) {
    range.write_problem = error.what();
    return 0;
  }
  range.at += size;
  *range.total += size;
  range.num_failures = 0;
  return count;
}

// Fetches ranges of all files, so many at a time.
class Fetcher {
 public:
  Fetcher(const std::vector<FileToFetch>& files, const TransferOptions& options,
          const BytesProgress& progress)
      : options_(options), progress_(progress), multi_(curl_multi_init()) {
    for (const FileToFetch& file : files) {
      PartialFile& partial = *files_.emplace_back(std::make_unique<PartialFile>(file, options.chunk_bytes));
      for (int64_t chunk = 0; chunk < partial.num_chunks(); ++chunk) {
        if (partial.is_done(chunk)) {
          total_ += partial.end(chunk) - partial.begin(chunk);
        } else {
          Range range;
          range.file = &partial;
          range.chunk = chunk;
          range.at = partial.begin(chunk);
          waiting_.push_back(std::move(range));
        }
      }
    }
  }
  Fetcher(const Fetcher&) = delete;
  Fetcher& operator=(const Fetcher&) = delete;
  ~Fetcher() {
    for (Range& range : running_) curl_multi_remove_handle(multi_.get(), range.handle.get());
  }

  void run() {
    initialise_curl();
    while (!waiting_.empty() || !running_.empty()) {
      start_ranges();
      int num_running = 0;
      check(curl_multi_perform(multi_.get(), &num_running));
      finish_ranges();
      constexpr int kWaitMs = 100;
      check(curl_multi_poll(multi_.get(), nullptr, 0, kWaitMs, nullptr));
      if (progress_) progress_(total_);
    }
  }

 private:
  static void check(CURLMcode code) {
    if (code != CURLM_OK) fail("libcurl: {}", curl_multi_strerror(code));
  }

  void start_ranges() {
    const auto now = Clock::now();
    for (auto it = waiting_.begin();
         it != waiting_.end() && std::ssize(running_) < options_.num_connections;) {
      if (it->not_before > now) {
        ++it;
        continue;
      }
      running_.push_back(std::move(*it));
      it = waiting_.erase(it);
      start(running_.back());
    }
  }

  void start(Range& range) {
    range.total = &total_;
    range.handle = make_request(range.file->file().url, options_, write_range, &range);
    CURL* handle = range.handle.get();
    const std::string bytes = fmt::format("{}-{}", range.at, range.file->end(range.chunk) - 1);
    curl_easy_setopt(handle, CURLOPT_RANGE, bytes.c_str());
    curl_easy_setopt(handle, CURLOPT_PRIVATE, &range);
    check(curl_multi_add_handle(multi_.get(), handle));
  }

  void finish_ranges() {
    int num_left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &num_left)) {
      if (message->msg != CURLMSG_DONE) continue;
      Range* range = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &range);
      const CURLcode result = message->data.result;
      curl_multi_remove_handle(multi_.get(), message->easy_handle);
      finish(*range, result);
    }
  }

  void finish(Range& range, CURLcode result) {
    const auto it =
        std::find_if(running_.begin(), running_.end(), [&](const Range& r) { return &r == &range; });
    if (range.at == range.file->end(range.chunk)) {
      range.file->note_done(range.chunk);
    } else {
      retry_or_fail(range, result);
      waiting_.push_back(std::move(range));
    }
    running_.erase(it);
  }

  void retry_or_fail(Range& range, CURLcode result) const {
    const std::string& url = range.file->file().url;
    if (!range.write_problem.empty()) fail("{}", range.write_problem);
    const long status = status_of(range.handle.get());
    constexpr long kFirstServerError = 500;
    constexpr long kTooMany = 429;
    if (status >= 400 && status < kFirstServerError && status != kTooMany) throw HttpError(url, status);
    if (status == kOk && range.at > 0)
      fail("{}: the server ignores byte ranges; another HF_ENDPOINT may know them", url);
    if (range.num_failures >= options_.num_retries) {
      fail(
          "{}: {} tries in a row brought nothing, the last one: {}. What is there is kept; run again to go "
          "on",
          url, range.num_failures + 1,
          result == CURLE_OK ? fmt::format("status {}", status) : curl_easy_strerror(result));
    }
    range.not_before =
        Clock::now() + std::chrono::milliseconds(options_.first_delay_ms << std::min(range.num_failures, 6));
    ++range.num_failures;
    range.handle.reset();
  }

  const TransferOptions& options_;
  const BytesProgress& progress_;
  Multi multi_;
  std::vector<std::unique_ptr<PartialFile>> files_;
  std::deque<Range> waiting_;
  std::list<Range> running_;  // whose addresses libcurl keeps
  int64_t total_ = 0;
};

size_t append(char* data, size_t, size_t count, void* target) {
  constexpr size_t kMostBytes = size_t{64} << 20U;
  auto& text = *static_cast<std::string*>(target);
  if (text.size() + count > kMostBytes) return 0;
  text.append(data, count);
  return count;
}

}  // namespace

std::string read_url(const std::string& url, const TransferOptions& options) {
  std::string text;
  const Easy handle = make_request(url, options, append, &text);
  const CURLcode result = curl_easy_perform(handle.get());
  if (result != CURLE_OK) fail("{}: {}", url, curl_easy_strerror(result));
  if (status_of(handle.get()) != kOk) throw HttpError(url, status_of(handle.get()));
  return text;
}

void fetch_files(const std::vector<FileToFetch>& files, const TransferOptions& options,
                 const BytesProgress& progress) {
  Fetcher(files, options, progress).run();
}

}  // namespace minimax::hub
