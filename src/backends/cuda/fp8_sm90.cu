// Products of many rows with 8-bit weights on Hopper: e4m3 codes of both sides through the tensor cores, dense
// and for experts.
//
// Weights are the rows of a warpgroup product and tokens its columns, so that a tile takes any number of
// tokens up to 128 in steps of 32: an expert's pairs are split evenly, and little is computed for nobody. The
// tensor cores add 128 inputs, whose sum is scaled and added to F32 sums; a tile of 256 weight rows by 128
// tokens is what registers hold of both. A fourth warpgroup's worth of registers belongs to one warp that
// copies: weights and codes by the copy engine, scales four bytes at a time. Blocks stay and take every
// gridDim.x-th tile.
#include "backends/cuda/expert_tile.cuh"
#include "backends/cuda/fp8_wgmma.cuh"

namespace minimax::cuda {
namespace {

enum class Kind { kDense, kUp, kDown };

constexpr int kWeightRows = 256;  // of a tile: 128 of w1 and the same 128 of w3, or 256 of one weight
constexpr int kTokens = 128;
constexpr int kTokenStep = 32;
constexpr int kDepth = 128;  // a group of inputs, and what a row of a swizzled box holds
constexpr int kStages = 4;
constexpr int kMathThreads = 256;
constexpr int kThreads = kMathThreads + 128;
constexpr int kWeightBytes = kWeightRows * kDepth;
constexpr int kStageBytes = kWeightBytes + kTokens * kDepth;
// Scales of a stage: one for each token, then those of the tile's upper and lower 128 weight rows.
constexpr int kStageScales = kTokens + 4;
// Outputs of 32 tokens on their way to memory, twice.
constexpr int kStagingBytes = 2 * kTokenStep * 256;
constexpr int kBarrierBytes = 2 * kStages * 8;
constexpr int kFixedBytes = kStages * kStageBytes + kStagingBytes + kStages * kStageScales * 4 + kBarrierBytes;
constexpr int kMapsOfExpert = 3;  // w1, w3, w2

struct ProductArgs {
  const float* x_scales = nullptr;  // [groups, x_scale_stride]
  int64_t x_scale_stride = 0;
  int rows = 0;     // of x, or all pairs
  int depth = 0;    // inputs
  int outputs = 0;  // rows of the weight, of kUp those of w1
  WeightView weight;
  // Experts:
  const ExpertPointers* table = nullptr;
  const CUtensorMap* maps = nullptr;  // [experts, 3]
  const int32_t* tiles = nullptr;     // [experts + 1]
  const int32_t* starts = nullptr;    // [experts + 1]
  int experts = 0;
  SwigluParams swiglu;
  bool applies_silu = false;
  bool stores_chunks = false;   // eight BF16 outputs at a time
  Matrix out;                   // [rows, outputs]; of kUp codes
  float* out_scales = nullptr;  // of kUp [outputs / 128, out_scale_stride]
  int64_t out_scale_stride = 0;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct Shared {
  uint32_t stages, staging, scales, barriers;
  const int32_t *tiles, *starts;

  __device__ uint32_t full(uint32_t stage) const { return barriers + stage * 8; }
  __device__ uint32_t empty(uint32_t stage) const { return barriers + (kStages + stage) * 8; }
  __device__ uint32_t scales_of(uint32_t stage) const { return scales + stage * kStageScales * 4; }
};

struct Tile {
  int expert = 0;
  int first = 0;  // row of x
  int count = 0;  // rows; 0: there is no such tile
  int output = 0;  // first row of the weight
  __device__ int width() const { return (count + kTokenStep - 1) / kTokenStep * kTokenStep; }
};

// Rows split evenly among as many tiles as they need.
__device__ inline void split_rows(int rows, int parts, int part, Tile& tile) {
  const int width = ((rows + parts - 1) / parts + kTokenStep - 1) / kTokenStep * kTokenStep;
  tile.first += part * width;
  tile.count = min(width, rows - part * width);
}

template <Kind kKind>
__device__ Tile find_tile(const ProductArgs& a, const Shared& shared, int index) {
  constexpr int kOutputs = kKind == Kind::kUp ? kWeightRows / 2 : kWeightRows;
  const int columns = (a.outputs + kOutputs - 1) / kOutputs;
  Tile tile;
  if constexpr (kKind == Kind::kDense) {
    // Tiles at work at one time share both tokens and weights.
    constexpr int kGroup = 16;
    const int parts = (a.rows + kTokens - 1) / kTokens;
    if (index >= parts * columns) return tile;
    const int first = index / (kGroup * columns) * kGroup, inside = index - first * columns;
    const int group = min(kGroup, parts - first);
    tile.output = inside / group * kOutputs;
    split_rows(a.rows, parts, first + inside % group, tile);
  } else {
    if (index >= shared.tiles[a.experts] * columns) return tile;
    int low = 0, high = a.experts;  // the last expert whose tiles begin at or before this one
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (shared.tiles[middle] * columns <= index ? low : high) = middle;
    }
    const int inside = index - shared.tiles[low] * columns;
    const int parts = shared.tiles[low + 1] - shared.tiles[low];
    tile.expert = low;
    tile.first = shared.starts[low];
    tile.output = inside / parts * kOutputs;
    split_rows(shared.starts[low + 1] - shared.starts[low], parts, inside % parts, tile);
  }
  return tile;
}

__device__ inline const WeightView& upper_weight(const ProductArgs& a, Kind kind, int expert) {
  if (kind == Kind::kDense) return a.weight;
  return kind == Kind::kUp ? a.table[expert].w1 : a.table[expert].w2;
}
__device__ inline const WeightView& lower_weight(const ProductArgs& a, Kind kind, int expert) {
  return kind == Kind::kUp ? a.table[expert].w3 : upper_weight(a, kind, expert);
}
// The scales of the block row that holds weight row n, or null behind the last.
__device__ inline const float* scales_of_row(const WeightView& w, int64_t n) {
  if (n >= w.rows) return nullptr;
  return static_cast<const float*>(w.scales) + (n + w.row_offset) / w.block_rows * w.scale_stride +
         w.column_offset / w.block_columns;
}

template <Kind kKind, bool kHasBlocks>
__device__ void copy_tiles(const ProductArgs& a, const CUtensorMap* x_map, const CUtensorMap* w_map,
                           const Shared& shared) {
  const int lane = threadIdx.x % 32;
  const int steps = (a.depth + kDepth - 1) / kDepth;
  constexpr bool kIsUp = kKind == Kind::kUp;
  uint32_t stage = 0, parity = 1;
  for (int index = blockIdx.x;; index += gridDim.x) {
    const Tile tile = find_tile<kKind>(a, shared, index);
    if (tile.count <= 0) return;
    const CUtensorMap *upper = w_map, *lower = w_map;
    if constexpr (kKind != Kind::kDense) {
      upper = a.maps + tile.expert * kMapsOfExpert + (kIsUp ? 0 : 2);
      lower = a.maps + tile.expert * kMapsOfExpert + (kIsUp ? 1 : 2);
      if (lane == 0) {
        ptx::acquire_map(upper);
        if (kIsUp) ptx::acquire_map(lower);
      }
    }
    const int lower_row = kIsUp ? tile.output : tile.output + kWeightRows / 2;
    const float* weight_scales = nullptr;
    if (kHasBlocks && lane < 2) {
      weight_scales = lane == 0 ? scales_of_row(upper_weight(a, kKind, tile.expert), tile.output)
                                : scales_of_row(lower_weight(a, kKind, tile.expert), lower_row);
    }
    const int width = tile.width();
    const float* x_scales = a.x_scales + tile.first + lane;
    for (int step = 0; step < steps; ++step) {
      ptx::barrier_wait(shared.empty(stage), parity);
      const uint32_t to = shared.stages + stage * kStageBytes;
      if (lane == 0) {
        const uint32_t full = shared.full(stage);
        ptx::barrier_arrive_expect(full, static_cast<uint32_t>(kWeightBytes + width * kDepth));
        ptx::copy_box(to, upper, full, step * kDepth, tile.output);
        ptx::copy_box(to + kWeightBytes / 2, lower, full, step * kDepth, lower_row);
        for (int row = 0; row < width; row += kTokenStep) {
          ptx::copy_box(to + static_cast<uint32_t>(kWeightBytes + row * kDepth), x_map, full, step * kDepth,
                        tile.first + row);
        }
      }
      const uint32_t scales = shared.scales_of(stage) + static_cast<uint32_t>(lane) * 4;
      for (int row = 0; row < width; row += kTokenStep) {
        const bool is_there = tile.first + row + lane < a.rows;
        ptx::copy_async_4(scales + static_cast<uint32_t>(row) * 4, is_there ? x_scales + row : a.x_scales,
                          is_there);
      }
      x_scales += a.x_scale_stride;
      if (kHasBlocks && lane < 2) {
        ptx::copy_async_4(scales + kTokens * 4, weight_scales == nullptr ? a.x_scales : weight_scales + step,
                          weight_scales != nullptr);
      }
      ptx::barrier_arrive_after_copies(shared.full(stage));
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
}

__device__ __forceinline__ float2 load_shared8(uint32_t address) {
  float2 value;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(value.x), "=f"(value.y) : "r"(address) : "memory");
  return value;
}
__device__ __forceinline__ float load_shared4(uint32_t address) {
  float value;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
  return value;
}

// A math thread's place, and the stage it will read next.
struct Math {
  int warpgroup, warp, lane;  // warp: in the warpgroup
  uint32_t stage = 0, parity = 0, buffer = 0;
};

// sums[half] of the tile's upper and lower 128 weight rows: element 4 j + 2 h + i is row 64 warpgroup + 16
// warp + lane / 4 + 8 h, token 8 j + 2 (lane % 4) + i.
template <int kWidth, bool kHasBlocks>
__device__ __forceinline__ void multiply(const Shared& shared, Math& m, int steps,
                                         float (&sums)[2][kWidth / 2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) sums[half][i] = 0;
  }
  for (int step = 0; step < steps; ++step) {
    ptx::barrier_wait(shared.full(m.stage), m.parity);
    const uint32_t stage = shared.stages + m.stage * kStageBytes;
    const uint32_t scales = shared.scales_of(m.stage);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float c[kWidth / 2];
      const uint32_t weights = stage + static_cast<uint32_t>(half * 128 + m.warpgroup * 64) * kDepth;
#pragma unroll
      for (int i = 0; i < kWidth / 2; ++i) asm volatile("" : "+f"(c[i])::"memory");
      ptx::wgmma_fence();
#pragma unroll
      for (uint32_t k = 0; k < kDepth / 32; ++k) {
        ptx::wgmma_e4m3(c, ptx::operand_along_k(weights + k * 32),
                        ptx::operand_along_k(stage + kWeightBytes + k * 32), k > 0);
      }
      ptx::wgmma_commit();
      const float weight_scale = kHasBlocks ? load_shared4(scales + (kTokens + half) * 4) : 1.0F;
      ptx::wgmma_wait<0>();
#pragma unroll
      for (int i = 0; i < kWidth / 2; ++i) asm volatile("" : "+f"(c[i])::"memory");
#pragma unroll
      for (int j = 0; j < kWidth / 8; ++j) {
        float2 s = load_shared8(scales + static_cast<uint32_t>(8 * j + m.lane % 4 * 2) * 4);
        if (kHasBlocks) s = {s.x * weight_scale, s.y * weight_scale};
        sums[half][4 * j] += c[4 * j] * s.x;
        sums[half][4 * j + 1] += c[4 * j + 1] * s.y;
        sums[half][4 * j + 2] += c[4 * j + 2] * s.x;
        sums[half][4 * j + 3] += c[4 * j + 3] * s.y;
      }
    }
    __syncwarp();
    if (m.lane == 0) ptx::barrier_arrive(shared.empty(m.stage));
    if (++m.stage == kStages) {
      m.stage = 0;
      m.parity ^= 1;
    }
  }
}

// Scales that are not a block's, of whole rows.
template <int kWidth>
__device__ __forceinline__ void scale_rows(const WeightView& w, int row, float (&sums)[kWidth]) {
  float factors[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float* scale = scales_of_row(w, row + 8 * h);
    factors[h] = scale == nullptr ? 0.0F : *scale;
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sums[i] *= factors[i / 2 % 2];
}

__device__ __forceinline__ float fast_swiglu(const SwigluParams& p, float gate, float up) {
  const float g = fminf(gate, p.limit);
  const float u = fminf(fmaxf(up, -p.limit), p.limit);
  return (u + p.up_offset) * __fdividef(g, 1.0F + __expf(-p.alpha * g));
}

// The 16-byte place of eight outputs of a token among those of 32 tokens.
template <int kChunks>
__device__ __forceinline__ uint32_t staged(int token, int chunk) {
  return static_cast<uint32_t>(token * kChunks * 16 + ((chunk ^ (token & 7)) * 16));
}
// Fragments of 32 tokens from `first` on, transposed, so that a token's outputs lie side by side.
template <int kChunks, int kWidth>
__device__ __forceinline__ void stage_outputs(uint32_t buffer, const Math& m, int first_chunk,
                                              const float (&values)[kWidth], int first) {
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    const float* v = values + (first / 8 + 2 * pair) * 4;
    const int token = 16 * pair + m.lane / 16 * 8 + m.lane % 8;
    const int chunk = first_chunk + m.warp * 2 + m.lane / 8 % 2;
    ptx::store_matrix_x4_trans(buffer + staged<kChunks>(token, chunk), pack_bf16(v[0], v[1]),
                               pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
  }
}

// Eight numbers as codes of a scale that sixteen neighbouring lanes share.
__device__ __forceinline__ uint2 encode_eight(const float (&values)[8], float& scale) {
  float largest = 0;
#pragma unroll
  for (float value : values) largest = fmaxf(largest, fabsf(value));
#pragma unroll
  for (int i = 8; i > 0; i >>= 1) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, i));
  scale = fmaxf(largest / 448.0F, 1e-10F);
  uint32_t codes[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    codes[i] = __nv_cvt_float2_to_fp8x2({values[2 * i] / scale, values[2 * i + 1] / scale}, __NV_SATFINITE,
                                        __NV_E4M3);
  }
  return {codes[0] | codes[1] << 16, codes[2] | codes[3] << 16};
}

// SwiGLU of the tile's 128 gates and ups of each token, which share a scale, as codes.
template <int kWidth>
__device__ __forceinline__ void store_hidden(const ProductArgs& a, const Shared& shared, Math& m,
                                             const Tile& tile, float (&sums)[2][kWidth / 2]) {
#pragma unroll
  for (int i = 0; i < kWidth / 2; ++i) sums[0][i] = fast_swiglu(a.swiglu, sums[0][i], sums[1][i]);
#pragma unroll
  for (int first = 0; first < kWidth; first += kTokenStep) {
    const uint32_t buffer = shared.staging + m.buffer * (kStagingBytes / 2);
    m.buffer ^= 1;
    stage_outputs<16>(buffer, m, m.warpgroup * 8, sums[0], first);
    ptx::named_barrier(1, kMathThreads);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = static_cast<int>(threadIdx.x) / 16 + 16 * i, chunk = threadIdx.x % 16;
      const uint4 raw = ptx::load_shared16(buffer + staged<16>(token, chunk));
      const float values[8] = {ptx::low_float(raw.x), ptx::high_float(raw.x), ptx::low_float(raw.y),
                               ptx::high_float(raw.y), ptx::low_float(raw.z), ptx::high_float(raw.z),
                               ptx::low_float(raw.w), ptx::high_float(raw.w)};
      float scale;
      const uint2 codes = encode_eight(values, scale);
      const int64_t row = tile.first + first + token;
      if (first + token >= tile.count || tile.output + chunk * 8 >= a.outputs) continue;
      *reinterpret_cast<uint2*>(static_cast<uint8_t*>(a.out.data) + row * a.out.stride + tile.output +
                                chunk * 8) = codes;
      if (chunk == 0) a.out_scales[tile.output / kDepth * a.out_scale_stride + row] = scale;
    }
  }
}

template <int kWidth>
__device__ __forceinline__ void store_in_chunks(const ProductArgs& a, const Shared& shared, Math& m,
                                                const Tile& tile, const float (&sums)[kWidth / 2],
                                                int output) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
#pragma unroll
  for (int first = 0; first < kWidth; first += kTokenStep) {
    const uint32_t buffer = shared.staging + (m.warpgroup * 2 + m.buffer) * (kStagingBytes / 4);
    m.buffer ^= 1;
    stage_outputs<8>(buffer, m, 0, sums, first);
    ptx::named_barrier(2 + m.warpgroup, 128);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = thread / 8 + 16 * i, chunk = thread % 8;
      const uint4 values = ptx::load_shared16(buffer + staged<8>(token, chunk));
      if (first + token >= tile.count || output + chunk * 8 >= a.outputs) continue;
      const int64_t row = tile.first + first + token;
      *reinterpret_cast<uint4*>(static_cast<bf16_t*>(a.out.data) + row * a.out.stride + output + chunk * 8) =
          values;
    }
  }
}

template <typename Out, int kWidth>
__device__ __forceinline__ void store_one_by_one(const ProductArgs& a, const Math& m, const Tile& tile,
                                                 const float (&sums)[kWidth], int output) {
  const int n = output + m.warp * 16 + m.lane / 4;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int token = i / 4 * 8 + m.lane % 4 * 2 + i % 2, row = n + i / 2 % 2 * 8;
    if (token >= tile.count || row >= a.outputs) continue;
    static_cast<Out*>(a.out.data)[(tile.first + token) * a.out.stride + row] = from_f32<Out>(sums[i]);
  }
}

template <Kind kKind, bool kHasBlocks, int kWidth>
__device__ __forceinline__ void compute_tile(const ProductArgs& a, const Shared& shared, Math& m,
                                             const Tile& tile) {
  float sums[2][kWidth / 2];
  multiply<kWidth, kHasBlocks>(shared, m, (a.depth + kDepth - 1) / kDepth, sums);
  const int row = m.warpgroup * 64 + m.warp * 16 + m.lane / 4;
  if (!kHasBlocks) {
    scale_rows(upper_weight(a, kKind, tile.expert), tile.output + row, sums[0]);
    scale_rows(lower_weight(a, kKind, tile.expert), tile.output + row + (kKind == Kind::kUp ? 0 : 128),
               sums[1]);
  }
  if constexpr (kKind == Kind::kUp) {
    store_hidden<kWidth>(a, shared, m, tile, sums);
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int output = tile.output + half * 128 + m.warpgroup * 64;
      if (kKind == Kind::kDense && a.applies_silu) {
#pragma unroll
        for (float& sum : sums[half]) sum = silu(sum);
      }
      if (kKind == Kind::kDown || a.stores_chunks) {
        store_in_chunks<kWidth>(a, shared, m, tile, sums[half], output);
      } else if (a.out.scalar == Scalar::kBF16) {
        store_one_by_one<bf16_t>(a, m, tile, sums[half], output);
      } else {
        store_one_by_one<float>(a, m, tile, sums[half], output);
      }
    }
  }
}

template <Kind kKind, bool kHasBlocks>
__device__ void compute_tiles(const ProductArgs& a, const Shared& shared) {
  Math m{static_cast<int>(threadIdx.x) / 128, static_cast<int>(threadIdx.x) / 32 % 4,
         static_cast<int>(threadIdx.x) % 32};
  for (int index = blockIdx.x;; index += gridDim.x) {
    const Tile tile = find_tile<kKind>(a, shared, index);
    if (tile.count <= 0) return;
    switch (tile.width()) {
      case 32:
        compute_tile<kKind, kHasBlocks, 32>(a, shared, m, tile);
        break;
      case 64:
        compute_tile<kKind, kHasBlocks, 64>(a, shared, m, tile);
        break;
      case 96:
        compute_tile<kKind, kHasBlocks, 96>(a, shared, m, tile);
        break;
      default:
        compute_tile<kKind, kHasBlocks, 128>(a, shared, m, tile);
    }
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <Kind kKind, bool kHasBlocks>
__global__ void __launch_bounds__(kThreads, 1)
    fp8_product_kernel(const __grid_constant__ ProductArgs a, const __grid_constant__ CUtensorMap x_map,
                       const __grid_constant__ CUtensorMap w_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint8_t bytes[];
  Shared shared;
  shared.stages = ptx::shared_address(bytes);
  shared.staging = shared.stages + kStages * kStageBytes;
  shared.scales = shared.staging + kStagingBytes;
  shared.barriers = shared.scales + kStages * kStageScales * 4;
  auto* tiles = reinterpret_cast<int32_t*>(bytes + kFixedBytes);
  int32_t* starts = tiles + a.experts + 1;
  shared.tiles = tiles;
  shared.starts = starts;
  if (kKind != Kind::kDense) {
    for (int e = threadIdx.x; e <= a.experts; e += kThreads) {
      tiles[e] = a.tiles[e];
      starts[e] = a.starts[e];
    }
  }
  if (threadIdx.x == 0) {
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      ptx::barrier_init(shared.full(stage), 33);
      ptx::barrier_init(shared.empty(stage), kMathThreads / 32);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= kMathThreads) {
    ptx::give_registers<40>();
    if (threadIdx.x < kMathThreads + 32) copy_tiles<kKind, kHasBlocks>(a, &x_map, &w_map, shared);
  } else {
    ptx::take_registers<232>();
    compute_tiles<kKind, kHasBlocks>(a, shared);
  }
#endif
}

// --- host

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found at run time: nothing links the driver.
EncodeTiled encode_tiled() {
  static const EncodeTiled found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                               cudaEnableDefault, &result);
    const bool is_found = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return is_found ? reinterpret_cast<EncodeTiled>(function) : nullptr;
  }();
  return found;
}

// Codes [rows, columns], read in boxes of kDepth columns.
CUtensorMap make_map(const void* codes, int64_t rows, int64_t columns, int64_t stride, int box_rows) {
  CUtensorMap map = {};
  const EncodeTiled encode = encode_tiled();
  if (encode == nullptr) return map;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(stride)};
  const cuuint32_t box[] = {kDepth, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(codes), sizes, strides, box, steps,
         CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return map;
}
CUtensorMap make_weight_map(const WeightView& w) {
  return make_map(w.values, w.rows, w.columns, w.stride, kWeightRows / 2);
}
CUtensorMap make_rows_map(const CodedRows& x) {
  return make_map(x.codes, x.rows, x.columns, x.columns, kTokenStep);
}

// A scale a block of 128 x 128, else one for the whole of a row.
bool has_blocks(const WeightView& w) { return w.block_columns < w.columns + w.column_offset; }

int multiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

template <Kind kKind>
void launch_product(const ProductArgs& a, bool with_blocks, const CUtensorMap& x_map,
                    const CUtensorMap& w_map, int64_t tiles, cudaStream_t stream) {
  const auto kernel = with_blocks ? fp8_product_kernel<kKind, true> : fp8_product_kernel<kKind, false>;
  const int bytes = kFixedBytes + 2 * (a.experts + 1) * static_cast<int>(sizeof(int32_t));
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  const int64_t most = multiprocessors();
  kernel<<<static_cast<unsigned>(tiles < most ? tiles : most), kThreads, static_cast<size_t>(bytes), stream>>>(
      a, x_map, w_map);
}

// --- around the products of experts

// Maps [experts, 3] of all weights, each from the one of its kind.
__global__ void expert_maps_kernel(const ExpertPointers* table, int experts,
                                   const __grid_constant__ CUtensorMap up,
                                   const __grid_constant__ CUtensorMap down, CUtensorMap* maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= experts * kMapsOfExpert) return;
  const ExpertPointers& expert = table[index / kMapsOfExpert];
  const int which = index % kMapsOfExpert;
  const WeightView& w = which == 0 ? expert.w1 : which == 1 ? expert.w3 : expert.w2;
  const auto* from = reinterpret_cast<const uint4*>(which == 2 ? &down : &up);
  auto* to = reinterpret_cast<uint4*>(maps + index);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(CUtensorMap) / sizeof(uint4)); ++i) to[i] = from[i];
  ptx::redirect_map(maps + index, w.values, static_cast<uint64_t>(w.stride));
  ptx::release_maps();
#endif
}

// out[t] = the weighted sum of the rows of t's pairs, eight columns a thread.
template <typename Out>
__global__ void combine_kernel(MoeArgs a, const bf16_t* rows) {
  ptx::wait_for_previous_kernel();
  const int64_t t = blockIdx.x;
  const int64_t i = 8 * (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x);
  if (i >= a.out.columns) return;
  float sums[8] = {};
  for (int64_t j = 0; j < a.top_k; ++j) {
    const int64_t pair = t * a.top_k + j;
    const int32_t place = a.order.places[pair];
    if (place < 0) continue;
    const float weight = a.weights[pair];
    const uint4 raw = *reinterpret_cast<const uint4*>(rows + place * a.out.columns + i);
    const uint32_t parts[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      sums[2 * c] += weight * ptx::low_float(parts[c]);
      sums[2 * c + 1] += weight * ptx::high_float(parts[c]);
    }
  }
  Out* to = static_cast<Out*>(a.out.data) + t * a.out.stride + i;
#pragma unroll
  for (int c = 0; c < 8; ++c) to[c] = from_f32<Out>(sums[c]);
}

void launch_combine(const MoeArgs& a, const void* rows, cudaStream_t stream) {
  constexpr int kCombineThreads = 128;
  const dim3 grid(static_cast<unsigned>(a.out.rows),
                  static_cast<unsigned>(ceil_div(a.out.columns, 8 * kCombineThreads)));
  with_activation(a.out.scalar, [&](auto o) {
    launch(combine_kernel<decltype(o)>, grid, kCombineThreads, 0, stream, a,
           static_cast<const bf16_t*>(rows));
  });
}

}  // namespace

bool can_multiply_codes(const WeightView& w) {
  if (w.scalar != Scalar::kE4m3 || w.scale_scalar != Scalar::kF32 || w.scales == nullptr) return false;
  const bool is_blocked = w.block_rows == kDepth && w.block_columns == kDepth && w.row_offset % kDepth == 0 &&
                          w.column_offset % kDepth == 0;
  return (is_blocked || !has_blocks(w)) && w.columns > 0 && w.columns % 16 == 0 && w.stride % 16 == 0 &&
         reinterpret_cast<uintptr_t>(w.values) % 16 == 0;
}

void launch_linear_codes(const CodedRows& x, const WeightView& w, bool applies_silu, const Matrix& out,
                         cudaStream_t stream) {
  if (x.rows == 0 || w.rows == 0) return;
  ProductArgs a;
  a.x_scales = x.scales;
  a.x_scale_stride = x.scale_stride;
  a.rows = static_cast<int>(x.rows);
  a.depth = static_cast<int>(w.columns);
  a.outputs = static_cast<int>(w.rows);
  a.weight = w;
  a.applies_silu = applies_silu;
  a.stores_chunks = out.scalar == Scalar::kBF16 && out.stride % 8 == 0 && w.rows % 8 == 0 &&
                    reinterpret_cast<uintptr_t>(out.data) % 16 == 0;
  a.out = out;
  launch_product<Kind::kDense>(a, has_blocks(w), make_rows_map(x), make_weight_map(w),
                               ceil_div(x.rows, kTokens) * ceil_div(w.rows, kWeightRows), stream);
}

int64_t expert_map_bytes(int64_t experts) {
  return experts * kMapsOfExpert * static_cast<int64_t>(sizeof(CUtensorMap));
}

bool can_moe_codes(const MoeArgs& moe) {
  constexpr int64_t kMostExperts = 1024;
  return can_multiply_codes(moe.first.w1) && can_multiply_codes(moe.first.w3) &&
         can_multiply_codes(moe.first.w2) && has_blocks(moe.first.w1) == has_blocks(moe.first.w3) &&
         moe.experts <= kMostExperts;
}

void launch_moe_codes(const MoeCodes& codes, cudaStream_t stream) {
  static_assert(kTokens == kExpertTileRows);
  const MoeArgs& moe = codes.moe;
  if (moe.x.rows == 0) return;
  auto* maps = static_cast<CUtensorMap*>(codes.maps);
  const auto experts = static_cast<int>(moe.experts);
  constexpr int kMapThreads = 128;
  expert_maps_kernel<<<static_cast<unsigned>(ceil_div(experts * kMapsOfExpert, kMapThreads)), kMapThreads, 0,
                       stream>>>(moe.table, experts, make_weight_map(moe.first.w1),
                                 make_weight_map(moe.first.w2), maps);
  ProductArgs a;
  a.rows = static_cast<int>(moe.x.rows * moe.top_k);
  a.table = moe.table;
  a.maps = maps;
  a.tiles = moe.order.tiles;
  a.starts = moe.order.starts;
  a.experts = experts;
  a.swiglu = moe.swiglu;
  a.x_scales = codes.x.scales;
  a.x_scale_stride = codes.x.scale_stride;
  a.depth = static_cast<int>(moe.x.columns);
  a.outputs = static_cast<int>(moe.intermediate);
  a.out.data = codes.hidden.codes;
  a.out.stride = codes.hidden.columns;
  a.out_scales = codes.hidden.scales;
  a.out_scale_stride = codes.hidden.scale_stride;
  const int64_t tiles = most_expert_tiles(moe);
  launch_product<Kind::kUp>(a, has_blocks(moe.first.w1), make_rows_map(codes.x), {},
                            tiles * ceil_div(moe.intermediate, kWeightRows / 2), stream);
  a.x_scales = codes.hidden.scales;
  a.x_scale_stride = codes.hidden.scale_stride;
  a.depth = static_cast<int>(moe.intermediate);
  a.outputs = static_cast<int>(moe.out.columns);
  a.out = {codes.rows, a.rows, moe.out.columns, moe.out.columns, Scalar::kBF16};
  launch_product<Kind::kDown>(a, has_blocks(moe.first.w2), make_rows_map(codes.hidden), {},
                              tiles * ceil_div(moe.out.columns, kWeightRows), stream);
  launch_combine(moe, codes.rows, stream);
}

}  // namespace minimax::cuda
