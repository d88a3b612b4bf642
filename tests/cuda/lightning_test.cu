// The lightning attention kernels against the recurrence in float64. Outputs, workspaces and unowned rows
// hold NaN before each call.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "tests/cuda/lightning_case.h"

namespace minimax::cuda_test {
namespace {

using cuda::LightningDecodeArgs;
using cuda::LightningPrefillArgs;

// Rounding one number to BF16 may cost 2^-8; heads of a few elements do not average it.
double bound(Element element, int head_dim) {
  if (element == Element::kF32) return 1e-5;
  return head_dim < 32 ? 0x1.0p-8 : 3e-3;
}

// Some sequences continue in their own slot, some in another, some start from zero or leave nothing. One
// spare slot belongs to nobody.
void draw_slots(Contents& c, std::size_t sequences, std::mt19937& random) {
  c.slots = static_cast<int>(2 * sequences + 1);
  for (std::size_t b = 0; b < sequences; ++b) {
    const int read = static_cast<int>(2 * b);
    const unsigned kind = random() % 5;
    c.read_slots.push_back(kind == 0 ? -1 : read);
    c.write_slots.push_back(kind == 1 ? -1 : kind == 2 ? read : read + 1);
  }
}

Contents make_prefill(std::mt19937& random, Element element, const std::vector<int>& lengths, int heads,
                      int head_dim, int unowned, int pad) {
  Contents c;
  c.element = element;
  c.heads = heads;
  c.head_dim = head_dim;
  c.pad = pad;
  c.query_starts.push_back(0);
  for (const int length : lengths) c.query_starts.push_back(c.query_starts.back() + length);
  c.tokens = c.query_starts.back() + unowned;
  draw_slots(c, lengths.size(), random);
  c.fill(random, c.query_starts.back());
  return c;
}

struct Errors {
  double out = 0;
  double state = 0;
};

// What a call must give; `written` says which slots may change.
Errors compare(const Contents& c, const Expected& expected, const std::vector<float>& out,
               const std::vector<float>& state) {
  Errors errors;
  errors.out = relative_error(out, expected.out);
  const std::size_t size = c.state_at(1, 0);
  for (int slot = 0; slot < c.slots; ++slot) {
    const std::size_t at = c.state_at(slot, 0);
    const std::vector<float> got(state.begin() + at, state.begin() + at + size);
    if (std::find(c.write_slots.begin(), c.write_slots.end(), slot) == c.write_slots.end()) {
      EXPECT_TRUE(std::equal(got.begin(), got.end(), c.state.begin() + at))
          << "slot " << slot << " is not written";
    } else {
      const std::vector<double> want(expected.state.begin() + at, expected.state.begin() + at + size);
      errors.state = std::max(errors.state, relative_error(got, want));
    }
  }
  return errors;
}

Errors run_prefill(const Contents& c, int sm) {
  DeviceCase device(c);
  LightningPrefillArgs args;
  device.fill(args, c);
  args.state = reinterpret_cast<float*>(device.state.data());
  args.query_starts = device.query_starts.data();
  args.num_tokens = c.tokens;
  args.num_sequences = static_cast<int64_t>(c.read_slots.size());
  args.sm = sm;
  args.workspace_bytes = cuda::lightning_prefill_workspace_bytes(args.num_tokens, args.num_sequences, c.heads,
                                                                 c.head_dim, c.element, sm);
  DeviceBuffer<uint8_t> workspace(args.workspace_bytes);
  args.workspace = workspace.data();
  check(cuda::lightning_prefill(args, nullptr));
  check(cudaDeviceSynchronize());
  const std::vector<float> out = decode(c.element, device.out.get());
  for (std::size_t i = c.out_at(c.query_starts.back(), 0); i < out.size(); ++i) {
    EXPECT_EQ(out[i], 0.0F) << "unowned row";
    if (out[i] != 0.0F) break;
  }
  return compare(c, recurrence(c), out, decode(Element::kF32, device.state.get()));
}

std::string describe(const Contents& c) {
  std::string text = std::to_string(c.heads) + " heads of " + std::to_string(c.head_dim) + ", pad " +
                     std::to_string(c.pad) + ", tokens " + std::to_string(c.tokens) + ", starts";
  for (const int start : c.query_starts) text += " " + std::to_string(start);
  return text;
}

void expect_prefill(const Contents& c, int sm) {
  const Errors errors = run_prefill(c, sm);
  EXPECT_LE(errors.out, bound(c.element, c.head_dim)) << describe(c);
  EXPECT_LE(errors.state, bound(c.element, c.head_dim)) << describe(c);
}

// Of the device's compute capability; 0 without one.
int device_major() {
  int count = 0;
  int major = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  return major;
}

class Prefill : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    const int major = device_major();
    if (major == 0) GTEST_SKIP() << "no CUDA device";
    if (GetParam() == 90 ? major != 9 : major < 8) GTEST_SKIP() << "the device cannot run sm_" << GetParam();
  }
  std::mt19937 random_{static_cast<unsigned>(GetParam())};
};

TEST_P(Prefill, SmallRagged) {
  expect_prefill(make_prefill(random_, Element::kBF16, {70, 0, 1, 64, 33}, 2, 128, 5, 0), GetParam());
  expect_prefill(make_prefill(random_, Element::kBF16, {130, 17}, 3, 64, 0, 0), GetParam());
}

TEST_P(Prefill, SmallCutSequences) {
  expect_prefill(make_prefill(random_, Element::kBF16, {0, 1100, 3, 600}, 1, 128, 20, 0), GetParam());
  expect_prefill(make_prefill(random_, Element::kBF16, {513}, 2, 64, 0, 0), GetParam());
}

TEST_P(Prefill, SmallGeneric) {
  expect_prefill(make_prefill(random_, Element::kF32, {9, 0, 70}, 2, 33, 3, 1), GetParam());
  expect_prefill(make_prefill(random_, Element::kBF16, {20, 1}, 2, 128, 3, 1), GetParam());
}

TEST_P(Prefill, EveryTailLength) {
  for (int length = 1; length <= 130; length += length < 62 ? 7 : 1) {
    expect_prefill(make_prefill(random_, Element::kBF16, {length, 5}, 3, 128, 1, 0), GetParam());
  }
}

TEST_P(Prefill, RandomRagged) {
  const int lengths[] = {0, 1, 2, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 200, 333, 511, 512, 513, 800};
  for (int i = 0; i < 30; ++i) {
    const int heads_of[] = {1, 2, 3, 5, 8, 16, 33};
    const int heads = heads_of[i % 7];
    std::vector<int> drawn(1 + random_() % (heads <= 3 ? 40 : 5));
    for (int& length : drawn) length = lengths[random_() % std::size(lengths)];
    const Contents c = make_prefill(random_, Element::kBF16, drawn, heads, i % 2 == 0 ? 128 : 64,
                                    static_cast<int>(random_() % 100), i % 4 == 3 ? 8 : 0);
    expect_prefill(c, GetParam());
  }
}

TEST_P(Prefill, LongSequences) {
  expect_prefill(make_prefill(random_, Element::kBF16, {20000}, 4, 128, 0, 0), GetParam());
  expect_prefill(make_prefill(random_, Element::kBF16, {2048}, 16, 128, 0, 0), GetParam());
  expect_prefill(make_prefill(random_, Element::kBF16, {2047, 1500}, 64, 128, 0, 0), GetParam());
  expect_prefill(make_prefill(random_, Element::kBF16, {4000, 1}, 2, 64, 0, 0), GetParam());
}

TEST_P(Prefill, AnyHeadDimAndStride) {
  for (const int head_dim : {1, 7, 32, 63, 64, 80, 96, 128, 192, 256}) {
    for (const Element element : {Element::kF32, Element::kBF16}) {
      expect_prefill(
          make_prefill(random_, element, {37, 0, 90}, 3, head_dim, 4, static_cast<int>(random_() % 4)),
          GetParam());
    }
  }
  expect_prefill(make_prefill(random_, Element::kF32, {5000}, 2, 128, 0, 0), GetParam());
}

TEST_P(Prefill, EmptyBatches) {
  expect_prefill(make_prefill(random_, Element::kBF16, {0, 0, 0}, 2, 128, 0, 0), GetParam());
  expect_prefill(make_prefill(random_, Element::kBF16, {0, 0}, 2, 128, 70, 0), GetParam());
  expect_prefill(make_prefill(random_, Element::kBF16, {}, 2, 128, 70, 0), GetParam());
  expect_prefill(make_prefill(random_, Element::kF32, {}, 2, 40, 7, 0), GetParam());
}

// Chunked prefill: one sequence in pieces gives what it gives at once.
TEST_P(Prefill, ContinuesAState) {
  Contents whole = make_prefill(random_, Element::kBF16, {700}, 4, 128, 0, 0);
  whole.read_slots = {0};
  whole.write_slots = {0};
  const Expected expected = recurrence(whole);
  DeviceCase device(whole);
  LightningPrefillArgs args;
  device.fill(args, whole);
  args.state = reinterpret_cast<float*>(device.state.data());
  args.num_sequences = 1;
  args.sm = GetParam();
  DeviceBuffer<uint8_t> workspace(
      cuda::lightning_prefill_workspace_bytes(700, 1, 4, 128, Element::kBF16, args.sm));
  args.workspace = workspace.data();
  args.workspace_bytes = static_cast<int64_t>(workspace.bytes());
  int first = 0;
  for (const int rows : {1, 63, 200, 3, 433}) {
    DeviceBuffer<int32_t> starts(std::vector<int32_t>{0, rows});
    LightningPrefillArgs piece = args;
    for (Rows* part : {&piece.q, &piece.k, &piece.v, &piece.out}) {
      part->data = static_cast<uint8_t*>(part->data) + first * part->token_stride * 2;
    }
    piece.num_tokens = rows;
    piece.query_starts = starts.data();
    check(cuda::lightning_prefill(piece, nullptr));
    check(cudaDeviceSynchronize());
    first += rows;
  }
  const Errors errors = compare(whole, expected, decode(Element::kBF16, device.out.get()),
                                decode(Element::kF32, device.state.get()));
  EXPECT_LE(errors.out, 3e-3);
  EXPECT_LE(errors.state, 3e-3);
}

// A captured call follows what the buffers hold at replay.
TEST_P(Prefill, ReplaysAsAGraph) {
  Contents c = make_prefill(random_, Element::kBF16, {600, 200, 448}, 4, 128, 8, 0);
  DeviceCase device(c);
  LightningPrefillArgs args;
  device.fill(args, c);
  args.state = reinterpret_cast<float*>(device.state.data());
  args.query_starts = device.query_starts.data();
  args.num_tokens = c.tokens;
  args.num_sequences = 3;
  args.sm = GetParam();
  DeviceBuffer<uint8_t> workspace(
      cuda::lightning_prefill_workspace_bytes(c.tokens, 3, 4, 128, Element::kBF16, args.sm));
  args.workspace = workspace.data();
  args.workspace_bytes = static_cast<int64_t>(workspace.bytes());
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  check(cudaStreamCreate(&stream));
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  check(cuda::lightning_prefill(args, stream));
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&exec, graph, 0));
  for (const std::vector<int32_t>& starts : {std::vector<int32_t>{0, 0, 1248, 1249}, {0, 600, 800, 1256}}) {
    c.query_starts = starts;
    c.tokens = 1256;
    c.qkv.clear();
    c.fill(random_, starts.back());
    device.qkv.set(encode(Element::kBF16, c.qkv));
    device.state.set(encode(Element::kF32, c.state));
    device.decay.set(c.decay);
    device.query_starts.set(starts);
    device.out.poison();
    workspace.poison();
    check(cudaGraphLaunch(exec, stream));
    check(cudaStreamSynchronize(stream));
    const Errors errors = compare(c, recurrence(c), decode(Element::kBF16, device.out.get()),
                                  decode(Element::kF32, device.state.get()));
    EXPECT_LE(errors.out, 3e-3);
    EXPECT_LE(errors.state, 3e-3);
  }
  check(cudaGraphExecDestroy(exec));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
}

// The error of a thousand tokens, the figure that others publish.
TEST_P(Prefill, PrintsItsError) {
  Contents c = make_prefill(random_, Element::kBF16, {1024}, 16, 128, 0, 0);
  for (int head = 0; head < 16; ++head) c.decay[head] = std::exp2(-0.5F * static_cast<float>(head + 1));
  const Errors errors = run_prefill(c, GetParam());
  std::printf("sm_%d, 1,024 tokens, 16 heads: out %.2e, state %.2e\n", GetParam(), errors.out, errors.state);
  EXPECT_LE(errors.out, 3e-3);
  EXPECT_LE(errors.state, 3e-3);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Prefill, testing::Values(80, 90),
                         [](const auto& info) { return "sm" + std::to_string(info.param); });

class Decode : public testing::Test {
 protected:
  void SetUp() override {
    if (device_major() == 0) GTEST_SKIP() << "no CUDA device";
  }
};

Contents make_decode(std::mt19937& random, Element element, int batch, int heads, int head_dim, int pad) {
  Contents c;
  c.element = element;
  c.heads = heads;
  c.head_dim = head_dim;
  c.pad = pad;
  c.tokens = batch;
  for (int b = 0; b <= batch; ++b) c.query_starts.push_back(b);
  draw_slots(c, static_cast<std::size_t>(batch), random);
  c.fill(random, batch);
  return c;
}

// A row whose read slot is -1 is padding here: nothing is computed and nothing written.
Expected decode_expected(Contents c) {
  for (std::size_t b = 0; b < c.read_slots.size(); ++b) {
    if (c.read_slots[b] < 0) {
      c.write_slots[b] = -1;
      for (int head = 0; head < c.heads; ++head) {
        for (int i = 0; i < c.head_dim; ++i) c.qkv[c.at(static_cast<int64_t>(b), head, 0, i)] = 0;
      }
    }
  }
  return recurrence(c);
}

void expect_decode(Contents c, bool is_state_bf16) {
  if (is_state_bf16) {
    for (float& x : c.state) x = round_to(Element::kBF16, x);
  }
  DeviceCase device(c, is_state_bf16);
  LightningDecodeArgs args;
  device.fill(args, c);
  args.state = device.state.data();
  args.batch = c.tokens;
  args.is_state_bf16 = is_state_bf16;
  check(cuda::lightning_decode(args, nullptr));
  check(cudaDeviceSynchronize());
  const Expected expected = decode_expected(c);
  for (std::size_t b = 0; b < c.read_slots.size(); ++b) {
    if (c.read_slots[b] < 0) c.write_slots[b] = -1;
  }
  const Errors errors = compare(c, expected, decode(c.element, device.out.get()),
                                decode(is_state_bf16 ? Element::kBF16 : Element::kF32, device.state.get()));
  EXPECT_LE(errors.out, bound(c.element, c.head_dim)) << describe(c);
  EXPECT_LE(errors.state, bound(is_state_bf16 ? Element::kBF16 : Element::kF32, c.head_dim)) << describe(c);
}

TEST_F(Decode, SmallBatches) {
  std::mt19937 random(1);
  expect_decode(make_decode(random, Element::kBF16, 7, 3, 128, 0), false);
  expect_decode(make_decode(random, Element::kBF16, 5, 2, 64, 0), true);
  expect_decode(make_decode(random, Element::kF32, 3, 2, 40, 1), false);
}

TEST_F(Decode, AnyShape) {
  std::mt19937 random(2);
  for (int i = 0; i < 60; ++i) {
    const int dims[] = {128, 64, 128, 1, 7, 33, 96, 256};
    const Element element = random() % 3 == 0 ? Element::kF32 : Element::kBF16;
    const int pads[] = {0, 8, 1};
    expect_decode(make_decode(random, element, 1 + static_cast<int>(random() % 20),
                              1 + static_cast<int>(random() % 9), dims[i % 8], pads[random() % 3]),
                  random() % 2 == 0);
  }
  expect_decode(make_decode(random, Element::kBF16, 12, 64, 128, 0), false);
}

// Many steps in place: what rounding the state does. The F32 state must hold its bound, the BF16 state is
// measured.
TEST_F(Decode, PrintsTheErrorOfManySteps) {
  constexpr int kSteps = 4096;
  std::mt19937 random(3);
  Contents c = make_decode(random, Element::kF32, kSteps, 8, 128, 0);
  c.slots = 1;
  c.state.assign(c.state_at(1, 0), 0.0F);
  c.read_slots.assign(kSteps, 0);
  c.write_slots.assign(kSteps, 0);
  for (int head = 0; head < 8; ++head) c.decay[head] = std::exp2(-static_cast<float>(2 * head));
  Contents sequence = c;
  sequence.read_slots = {-1};
  sequence.write_slots = {0};
  sequence.query_starts = {0, kSteps};
  const Expected expected = recurrence(sequence);
  for (const bool is_state_bf16 : {false, true}) {
    DeviceCase device(c, is_state_bf16);
    LightningDecodeArgs args;
    device.fill(args, c);
    args.state = device.state.data();
    args.batch = 1;
    args.is_state_bf16 = is_state_bf16;
    const LightningDecodeArgs first = args;
    for (int64_t step = 0; step < kSteps; ++step) {
      for (Rows LightningDecodeArgs::*part : {&LightningDecodeArgs::q, &LightningDecodeArgs::k,
                                              &LightningDecodeArgs::v, &LightningDecodeArgs::out}) {
        (args.*part).data = static_cast<uint8_t*>((first.*part).data) + step * (first.*part).token_stride * 4;
      }
      check(cuda::lightning_decode(args, nullptr));
    }
    check(cudaDeviceSynchronize());
    const std::vector<float> out = decode(Element::kF32, device.out.get());
    for (int head = 0; head < 8; ++head) {
      std::vector<float> got;
      std::vector<double> want;
      for (int64_t t = kSteps - 256; t < kSteps; ++t) {
        got.insert(got.end(), &out[c.out_at(t, head)], &out[c.out_at(t, head)] + 128);
        want.insert(want.end(), &expected.out[c.out_at(t, head)], &expected.out[c.out_at(t, head)] + 128);
      }
      const double error = relative_error(got, want);
      std::printf("decode, %s state, decay 2^-%d: error of steps 3841 to 4096 %.2e\n",
                  is_state_bf16 ? "BF16" : "F32", 2 * head, error);
      if (!is_state_bf16) EXPECT_LE(error, 1e-5);
    }
  }
}

TEST(Arguments, AreChecked) {
  LightningPrefillArgs prefill;
  prefill.num_heads = 1;
  prefill.head_dim = 257;
  EXPECT_EQ(cuda::lightning_prefill(prefill, nullptr), cudaErrorInvalidValue);
  prefill.head_dim = 128;
  prefill.num_tokens = 4096;
  prefill.num_sequences = 1;
  EXPECT_GT(cuda::lightning_prefill_workspace_bytes(4096, 1, 1, 128, Element::kBF16, 90), 0);
  EXPECT_EQ(cuda::lightning_prefill(prefill, nullptr), cudaErrorInvalidValue) << "no workspace";
  LightningDecodeArgs decode;
  decode.batch = 1;
  EXPECT_EQ(cuda::lightning_decode(decode, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace minimax::cuda_test
