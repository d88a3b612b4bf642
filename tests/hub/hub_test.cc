// Models fetched from a hub on loopback that breaks off, lies and refuses.
#include "hub/hub.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "core/error.h"

namespace minimax::hub {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWeightBytes = 1'000'003;
constexpr int64_t kChunk = 50'000;

std::string random_bytes(int64_t count) {
  std::mt19937 random(5);
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) bytes.push_back(static_cast<char>(random() & 0xffU));
  return bytes;
}

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

class Hub : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "minimax_hub_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    write(folder_ / "served/org/tiny/config.json", "{\"model_type\": \"none\"}\n");
    write(folder_ / "served/org/tiny/model.safetensors", weights_);
    write(folder_ / "served/org/tiny/training.bin", "not wanted");
    start_server();
    options_.cache = folder_ / "cache";
    options_.endpoint = "http://127.0.0.1:" + std::to_string(port_);
    options_.transfer.chunk_bytes = kChunk;
    options_.transfer.first_delay_ms = 1;
    progress_.note = [this](const std::string& line) { notes_ += line; };
  }
  void TearDown() override {
    stop_server();
    fs::remove_all(folder_);
  }

  void start_server() {
    std::array<int, 2> ends{};
    ASSERT_EQ(pipe(ends.data()), 0);
    server_ = fork();
    ASSERT_GE(server_, 0);
    if (server_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      const std::string script = std::string(MINIMAX_SOURCE_DIR) + "/tests/hub/hub_server.py";
      const std::string served = (folder_ / "served").string();
      execlp(MINIMAX_PYTHON, MINIMAX_PYTHON, script.c_str(), served.c_str(), nullptr);
      _exit(1);
    }
    close(ends[1]);
    FILE* in = fdopen(ends[0], "r");
    ASSERT_EQ(fscanf(in, "%d", &port_), 1);
    fclose(in);
  }
  void stop_server() {
    if (server_ <= 0) return;
    kill(server_, SIGKILL);
    waitpid(server_, nullptr, 0);
    server_ = 0;
  }

  void control(const std::string& settings) { read_url(options_.endpoint + "/control?" + settings, {}); }
  nlohmann::json stats() { return nlohmann::json::parse(read_url(options_.endpoint + "/stats", {})); }
  fs::path fetch() { return fetch_model("org/tiny", options_, progress_); }
  std::string problem(std::string_view name = "org/tiny") {
    try {
      fetch_model(name, options_, progress_);
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  }

  fs::path folder_;
  std::string weights_ = random_bytes(kWeightBytes);
  int port_ = 0;
  pid_t server_ = 0;
  HubOptions options_;
  DownloadProgress progress_;
  std::string notes_;
};

TEST_F(Hub, KeepsFilesAsHuggingFaceDoes) {
  int64_t total = 0;
  int64_t done = 0;
  progress_.start = [&](int64_t bytes) { total = bytes; };
  progress_.advance = [&](int64_t bytes) { done = bytes; };
  const fs::path snapshot = fetch();
  EXPECT_EQ(read(snapshot / "model.safetensors"), weights_);
  EXPECT_EQ(done, total);
  EXPECT_GT(total, kWeightBytes);
  EXPECT_FALSE(fs::exists(snapshot / "training.bin"));
  EXPECT_EQ(model_name_of(snapshot), "org/tiny");
  EXPECT_EQ(model_name_of(folder_ / "served/org/tiny"), std::nullopt);
  const fs::path model = folder_ / "cache/models--org--tiny";
  EXPECT_EQ(read(model / "refs/main"), snapshot.filename().string());
  EXPECT_EQ(snapshot.parent_path(), model / "snapshots");
  EXPECT_TRUE(fs::read_symlink(snapshot / "config.json").is_relative());
  for (const auto& entry : fs::directory_iterator(model / "blobs"))
    EXPECT_FALSE(entry.path().has_extension());
  // A second call looks whether it is still the newest and fetches nothing.
  const int64_t bytes = stats().at("bytes");
  EXPECT_EQ(fetch(), snapshot);
  EXPECT_EQ(stats().at("bytes"), bytes);
}

TEST_F(Hub, FetchesNoWeightsWhereNoneAreNeeded) {
  options_.with_weights = false;
  const fs::path snapshot = fetch();
  EXPECT_TRUE(fs::exists(snapshot / "config.json"));
  EXPECT_FALSE(fs::exists(snapshot / "model.safetensors"));
  options_.with_weights = true;
  EXPECT_EQ(read(fetch() / "model.safetensors"), weights_);
}

TEST_F(Hub, GoesOnWhereAConnectionBroke) {
  control("cut=10000&times=12");
  EXPECT_EQ(read(fetch() / "model.safetensors"), weights_);
  // What came before a break is not fetched again.
  EXPECT_LE(stats().at("bytes").get<int64_t>(), kWeightBytes + 1000);
}

TEST_F(Hub, ALaterCallGoesOn) {
  control("budget=400000");
  options_.transfer.num_retries = 1;
  EXPECT_NE(problem().find("run again to go on"), std::string::npos);
  EXPECT_FALSE(find_snapshot("org/tiny", options_).has_value());
  control("budget=-1");
  EXPECT_EQ(read(fetch() / "model.safetensors"), weights_);
  EXPECT_LE(stats().at("bytes").get<int64_t>(),
            kWeightBytes + 1000 + options_.transfer.num_connections * kChunk);
}

TEST_F(Hub, RefusesContentOfAnotherChecksum) {
  control("corrupt=1");
  const std::string text = problem();
  EXPECT_NE(text.find("checksum"), std::string::npos) << text;
  EXPECT_NE(notes_.find("fetching it again"), std::string::npos) << notes_;
  EXPECT_FALSE(find_snapshot("org/tiny", options_).has_value());
  control("corrupt=0");
  EXPECT_EQ(read(fetch() / "model.safetensors"), weights_);
}

TEST_F(Hub, SaysWhatToDoAboutARefusal) {
  control("status=401");
  EXPECT_NE(problem().find("HF_TOKEN"), std::string::npos);
  control("status=0");
  EXPECT_NE(problem("org/other").find("no such model"), std::string::npos);
}

TEST_F(Hub, SendsTheTokenToTheFirstHostAlone) {
  options_.transfer.token = "secret";
  control("redirect=1");
  fetch();
  const nlohmann::json seen = stats();
  for (size_t i = 0; i < seen.at("names").size(); ++i) {
    const bool is_other_host = seen["names"][i].get<std::string>().find("/stored/") != std::string::npos;
    EXPECT_EQ(seen["tokens"][i], is_other_host ? "" : "Bearer secret") << seen["names"][i];
  }
}

// InferenceX#1731: harnesses fetch first and serve offline, because a lock on a shared cache went stale.
TEST_F(Hub, Complaint29_WorksWithoutANetworkOnceItIsThere) {
  options_.is_offline = true;
  EXPECT_NE(problem().find("HF_HUB_OFFLINE"), std::string::npos);
  options_.is_offline = false;
  const fs::path snapshot = fetch();
  stop_server();
  EXPECT_EQ(fetch(), snapshot);
  EXPECT_NE(notes_.find("using what is in"), std::string::npos) << notes_;
  options_.is_offline = true;
  EXPECT_EQ(fetch(), snapshot);
}

TEST_F(Hub, StaysInItsFolder) {
  const std::string commit(40, 'a');
  const std::array<std::string, 5> descriptions = {
      "nonsense", R"({"sha": "../../x", "siblings": []})",
      R"({"sha": ")" + commit + R"(", "siblings": [{"rfilename": "../../evil.json", "size": 1, "blobId": ")" +
          commit + R"("}]})",
      R"({"sha": ")" + commit + R"(", "siblings": [{"rfilename": "/etc/evil.json", "size": 1, "blobId": ")" +
          commit + R"("}]})",
      R"({"sha": ")" + commit +
          R"(", "siblings": [{"rfilename": "a.json", "size": 1, "blobId": "../../evil"}]})"};
  for (const std::string& description : descriptions) {
    write(folder_ / "served/org/tiny/description.txt", description);
    EXPECT_NE(problem().find("not the description of a model"), std::string::npos) << description;
  }
}

TEST(ModelName, IsTwoPlainParts) {
  for (const char* name : {"MiniMaxAI/MiniMax-M2.5", "a/b", "org_1/x-y.z"})
    EXPECT_TRUE(is_model_name(name)) << name;
  for (const char* name :
       {"models/demo-m1/", "/abs/path", "one", "a/b/c", "../x", "./x", "a/", "/b", "a/..", "a b/c", ""})
    EXPECT_FALSE(is_model_name(name)) << name;
}

}  // namespace
}  // namespace minimax::hub
