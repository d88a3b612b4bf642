// One call of a lightning attention kernel with random contents, and the same in float64 on the host.
#pragma once

#include <cuda_bf16.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "backends/cuda/lightning.h"
#include "tests/cuda/device_buffer.h"

namespace minimax::cuda_test {

using cuda::Element;
using cuda::Rows;

inline int64_t element_bytes(Element element) { return element == Element::kF32 ? 4 : 2; }

inline float round_to(Element element, float x) {
  return element == Element::kF32 ? x : __bfloat162float(__float2bfloat16_rn(x));
}

// Values as raw bytes of `element`.
inline std::vector<uint8_t> encode(Element element, const std::vector<float>& values) {
  std::vector<uint8_t> bytes(values.size() * element_bytes(element));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (element == Element::kF32) {
      std::memcpy(bytes.data() + 4 * i, &values[i], 4);
    } else {
      const __nv_bfloat16 x = __float2bfloat16_rn(values[i]);
      std::memcpy(bytes.data() + 2 * i, &x, 2);
    }
  }
  return bytes;
}

inline std::vector<float> decode(Element element, const std::vector<uint8_t>& bytes) {
  std::vector<float> values(bytes.size() / element_bytes(element));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (element == Element::kF32) {
      std::memcpy(&values[i], bytes.data() + 4 * i, 4);
    } else {
      __nv_bfloat16 x;
      std::memcpy(&x, bytes.data() + 2 * i, 2);
      values[i] = __bfloat162float(x);
    }
  }
  return values;
}

// ||a - b|| / ||b||, infinite if a is not finite.
inline double relative_error(const std::vector<float>& a, const std::vector<double>& b) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

// Host contents of a call: q, k, v in one buffer [tokens, heads, 3, head_dim + pad], states in F32.
struct Contents {
  Element element = Element::kBF16;
  int heads = 0;
  int head_dim = 0;
  int pad = 0;  // elements between rows, to break alignment
  int64_t tokens = 0;
  int slots = 0;
  std::vector<int32_t> read_slots, write_slots, query_starts;
  std::vector<float> decay, qkv, state;

  int64_t row() const { return head_dim + pad; }
  std::size_t at(int64_t token, int head, int part, int i) const {
    return static_cast<std::size_t>(((token * heads + head) * 3 + part) * row() + i);
  }
  std::size_t state_at(int slot, int head) const {
    return (static_cast<std::size_t>(slot) * heads + head) * head_dim * head_dim;
  }
  std::size_t out_at(int64_t token, int head) const {
    return static_cast<std::size_t>(token * heads + head) * head_dim;
  }

  // Random values in [-2, 2) and states three times as large; tokens from `owned` on are NaN.
  void fill(std::mt19937& random, int64_t owned) {
    const auto normal = [](std::mt19937& bits) { return static_cast<float>(bits()) * 0x1.0p-30F - 2.0F; };
    qkv.resize(at(tokens, 0, 0, 0));
    for (float& x : qkv) x = round_to(element, normal(random));
    for (std::size_t i = at(owned, 0, 0, 0); i < qkv.size(); ++i) qkv[i] = std::nanf("");
    state.resize(state_at(slots, 0));
    for (float& x : state) x = 3 * normal(random);
    const float rates[] = {0.917F, 0.0039F, 0.0F, 5e-5F, 0.25F, 20.0F, 0.06F};
    decay.resize(heads);
    for (int head = 0; head < heads; ++head) decay[head] = rates[(head + random() % 7) % 7];
  }
};

struct Expected {
  std::vector<double> out, state;
};

// Steps one head of one sequence.
inline void step(const Contents& c, std::vector<double>& s, int64_t token, int head, double* out) {
  const double decay = std::exp(-static_cast<double>(c.decay[head]));
  const int d = c.head_dim;
  const float* q = &c.qkv[c.at(token, head, 0, 0)];
  const float* k = &c.qkv[c.at(token, head, 1, 0)];
  const float* v = &c.qkv[c.at(token, head, 2, 0)];
  for (int i = 0; i < d; ++i) {
    double* row = &s[static_cast<std::size_t>(i) * d];
    const double ki = k[i];
    const double qi = q[i];
    for (int j = 0; j < d; ++j) {
      row[j] = decay * row[j] + ki * v[j];
      out[j] += qi * row[j];
    }
  }
}

// The definition, in float64. Sequence b has the tokens that query_starts say.
inline Expected recurrence(const Contents& c) {
  Expected expected;
  expected.out.assign(c.out_at(c.tokens, 0), 0.0);
  expected.state.assign(c.state.begin(), c.state.end());
  const std::size_t size = static_cast<std::size_t>(c.head_dim) * c.head_dim;
  const auto run_head = [&](int head) {
    for (std::size_t b = 0; b < c.read_slots.size(); ++b) {
      std::vector<double> s(size, 0.0);
      if (c.read_slots[b] >= 0) {
        const float* from = &c.state[c.state_at(c.read_slots[b], head)];
        s.assign(from, from + size);
      }
      for (int64_t t = c.query_starts[b]; t < c.query_starts[b + 1]; ++t) {
        step(c, s, t, head, &expected.out[c.out_at(t, head)]);
      }
      if (c.write_slots[b] >= 0)
        std::copy(s.begin(), s.end(), &expected.state[c.state_at(c.write_slots[b], head)]);
    }
  };
  std::vector<std::thread> threads;
  for (int head = 0; head < c.heads; ++head) threads.emplace_back(run_head, head);
  for (std::thread& thread : threads) thread.join();
  return expected;
}

// The contents on the device.
struct DeviceCase {
  explicit DeviceCase(const Contents& c, bool is_state_bf16 = false)
      : qkv(encode(c.element, c.qkv)),
        out(c.out_at(c.tokens, 0) * element_bytes(c.element)),
        state(encode(is_state_bf16 ? Element::kBF16 : Element::kF32, c.state)),
        decay(c.decay),
        read_slots(c.read_slots),
        write_slots(c.write_slots),
        query_starts(c.query_starts) {}

  template <typename Args>
  void fill(Args& args, const Contents& c) const {
    const int64_t bytes = element_bytes(c.element);
    const auto part = [&](int i) {
      return Rows{qkv.data() + i * c.row() * bytes, 3 * c.heads * c.row(), 3 * c.row()};
    };
    args.q = part(0);
    args.k = part(1);
    args.v = part(2);
    args.out = {out.data(), static_cast<int64_t>(c.heads) * c.head_dim, c.head_dim};
    args.decay = decay.data();
    args.read_slots = read_slots.data();
    args.write_slots = write_slots.data();
    args.num_heads = c.heads;
    args.head_dim = c.head_dim;
    args.element = c.element;
  }

  DeviceBuffer<uint8_t> qkv, out, state;
  DeviceBuffer<float> decay;
  DeviceBuffer<int32_t> read_slots, write_slots, query_starts;
};

}  // namespace minimax::cuda_test
