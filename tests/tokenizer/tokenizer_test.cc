#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/load.h"

namespace minimax::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

const Tokenizer& m1() {
  static const Tokenizer instance =
      Tokenizer::load(std::string(MINIMAX_SOURCE_DIR) + "/tests/fixtures/minimax-m1");
  return instance;
}

// A tokenizer.json of the 256 bytes, the merge "a b" and one special token.
nlohmann::json small_json() {
  nlohmann::json vocabulary = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) vocabulary[byte_to_character(static_cast<uint8_t>(byte))] = byte;
  vocabulary["ab"] = 256;
  return {{"normalizer", nullptr},
          {"added_tokens", {{{"id", 257}, {"content", "<s>"}, {"special", true}, {"normalized", false}}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", {{"type", "ByteLevel"}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"a b"}}}}};
}

std::string load_error(const nlohmann::json& json) {
  try {
    Tokenizer tokenizer(spec_from_tokenizer_json(json.dump()));
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Tokenizer, KnownIds) {
  EXPECT_EQ(m1().encode("<think>\n"), (Ids{60, 37959, 1100}));
  EXPECT_EQ(m1().encode("\n</think>\n\n"), (Ids{10, 1579, 37959, 6983}));
  EXPECT_EQ(m1().encode("hello hello\n\n"), (Ids{37964, 53343, 367}));
  EXPECT_EQ(m1().encode(""), Ids{});
}

TEST(Tokenizer, MarkersOfM1) {
  EXPECT_EQ(m1().encode("<end_of_sentence>"), Ids{200020});
  EXPECT_GT(m1().encode("<end_of_sentence>", {.parse_special = false}).size(), 1U);
  EXPECT_EQ(m1().eos_id(), 200020);
  EXPECT_EQ(m1().bos_id(), 200019);
  EXPECT_TRUE(m1().is_special(200034));
  EXPECT_EQ(m1().decode(Ids{37964, 200020}, {.skip_special = true}), "hello");
}

TEST(Tokenizer, UndefinedIdsDecodeToNothing) {
  EXPECT_FALSE(m1().is_defined(200050));
  EXPECT_FALSE(m1().is_defined(-1));
  EXPECT_FALSE(m1().is_defined(INT32_MAX));
  EXPECT_TRUE(m1().is_defined(0));
  EXPECT_EQ(m1().decode(Ids{200050, 37964, 199999999, -7}), "hello");
  EXPECT_EQ(m1().size(), 200004);
  EXPECT_EQ(m1().max_id(), 200034);
}

TEST(Tokenizer, IllFormedTextIsReadAsReplacementCharacters) {
  EXPECT_EQ(m1().encode("a\xff\xe4\xbd"
                        "b"),
            m1().encode("a\xEF\xBF\xBD\xEF\xBF\xBD"
                        "b"));
}

TEST(Tokenizer, TokensByName) {
  EXPECT_EQ(m1().token_to_id("Ġhello"), 53343);
  EXPECT_EQ(m1().id_to_token(53343), "Ġhello");
  EXPECT_EQ(m1().id_to_bytes(53343), " hello");
  EXPECT_EQ(m1().token_to_id("no such token"), std::nullopt);
  EXPECT_EQ(m1().id_to_token(200050), std::nullopt);
}

TEST(Detokenizer, HoldsPartsOfCharactersBack) {
  Detokenizer detokenizer(m1());
  EXPECT_EQ(detokenizer.push(0xE4), "");
  EXPECT_EQ(detokenizer.push(0xBD), "");
  EXPECT_EQ(detokenizer.push(0xA0), "你");
  EXPECT_EQ(detokenizer.push(0xF0), "");
  EXPECT_EQ(detokenizer.push('x'), "\xEF\xBF\xBDx");
  EXPECT_EQ(detokenizer.push(0xC3), "");
  EXPECT_EQ(detokenizer.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(detokenizer.push('y'), "y");
}

TEST(Load, SmallTokenizerJson) {
  const Tokenizer tokenizer(spec_from_tokenizer_json(small_json().dump()));
  EXPECT_EQ(tokenizer.encode("ab<s>cab"), (Ids{256, 257, 'c', 256}));
  EXPECT_EQ(tokenizer.decode(Ids{256, 257}), "ab<s>");
}

TEST(Load, PairsAsMerges) {
  nlohmann::json json = small_json();
  json["model"]["merges"] = nlohmann::json::array({nlohmann::json::array({"a", "b"})});
  EXPECT_EQ(Tokenizer(spec_from_tokenizer_json(json.dump())).encode("ab"), Ids{256});
}

TEST(Load, UnsupportedPartsAreNamed) {
  const auto changed = [](const char* pointer, const nlohmann::json& value) {
    nlohmann::json json = small_json();
    json[nlohmann::json::json_pointer(pointer)] = value;
    return load_error(json);
  };
  EXPECT_EQ(load_error(small_json()), "no error");
  EXPECT_NE(changed("/normalizer", {{"type", "NFC"}}).find("NFC"), std::string::npos);
  EXPECT_NE(changed("/model/type", "Unigram").find("Unigram"), std::string::npos);
  EXPECT_NE(changed("/model/byte_fallback", true).find("byte_fallback"), std::string::npos);
  EXPECT_NE(changed("/decoder", {{"type", "WordPiece"}}).find("WordPiece"), std::string::npos);
  EXPECT_NE(changed("/pre_tokenizer", {{"type", "Metaspace"}}).find("Metaspace"), std::string::npos);
  EXPECT_NE(changed("/post_processor", {{"type", "TemplateProcessing"}}).find("TemplateProcessing"),
            std::string::npos);
  EXPECT_NE(changed("/model/merges", {"a"}).find("merge"), std::string::npos);
  EXPECT_NE(changed("/model/merges", {"a c"}).find("'ac'"), std::string::npos);
  EXPECT_NE(changed("/model/vocab/x", -1).find("id"), std::string::npos);
  EXPECT_NE(changed("/model/vocab/x", 2147483647).find("outside"), std::string::npos);
  const nlohmann::json bad_split = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  EXPECT_NE(changed("/pre_tokenizer", bad_split).find("regular expression"), std::string::npos);
  EXPECT_THROW(spec_from_tokenizer_json("{"), Error);
  EXPECT_THROW(spec_from_tokenizer_json("[]"), Error);
}

TEST(Load, Gpt2OrderKeepsGpt2Split) {
  nlohmann::json vocabulary = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[byte_to_character(static_cast<uint8_t>(byte))] = 255 - byte;
  EXPECT_EQ(spec_from_merges("#version: 0.2\n", vocabulary.dump()).split_patterns[0], kGpt2Pattern);
  EXPECT_EQ(spec_from_merges("#version: 0.2\nĠ Ġ\n", "").split_patterns[0], kMinimaxPattern);
}

TEST(Load, MissingFilesAreNamed) {
  try {
    Tokenizer::load("no/such/folder");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tokenizer.json"), std::string::npos);
  }
}

}  // namespace
}  // namespace minimax::tokenizer
