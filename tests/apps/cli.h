// Runs the executable as a user does.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace minimax::testing {

namespace fs = std::filesystem;

struct Outcome {
  int exit_code = -1;
  std::string out;
  std::string err;
};

// A folder of this test's own, gone afterwards.
struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "minimax_cli_XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
};

inline std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

inline Outcome minimax(const std::string& arguments, const std::string& input = "") {
  const Folder folder;
  write(folder.path / "in", input);
  const std::string command = fmt::format("{} {} <{}/in >{}/out 2>{}/err", MINIMAX_BINARY, arguments,
                                          folder.path.string(), folder.path.string(), folder.path.string());
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read(folder.path / "out"), read(folder.path / "err")};
}

// Exit code 2 and exactly one line that says all of `parts`.
inline void expect_one_clear_line(const Outcome& outcome, std::initializer_list<std::string_view> parts) {
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_EQ(outcome.err.rfind("minimax: error: ", 0), 0U) << outcome.err;
  for (const std::string_view part : parts)
    EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
}

}  // namespace minimax::testing
