// Structured logs: an event with named values, as one line of text or of JSON.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace spdlog {
class logger;
}

namespace minimax::observe {

enum class LogFormat : uint8_t { kText, kJson };

// Safe from any thread.
class Log {
 public:
  // To standard error, or to `file`. THROWS: Error when the file cannot be written.
  explicit Log(LogFormat format, const std::filesystem::path& file = {});
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // `fields` is an object.
  void info(std::string_view event, const nlohmann::ordered_json& fields);
  void warning(std::string_view event, const nlohmann::ordered_json& fields);

 private:
  std::string line(std::string_view event, const nlohmann::ordered_json& fields) const;

  LogFormat format_;
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace minimax::observe
