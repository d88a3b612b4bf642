#include "observe/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace minimax::observe {
namespace {

std::shared_ptr<spdlog::sinks::sink> make_sink(const std::filesystem::path& file) {
  if (file.empty()) return std::make_shared<spdlog::sinks::stderr_sink_mt>();
  try {
    return std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string());
  } catch (const spdlog::spdlog_ex& error) {
    fail("{}: the log cannot be written ({})", file.string(), error.what());
  }
}

std::string dump(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

Log::Log(LogFormat format, const std::filesystem::path& file)
    : format_(format), logger_(std::make_shared<spdlog::logger>("minimax", make_sink(file))) {
  logger_->set_pattern(format == LogFormat::kJson ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})"
                                                  : "%Y-%m-%d %H:%M:%S.%e %l %v");
  logger_->flush_on(spdlog::level::info);
}

Log::~Log() = default;

std::string Log::line(std::string_view event, const nlohmann::ordered_json& fields) const {
  std::string text = format_ == LogFormat::kJson ? R"("event":)" + dump(event) : std::string(event);
  for (const auto& [key, value] : fields.items()) {
    text += format_ == LogFormat::kJson ? fmt::format(",{}:{}", dump(key), dump(value))
                                        : fmt::format(" {}={}", key, dump(value));
  }
  return text;
}

void Log::info(std::string_view event, const nlohmann::ordered_json& fields) {
  logger_->info("{}", line(event, fields));
}

void Log::warning(std::string_view event, const nlohmann::ordered_json& fields) {
  logger_->warn("{}", line(event, fields));
}

}  // namespace minimax::observe
