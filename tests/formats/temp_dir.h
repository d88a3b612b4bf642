// A directory that is removed at the end of a test, with the means to fill it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>

#include "core/error.h"

namespace minimax::testing {

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "minimax-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) fail("cannot make a temporary directory {}", name);
    path_ = name;
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }

  std::filesystem::path write(std::string_view name, std::string_view bytes) const {
    const auto path = path_ / name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

 private:
  std::filesystem::path path_;
};

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// Expects an Error of one line that contains `part`.
inline void expect_error(const std::function<void()>& action, std::string_view part) {
  try {
    action();
    ADD_FAILURE() << "no error; expected: " << part;
  } catch (const Error& e) {
    const std::string_view message = e.what();
    EXPECT_NE(message.find(part), std::string_view::npos) << message << "\n  lacks: " << part;
    EXPECT_EQ(message.find('\n'), std::string_view::npos) << message;
  }
}

}  // namespace minimax::testing
