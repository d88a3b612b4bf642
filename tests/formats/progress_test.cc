#include "formats/progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace minimax::formats {
namespace {

TEST(TextProgress, WritesALinePerTenPercentToAFile) {
  std::ostringstream out;
  TextProgress progress(out, false);
  progress.start("loading", 2'000'000'000);
  for (int i = 0; i < 1000; ++i) progress.advance(2'000'000);
  progress.finish();
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 12);
  EXPECT_TRUE(text.starts_with("loading: 0 % of 2.00 GB\nloading: 10 % of 2.00 GB\n")) << text;
  EXPECT_NE(text.find("loading: 100 % of 2.00 GB\nloading: 2.00 GB in "), std::string::npos) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(TextProgress, RedrawsABarOnATerminal) {
  std::ostringstream out;
  TextProgress progress(out, true);
  progress.start("loading", 100);
  progress.advance(50);
  progress.finish();
  const std::string text = out.str();
  EXPECT_NE(text.find("[===============               ]  50 %"), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\r'), 3);
}

TEST(TextProgress, StepsBeyondSeveralTensShowTheLast) {
  std::ostringstream out;
  TextProgress progress(out, false);
  progress.start("loading", 100);
  progress.advance(57);
  EXPECT_EQ(out.str(), "loading: 0 % of 0.00 MB\nloading: 50 % of 0.00 MB\n");
}

TEST(TextProgress, ABarThatAnErrorCutsShortEndsItsLine) {
  std::ostringstream out;
  {
    TextProgress progress(out, true);
    progress.start("loading", 100);
  }
  EXPECT_TRUE(out.str().ends_with("\n"));
}

TEST(TextProgress, AnEmptyLoadIsComplete) {
  std::ostringstream out;
  TextProgress progress(out, false);
  progress.start("loading", 0);
  EXPECT_EQ(out.str(), "loading: 100 % of 0.00 MB\n");
}

}  // namespace
}  // namespace minimax::formats
