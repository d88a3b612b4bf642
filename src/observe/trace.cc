#include "observe/trace.h"

#include "core/error.h"

namespace minimax::observe {

Trace::Trace(const std::filesystem::path& path) : file_(path) {
  if (!file_) fail("{}: the trace cannot be written; check the folder and its permissions", path.string());
  file_ << "[\n";
}

Trace::~Trace() { file_ << "\n]\n"; }

void Trace::add(std::string_view track, std::string_view name, Clock::time_point begin, Clock::time_point end,
                Fields fields) {
  const auto microseconds = [](Clock::duration d) {
    return std::chrono::duration<double, std::micro>(d).count();
  };
  std::string args;
  for (const auto& [key, value] : fields) {
    args += fmt::format("{}\"{}\":{}", args.empty() ? "" : ",", key, value);
  }
  const std::string event =
      fmt::format(R"({{"name":"{}","ph":"X","pid":1,"tid":"{}","ts":{:.3f},"dur":{:.3f},"args":{{{}}}}})",
                  name, track, microseconds(begin - start_), microseconds(end - begin), args);
  const std::lock_guard lock(mutex_);
  file_ << (is_first_ ? "" : ",\n") << event;
  is_first_ = false;
}

}  // namespace minimax::observe
