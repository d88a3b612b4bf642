#include "formats/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/formats/temp_dir.h"

namespace minimax::formats {
namespace {

using testing::expect_error;
using testing::TempDir;

TEST(MappedFile, GivesTheBytes) {
  const TempDir dir;
  MappedFile first = MappedFile::open(dir.write("a", "hello"));
  const MappedFile file = std::move(first);
  EXPECT_TRUE(first.bytes().empty());  // NOLINT(bugprone-use-after-move): that it is empty is the point
  ASSERT_EQ(file.bytes().size(), 5U);
  EXPECT_EQ(std::to_integer<char>(file.bytes()[4]), 'o');
  EXPECT_NO_THROW(populate(file.bytes().subspan(1, 2), "a"));
  EXPECT_NO_THROW(populate({}, "nothing"));
}

TEST(MappedFile, NamesWhatItCannotOpen) {
  const TempDir dir;
  expect_error([&] { MappedFile::open(dir.path() / "absent"); }, "absent: no such file");
  expect_error([&] { MappedFile::open(dir.path()); }, ": is a directory; expected a file");
  expect_error([&] { MappedFile::open(dir.write("empty", "")); }, "empty: is empty");
  ASSERT_EQ(::mkfifo((dir.path() / "pipe").c_str(), 0600), 0);
  expect_error([&] { MappedFile::open(dir.path() / "pipe"); }, "pipe: is no regular file");
}

TEST(MappedFile, NamesAnUnreadableFile) {
  if (::geteuid() == 0) GTEST_SKIP() << "the superuser may read every file";
  const TempDir dir;
  const auto path = dir.write("secret", "x");
  std::filesystem::permissions(path, std::filesystem::perms::none);
  expect_error([&] { MappedFile::open(path); }, "secret: not readable by this user");
}

TEST(MappedFile, PopulateReportsAShortenedFile) {
  const TempDir dir;
  const auto path = dir.write("shrinks", std::string(100'000, 'x'));
  const MappedFile file = MappedFile::open(path);
  void* page = const_cast<std::byte*>(file.bytes().data());
  if (::madvise(page, 1, MADV_POPULATE_READ) != 0) GTEST_SKIP() << "this kernel cannot report it";
  std::filesystem::resize_file(path, 10);
  expect_error([&] { populate(file.bytes(), "shrinks"); }, "shrinks: cannot be read from disk");
}

}  // namespace
}  // namespace minimax::formats
