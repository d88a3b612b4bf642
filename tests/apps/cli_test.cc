// The executable as a user meets it: outputs, exit codes, one clear line for every damaged checkpoint.
#include <array>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "formats/checkpoint.h"
#include "formats/safetensors.h"
#include "tests/apps/cli.h"
#include "tests/models/released_configs.h"

namespace minimax {
namespace {

using testing::expect_one_clear_line;
using testing::Folder;
using testing::minimax;
using testing::Outcome;
using testing::read;
using testing::write;
namespace fs = std::filesystem;

const fs::path kSource = MINIMAX_SOURCE_DIR;

nlohmann::json last_line_json(const std::string& text) {
  const size_t end = text.find_last_not_of('\n');
  const size_t begin = text.rfind('\n', end);
  return nlohmann::json::parse(text.substr(begin == std::string::npos ? 0 : begin + 1));
}

fs::path parity_model() { return kSource / "tests/models/parity/released_heads8"; }

// A copy of a good checkpoint, to be damaged.
void copy_model(const fs::path& to) {
  for (const char* file : {"config.json", "model.safetensors"})
    fs::copy_file(parity_model() / file, to / file);
}

std::string run_arguments(const fs::path& model) {
  return fmt::format("run --model {} --token-ids 1,2,3 --max-tokens 4 --temperature 0 --ignore-eos --json",
                     model.string());
}

TEST(Cli, RunPrintsOneJsonObjectWithTheTokenIds) {
  const Outcome outcome = minimax(run_arguments(parity_model()) + " --dtype float32");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json result = last_line_json(outcome.out);
  EXPECT_EQ(result.at("token_ids").size(), 4U);
  EXPECT_EQ(result.at("finish_reason"), "length");
  EXPECT_EQ(result.at("prompt_tokens"), 3);
}

TEST(Cli, LogitsWritesWhatTheOtherImplementationComputed) {
  const Folder folder;
  formats::Progress silent;
  fs::create_directories(folder.path / "expected");
  fs::copy_file(parity_model() / "config.json", folder.path / "expected/config.json");
  fs::copy_file(parity_model() / "expected.safetensors", folder.path / "expected/model.safetensors");
  formats::Checkpoint expected = formats::Checkpoint::open(folder.path / "expected");
  const Tensor ids = expected.tensor("input_ids");
  const std::vector<int32_t> tokens(ids.data<int32_t>(), ids.data<int32_t>() + ids.numel());
  write(folder.path / "tokens.json", nlohmann::json(tokens).dump());

  for (const char* ranks : {"", "--tensor-parallel 3", "--tensor-parallel 2 --expert-parallel 2"}) {
    const fs::path got_path = folder.path / fmt::format("got{}", std::strlen(ranks));
    fs::create_directories(got_path);
    const Outcome outcome = minimax(fmt::format(
        "logits --model {} --tokens-file {} --output {} --dtype float32 {}", parity_model().string(),
        (folder.path / "tokens.json").string(), (got_path / "model.safetensors").string(), ranks));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    formats::Checkpoint got = formats::Checkpoint::open(got_path);
    const Tensor a = got.tensor("logits");
    const Tensor b = expected.tensor("logits");
    ASSERT_TRUE(std::ranges::equal(a.shape(), b.shape()));
    for (int64_t i = 0; i < a.numel(); ++i) ASSERT_NEAR(a.data<float>()[i], b.data<float>()[i], 1e-4) << i;
  }
}

TEST(Cli, InspectSaysWhatEachRankHolds) {
  const std::string arguments =
      fmt::format("inspect --model {} --tensor-parallel 3 --expert-parallel 2", parity_model().string());
  const nlohmann::json sizes = last_line_json(minimax(arguments + " --json").out).at("parallel");
  int64_t total = sizes.at("stored_bytes");
  for (const auto& [name, bytes] : sizes.at("repeated_bytes").items()) total += bytes.get<int64_t>();
  ASSERT_EQ(sizes.at("ranks").size(), 6U);
  for (const auto& rank : sizes.at("ranks")) total -= rank.at("weight_bytes").get<int64_t>();
  EXPECT_EQ(total, 0);
  EXPECT_TRUE(sizes.at("repeated_bytes").contains("model.layers.*.self_attn.k_proj.weight"));
  const Outcome text = minimax(arguments);
  EXPECT_NE(text.out.find("model.layers.*.self_attn.k_proj.weight"), std::string::npos) << text.out;
  expect_one_clear_line(
      minimax(fmt::format("inspect --model {} --tensor-parallel 100", parity_model().string())),
      {"cannot be cut over 100 ranks"});
}

TEST(Cli, InspectCountsTheRealModelFromItsConfigurationAlone) {
  const Outcome outcome =
      minimax(fmt::format("inspect --json --model {}", (kSource / "tests/fixtures/minimax-m1").string()));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json result = last_line_json(outcome.out);
  EXPECT_EQ(result.at("total_parameters"), 456089655296);
  EXPECT_EQ(result.at("active_parameters"), 45944920064);
  EXPECT_EQ(result.at("num_lightning_layers"), 70);
  EXPECT_EQ(result.at("num_full_attention_layers"), 10);
}

TEST(Cli, DryRunPlansTheFullModelWithoutItsMemory) {
  const Outcome outcome = minimax(fmt::format("run --dry-run --token-ids 1 --model {}",
                                              (kSource / "tests/fixtures/minimax-m1").string()));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("912210767872 bytes"), std::string::npos) << outcome.out;
}

TEST(Cli, DummyWeightsRunAReducedRealConfiguration) {
  const Folder folder;
  nlohmann::json config = nlohmann::json::parse(read(kSource / "tests/fixtures/minimax-m1/config.json"));
  config["vocab_size"] = 512;
  config["num_local_experts"] = 2;
  config["hidden_size"] = 256;
  config["intermediate_size"] = 128;
  write(folder.path / "config.json", config.dump());
  const Outcome outcome = minimax(run_arguments(folder.path) + " --load-format dummy --num-layers 8");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(last_line_json(outcome.out).at("token_ids").size(), 4U);
}

// Full widths of attention, few and narrow experts; quantised weights and FP8 caches.
TEST(Cli, EveryFamilyIsChosenFromItsConfigurationAlone) {
  nlohmann::json m2 = testing::released_m2();
  m2.update(
      {{"vocab_size", 512}, {"num_local_experts", 8}, {"hidden_size", 256}, {"intermediate_size", 128}});
  nlohmann::json m3 = testing::released_m3_mxfp8();
  m3["text_config"].update({{"vocab_size", 512},
                            {"num_local_experts", 4},
                            {"hidden_size", 256},
                            {"intermediate_size", 128},
                            {"shared_intermediate_size", 128},
                            {"dense_intermediate_size", 128}});
  for (const auto& [config, layers] : {std::pair{m2, 2}, {m3, 4}}) {
    const Folder folder;
    write(folder.path / "config.json", config.dump());
    const std::string arguments =
        run_arguments(folder.path) + fmt::format(" --load-format dummy --num-layers {}", layers);
    for (const char* caches : {"", " --kv-cache-dtype fp8 --index-cache-dtype fp8"}) {
      const Outcome outcome = minimax(arguments + caches);
      ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
      EXPECT_EQ(last_line_json(outcome.out).at("token_ids").size(), 4U);
    }
  }
}

TEST(Cli, InspectDescribesTheFullSizesOfM2AndM3) {
  const struct {
    nlohmann::json config;
    int64_t parameters;
    int64_t page_size;
  } cases[] = {{testing::released_m2(), 228'689'764'864, 64}, {testing::released_m3(), 426'174'572'928, 128}};
  for (const auto& c : cases) {
    const Folder folder;
    write(folder.path / "config.json", c.config.dump());
    const Outcome outcome = minimax(fmt::format("inspect --json --model {}", folder.path.string()));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(last_line_json(outcome.out).at("total_parameters"), c.parameters);
    EXPECT_EQ(last_line_json(outcome.out).at("page_size"), c.page_size);
  }
}

TEST(Cli, UnsupportedQuantisationIsNamed) {
  const Folder folder;
  const auto config = testing::with(testing::released_m2(), "quantization_config.quant_method", "awq");
  write(folder.path / "config.json", config.dump());
  expect_one_clear_line(minimax(run_arguments(folder.path)), {"awq", "supported are fp8"});
}

TEST(Cli, AbsentFilesGiveOneClearLine) {
  const Folder folder;
  expect_one_clear_line(minimax(run_arguments(folder.path / "nowhere")), {"nowhere"});
  expect_one_clear_line(minimax(run_arguments(folder.path)), {"config.json"});
  copy_model(folder.path);
  fs::remove(folder.path / "model.safetensors");
  expect_one_clear_line(minimax(run_arguments(folder.path)), {"model.safetensors"});
}

TEST(Cli, TruncatedFilesGiveOneClearLine) {
  const Folder folder;
  copy_model(folder.path);
  const fs::path weights = folder.path / "model.safetensors";
  const auto size = static_cast<int64_t>(fs::file_size(weights));
  for (const int64_t kept : {size - 1, size / 2, int64_t{100}, int64_t{8}, int64_t{3}, int64_t{0}}) {
    fs::resize_file(weights, static_cast<uintmax_t>(kept));
    expect_one_clear_line(minimax(run_arguments(folder.path)), {"model.safetensors"});
  }
  write(folder.path / "config.json", read(parity_model() / "config.json").substr(0, 50));
  expect_one_clear_line(minimax(run_arguments(folder.path)), {"config.json"});
}

TEST(Cli, CorruptFilesGiveOneClearLine) {
  const Folder folder;
  copy_model(folder.path);
  const fs::path weights = folder.path / "model.safetensors";
  const std::string good = read(weights);
  std::string bad = good;
  bad[0] = '\xff';  // a header length beyond the file
  bad[7] = '\x7f';
  write(weights, bad);
  expect_one_clear_line(minimax(run_arguments(folder.path)), {"model.safetensors"});
  bad = good;
  bad[8] = '[';
  write(weights, bad);
  expect_one_clear_line(minimax(run_arguments(folder.path)), {"model.safetensors"});
  write(weights, good);
  write(folder.path / "model.safetensors.index.json",
        "{\"weight_map\": {\"a\": \"../outside.safetensors\"}}");
  expect_one_clear_line(minimax(run_arguments(folder.path)), {"model.safetensors.index.json"});
}

TEST(Cli, MismatchedFilesNameEveryTensorInOneLine) {
  const Folder folder;
  copy_model(folder.path);
  nlohmann::json config = nlohmann::json::parse(read(folder.path / "config.json"));
  config["intermediate_size"] = 25;
  config["num_local_experts"] = 5;
  write(folder.path / "config.json", config.dump());
  expect_one_clear_line(minimax(run_arguments(folder.path)),
                        {"experts.4.w1.weight is missing", "[24, 48]", "[25, 48]"});
  config["architectures"] = {"GPT2LMHeadModel"};
  write(folder.path / "config.json", config.dump());
  expect_one_clear_line(minimax(run_arguments(folder.path)), {"GPT2LMHeadModel"});
}

TEST(Cli, BadArgumentsAreExitCode2) {
  EXPECT_EQ(minimax("").exit_code, 2);
  EXPECT_EQ(minimax("run").exit_code, 2);
  EXPECT_EQ(minimax("--help").exit_code, 0);
  const std::string base = "run --model " + parity_model().string();
  expect_one_clear_line(minimax(base + " --token-ids 1,x"), {"--token-ids"});
  expect_one_clear_line(minimax(base + " --token-ids 1 --max-model-len 12q"), {"--max-model-len", "12q"});
  expect_one_clear_line(minimax(base + " --token-ids 1 --temperature -1"), {"temperature"});
  expect_one_clear_line(minimax(base + " --token-ids 9999"), {"9999"});
  expect_one_clear_line(minimax(base + " --prompt hello"), {"tokenizer.json", "--token-ids"});
}

}  // namespace
}  // namespace minimax
