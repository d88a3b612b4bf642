#include "core/error.h"

#include <gtest/gtest.h>

#include <string>

namespace minimax {
namespace {

std::string message_of_check(int rows) {
  try {
    MM_CHECK(rows == 3, "linear: x has {} rows, expected {}", rows, 3);
  } catch (const InternalError& error) {
    return error.what();
  }
  return "";
}

TEST(ErrorTest, FailFormatsAUserError) {
  try {
    fail("{}: {} bytes, expected {}", "model.safetensors", 7, 8);
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "model.safetensors: 7 bytes, expected 8");
  }
}

TEST(ErrorTest, ACheckNamesValuesPlaceAndExpression) {
  const std::string message = message_of_check(4);
  EXPECT_EQ(message.find("linear: x has 4 rows, expected 3 ("), 0U) << message;
  EXPECT_NE(message.find("tests/core/error_test.cc:"), std::string::npos) << message;
  EXPECT_NE(message.find(": rows == 3)"), std::string::npos) << message;
}

TEST(ErrorTest, PathsInMessagesBeginAtTheSourceTree) {
  try {
    throw_internal_error("/some/where/src/core/x.cc", 12, "a == b", "text");
  } catch (const InternalError& error) {
    EXPECT_STREQ(error.what(), "text (src/core/x.cc:12: a == b)");
  }
}

TEST(ErrorTest, ACheckThatHoldsIsSilentAndEvaluatesOnce) {
  int evaluations = 0;
  MM_CHECK(++evaluations == 1, "not reached");
  EXPECT_EQ(evaluations, 1);
  EXPECT_EQ(message_of_check(3), "");
}

}  // namespace
}  // namespace minimax
