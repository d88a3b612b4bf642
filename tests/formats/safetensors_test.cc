#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/formats/temp_dir.h"

namespace minimax::formats {
namespace {

using testing::expect_error;

std::string little_endian(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  return bytes;
}

std::string file_of(std::string_view header, size_t data_bytes = 0) {
  return little_endian(header.size()) + std::string(header) + std::string(data_bytes, '\1');
}

SafetensorsHeader parse(const std::string& file) {
  return parse_safetensors_header({reinterpret_cast<const std::byte*>(file.data()), file.size()},
                                  "x.safetensors");
}

TEST(Safetensors, ReadsTensorsInOffsetOrder) {
  const auto header = parse(file_of(R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
                                    R"("__metadata__":{"format":"pt","by":"test"},)"
                                    R"("a":{"shape":[2],"data_offsets":[0,8],"dtype":"F32"}}  )",
                                    20));
  ASSERT_EQ(header.tensors.size(), 2U);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[0].dtype, DType::kF32);
  EXPECT_EQ(header.tensors[1].name, "b");
  EXPECT_EQ(header.tensors[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header.tensors[1].begin, 8);
  EXPECT_EQ(header.tensors[1].end, 20);
  EXPECT_EQ(header.metadata, (std::map<std::string, std::string>{{"by", "test"}, {"format", "pt"}}));
}

TEST(Safetensors, AcceptsAnEmptyFileAndEmptyTensorsAndScalars) {
  EXPECT_TRUE(parse(file_of("{}")).tensors.empty());
  const auto header = parse(file_of(R"({"none":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},)"
                                    R"("one":{"dtype":"I64","shape":[],"data_offsets":[0,8]}})",
                                    8));
  ASSERT_EQ(header.tensors.size(), 2U);
  EXPECT_TRUE(header.tensors[1].shape.empty());
}

TEST(Safetensors, KnowsEveryDtype) {
  for (const char* dtype : {"F32", "BF16", "F16", "F64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I64", "I32", "I16",
                            "I8", "U64", "U32", "U16", "U8", "BOOL"}) {
    const auto bytes = size_of(*dtype_from_name(dtype));
    const auto header =
        fmt::format(R"({{"a":{{"dtype":"{}","shape":[1],"data_offsets":[0,{}]}}}})", dtype, bytes);
    EXPECT_NO_THROW(parse(file_of(header, static_cast<size_t>(bytes)))) << dtype;
  }
}

struct Malformed {
  const char* header;
  size_t data_bytes;
  const char* message;
};

TEST(Safetensors, RefusesMalformedHeaders) {
  const Malformed cases[] = {
      // not JSON
      {"", 0, "not valid JSON"},
      {"{", 0, "not valid JSON"},
      {"{}x", 0, "not valid JSON"},
      {"{\"a\":}", 0, "not valid JSON"},
      {"{\"\xff\":1}", 0, "not valid JSON"},
      {R"({"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,1]}})", 1, "not valid JSON"},
      // not the structure
      {"[]", 0, "an array stands where it does not belong"},
      {"null", 0, "null stands"},
      {"3", 0, "the number 3 stands"},
      {"\"text\"", 0, "a text stands"},
      {R"({"a":1})", 0, "tensor \"a\": the number 1 stands"},
      {R"({"a":[]})", 0, "an array stands"},
      {R"({"a":null})", 0, "null stands"},
      {R"({"a":{}})", 0, "tensor \"a\": has no dtype"},
      {R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "tensor \"a\": has no shape"},
      {R"({"a":{"dtype":"U8","shape":[1]}})", 1, "tensor \"a\": has no data_offsets"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":1}})", 1, "unknown field \"extra\""},
      {R"({"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1, "the number 8 stands"},
      {R"({"a":{"dtype":["U8"],"shape":[1],"data_offsets":[0,1]}})", 1, "an array stands"},
      {R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1, "the number 1 stands"},
      {R"({"a":{"dtype":"U8","shape":"1","data_offsets":[0,1]}})", 1, "a text stands"},
      {R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1, "an array stands"},
      {R"({"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}})", 1, "a boolean stands"},
      {R"({"a":{"dtype":"U8","shape":[{}],"data_offsets":[0,1]}})", 1, "an object stands"},
      {R"({"a":{"dtype":{},"shape":[1],"data_offsets":[0,1]}})", 1, "an object stands"},
      {R"({"__metadata__":{"a":1}})", 0, "the number 1 stands"},
      {R"({"__metadata__":{"a":{}}})", 0, "an object stands"},
      {R"({"__metadata__":7})", 0, "the number 7 stands"},
      // values
      {R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}})", 1, "dtype \"F4\" is not supported"},
      {R"({"a":{"dtype":"u8","shape":[1],"data_offsets":[0,1]}})", 1, "dtype \"u8\" is not supported"},
      {R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "the number -1 stands"},
      {R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1, "the number 1.5 stands"},
      {R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}})", 1, "is too large"},
      {R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1,
       "more than 8 dimensions"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0, "overflows"},
      {R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "overflows"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, "data_offsets has 1 numbers, expected 2"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}})", 1, "data_offsets has 3 numbers"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", 1, "the number -1 stands"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1, "run backwards"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 1, "file is truncated"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[9223372036854775805,9223372036854775807]}})", 2,
       "file is truncated"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,7]}})", 7, "F32 [2] needs 8 bytes"},
      // tiling and names
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 2,
       "the last 1 bytes of the file belong to no"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2,
       "bytes 0 to 1 of the data, before tensor"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "tensor \"b\" begins at byte 1 inside the tensor before it"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2, "tensor \"a\" appears twice"},
      {R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1,
       "field dtype appears twice"},
      {R"({"a":{"dtype":"U8","shape":[1],"shape":[2],"data_offsets":[0,1]}})", 1,
       "field shape appears twice"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}})", 1,
       "field data_offsets appears twice"},
      {R"({"__metadata__":{"k":"1","k":"2"}})", 0, "__metadata__ key \"k\" appears twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "__metadata__ appears twice"},
  };
  for (const Malformed& c : cases) {
    SCOPED_TRACE(c.header);
    expect_error([&] { parse(file_of(c.header, c.data_bytes)); }, c.message);
    expect_error([&] { parse(file_of(c.header, c.data_bytes)); }, "x.safetensors: ");
  }
}

TEST(Safetensors, RefusesBadLengths) {
  expect_error([] { parse(""); }, "has 0 bytes, fewer than the 8");
  expect_error([] { parse("1234567"); }, "has 7 bytes, fewer than the 8");
  expect_error([] { parse(little_endian(3) + "{}"); }, "does not fit the file of 10 bytes");
  expect_error([] { parse(little_endian(100'000'001) + "{}"); }, "exceeds the limit of 100000000");
  expect_error([] { parse(little_endian(UINT64_MAX) + "{}"); }, "header length 18446744073709551615 exceeds");
}

TEST(Safetensors, TruncationAtAnyByteIsRefused) {
  const std::string file = file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4);
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_THROW(parse(file.substr(0, size)), Error) << size;
  }
}

TEST(Safetensors, MessagesShowHostileNamesHarmlessly) {
  expect_error([] { parse(file_of("{\"a\\n\\u001b[31m\":{}}")); },
               "tensor \"a\\x0a\\x1b[31m\": has no dtype");
  const std::string long_name(5000, 'n');
  try {
    parse(file_of("{\"" + long_name + "\":{}}"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_LT(std::string_view(e.what()).size(), 300U);
  }
}

}  // namespace
}  // namespace minimax::formats
