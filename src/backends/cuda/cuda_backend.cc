// The device: memory, streams, copies, recorded steps. The ops are in cuda_ops.cc.
#include "backends/cuda/cuda_backend.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/cuda/cuda_ops.h"

namespace minimax::cuda {
namespace {

constexpr int64_t kGemmWorkspaceBytes = int64_t{32} << 20U;
constexpr int64_t kBlockBytes = int64_t{512} << 20U;
constexpr int64_t kBufferBytes = int64_t{32} << 20U;
constexpr int64_t kWeightAlignment = 256;

// What a thread does, it does on the device chosen last. Every call that begins or ends a step chooses, so
// that the ops between them run on their own device whichever thread runs them.
void choose(int device) { check(cudaSetDevice(device), fmt::format("choice of device {}", device)); }

Event make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
  return Event(event);
}

class CudaGraph final : public ops::StepGraph {
 public:
  CudaGraph(cudaGraphExec_t exec, cudaStream_t stream) : exec_(exec), stream_(stream) {}
  ~CudaGraph() override { cudaGraphExecDestroy(exec_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  void launch() override { check(cudaGraphLaunch(exec_, stream_), "launch of a recorded step"); }

 private:
  cudaGraphExec_t exec_;
  cudaStream_t stream_;
};

Stream make_stream(int device) {
  choose(device);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  return Stream(stream);
}

}  // namespace

std::string cuda_problem() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) return fmt::format("no GPU: {}", cudaGetErrorString(code));
  return count == 0 ? "no GPU" : "";
}

CudaDevice describe_cuda_device(int device) {
  if (const std::string problem = cuda_problem(); !problem.empty())
    fail("cuda: {}; use --device cpu", problem);
  int count = 0;
  check(cudaGetDeviceCount(&count), "count of devices");
  if (device < 0 || device >= count)
    fail("cuda: device {} was asked for; there are 0 to {}", device, count - 1);
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "properties of the device");
  return {properties.name, properties.major * 10 + properties.minor, properties.multiProcessorCount,
          static_cast<int64_t>(properties.totalGlobalMem)};
}

std::string describe_cuda(const CudaOptions& options) {
  const CudaDevice device = describe_cuda_device(options.device);
  const int best = device.capability == 90 ? 90 : 80;
  return fmt::format("{}, kernels for SM{}", device.name,
                     options.architecture == 0 ? best : options.architecture);
}

CudaBackend::CudaBackend(const CudaOptions& options)
    : options_(options), stream_(make_stream(options.device)), store_(*this, stream_.get()) {
  const CudaDevice device = describe_cuda_device(options.device);
  if (device.capability < 80) {
    fail("cuda: {} has compute capability {}.{}; 8.0 or newer is needed, or --device cpu", device.name,
         device.capability / 10, device.capability % 10);
  }
  const int best = device.capability == 90 ? 90 : 80;
  architecture_ = options.architecture == 0 ? best : options.architecture;
  if (architecture_ != 80 && architecture_ != best)
    fail("cuda: kernels for SM{} were asked for; {} runs those for SM{}", architecture_, device.name, best);
  multiprocessors_ = device.multiprocessors;
  gemm_ = std::make_unique<Gemm>(allocate(kGemmWorkspaceBytes));
  arrivals_ = allocate(kMostArrivals * static_cast<int64_t>(sizeof(int32_t)));
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(options_.device);
  cudaStreamSynchronize(stream_.get());
}

Memory CudaBackend::allocate(int64_t bytes) {
  choose(options_.device);
  if (bytes <= 0) return {nullptr, 0, device(), [](std::byte*) {}};
  void* data = nullptr;
  if (cudaMalloc(&data, static_cast<size_t>(bytes)) != cudaSuccess) {
    cudaGetLastError();
    fail(
        "cuda: device {}: {} bytes were asked for, {} are free; use a shorter context, fewer sequences or "
        "layers",
        options_.device, bytes, available_bytes());
  }
  Memory memory(static_cast<std::byte*>(data), bytes, device(), [](std::byte* p) { cudaFree(p); });
  check(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), stream_.get()), "zeroes");
  check(cudaStreamSynchronize(stream_.get()), "zeroes");
  return memory;
}

Memory CudaBackend::allocate_staging(int64_t bytes) {
  choose(options_.device);
  if (bytes <= 0) return {};
  void* data = nullptr;
  check(cudaMallocHost(&data, static_cast<size_t>(bytes)),
        fmt::format("{} bytes of pinned host memory", bytes));
  std::memset(data, 0, static_cast<size_t>(bytes));
  return {static_cast<std::byte*>(data), bytes, Device{}, [](std::byte* p) { cudaFreeHost(p); }};
}

void CudaBackend::upload(void* device, const void* host, int64_t bytes) {
  choose(options_.device);
  if (bytes == 0) return;
  check(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_.get()),
        "upload");
}

void CudaBackend::upload_rows(void* device, const void* host, int64_t row_bytes, int64_t stride_bytes,
                              int64_t rows) {
  if (row_bytes == 0 || rows == 0) return;
  const auto stride = static_cast<size_t>(stride_bytes);
  check(cudaMemcpy2DAsync(device, stride, host, stride, static_cast<size_t>(row_bytes),
                          static_cast<size_t>(rows), cudaMemcpyHostToDevice, stream_.get()),
        "upload");
}

void CudaBackend::download(void* host, const void* device, int64_t bytes) {
  choose(options_.device);
  if (bytes == 0) return;
  check(cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_.get()),
        "download");
}

void CudaBackend::synchronize() {
  choose(options_.device);
  check(cudaStreamSynchronize(stream_.get()), "a step");
}

int64_t CudaBackend::available_bytes() const {
  choose(options_.device);
  size_t available = 0, total = 0;
  check(cudaMemGetInfo(&available, &total), "free memory");
  return static_cast<int64_t>(available);
}

std::unique_ptr<ops::StepGraph> CudaBackend::capture(const std::function<void()>& step) {
  choose(options_.device);
  check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "begin of a recording");
  cudaGraph_t graph = nullptr;
  try {
    step();
  } catch (...) {
    cudaStreamEndCapture(stream_.get(), &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  check(cudaStreamEndCapture(stream_.get(), &graph), "end of a recording");
  cudaGraphExec_t exec = nullptr;
  const cudaError_t code = cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  check(code, "preparation of a recorded step");
  return std::make_unique<CudaGraph>(exec, stream_.get());
}

std::byte* WeightStore::place(int64_t bytes) {
  const int64_t size = (bytes + kWeightAlignment - 1) / kWeightAlignment * kWeightAlignment;
  if (blocks_.empty() || used_ + size > blocks_.back().size_bytes()) {
    blocks_.push_back(backend_.allocate(std::max(size, kBlockBytes)));
    used_ = 0;
  }
  std::byte* result = blocks_.back().data() + used_;
  used_ += size;
  return result;
}

std::byte* WeightStore::next_buffer() {
  const int i = next_;
  next_ = 1 - next_;
  if (done_[i] == nullptr) {
    buffers_[i] = backend_.allocate_staging(kBufferBytes);
    done_[i] = make_event();
  } else {
    check(cudaEventSynchronize(done_[i].get()), "copy of weights");
  }
  return buffers_[i].data();
}

void WeightStore::copy(std::byte* to, const Tensor& host) {
  // Dense tensors are one row; others are packed row by row.
  const bool is_dense = host.is_contiguous();
  const int64_t rows = is_dense ? 1 : host.dim(0);
  const int64_t row_bytes = rows == 0 ? 0 : host.size_bytes() / rows;
  const int64_t stride_bytes = is_dense ? row_bytes : host.stride(0) * size_of(host.dtype());
  const auto* from = static_cast<const std::byte*>(host.raw());
  int64_t row = 0, column = 0;
  while (row < rows && row_bytes > 0) {
    std::byte* buffer = next_buffer();
    int64_t filled = 0;
    while (row < rows && filled < kBufferBytes) {
      const int64_t count = std::min(row_bytes - column, kBufferBytes - filled);
      std::memcpy(buffer + filled, from + row * stride_bytes + column, static_cast<size_t>(count));
      filled += count;
      column += count;
      if (column == row_bytes) {
        column = 0;
        ++row;
      }
    }
    check(cudaMemcpyAsync(to, buffer, static_cast<size_t>(filled), cudaMemcpyHostToDevice, stream_),
          "weights");
    check(cudaEventRecord(done_[1 - next_].get(), stream_), "event");
    to += filled;
  }
}

Tensor WeightStore::keep(const Tensor& host) {
  MM_CHECK(host.is_contiguous() || (host.rank() == 2 && host.has_dense_rows()), "{} has no dense rows",
           host.describe());
  std::byte* data = place(host.size_bytes());
  copy(data, host);
  return {data, host.dtype(), host.shape(), host.name(), backend_.device()};
}

std::unique_ptr<ops::Backend> make_cuda_backend(const CudaOptions& options) {
  describe_cuda_device(options.device);
  return std::make_unique<CudaBackend>(options);
}

namespace {

// Seconds of one call of `work`, the best or the median of several runs of many.
template <typename Work>
double seconds_of(cudaStream_t stream, int repetitions, bool wants_best, Work&& work) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "event");
  const Event first(begin);
  check(cudaEventCreate(&end), "event");
  const Event last(end);
  work();
  std::array<double, 5> seconds{};
  for (double& run : seconds) {
    check(cudaEventRecord(begin, stream), "event");
    for (int r = 0; r < repetitions; ++r) work();
    check(cudaEventRecord(end, stream), "event");
    check(cudaEventSynchronize(end), "a measurement");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "a measurement");
    run = static_cast<double>(milliseconds) * 1e-3 / repetitions;
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[wants_best ? 0 : seconds.size() / 2];
}

// Nearly normal numbers: zeros multiply faster than data does.
template <typename T>
Memory random_matrix(CudaBackend& cuda, int64_t size, uint64_t seed, float scale) {
  std::vector<T> values(static_cast<size_t>(size * size));
  uint64_t state = seed;
  for (T& x : values) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    float sum = 0;
    for (int i = 16; i < 64; i += 16) sum += static_cast<float>((state >> i) & 0xffffU) * 0x1p-16F - 0.5F;
    x = from_float<T>(sum * scale);
  }
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  Memory memory = cuda.allocate(bytes);
  cuda.upload(memory.data(), values.data(), bytes);
  cuda.synchronize();
  return memory;
}

// The library's product of two square matrices.
struct GemmProbe {
  CudaBackend& cuda;
  Scalar scalar;
  int64_t size;
  Memory a, b, out;
  Gemm gemm;

  double rate() {
    const Matrix x = {a.data(), size, size, size, scalar};
    const Matrix y = {out.data(), size, size, size, Scalar::kBF16};
    WeightView weight;
    weight.values = b.data();
    weight.rows = weight.columns = weight.stride = size;
    weight.scalar = scalar;
    const double seconds =
        seconds_of(cuda.stream(), 10, false, [&] { gemm.multiply(x, weight, y, cuda.stream()); });
    const auto edge = static_cast<double>(size);
    return 2 * edge * edge * edge / seconds;
  }
};

}  // namespace

double measure_copy_bandwidth(ops::Backend& backend) {
  auto& cuda = dynamic_cast<CudaBackend&>(backend);
  constexpr int64_t kBytes = int64_t{1} << 30U;
  const Memory from = cuda.allocate(kBytes), to = cuda.allocate(kBytes);
  const double seconds = seconds_of(cuda.stream(), 4, true, [&] {
    check(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, cuda.stream()), "copy");
  });
  return 2.0 * kBytes / seconds;
}

bool multiplies_codes(ops::Backend& backend) {
  return dynamic_cast<CudaBackend&>(backend).architecture() >= 90;
}

std::function<double()> make_gemm_probe(ops::Backend& backend, DType dtype) {
  auto& cuda = dynamic_cast<CudaBackend&>(backend);
  constexpr int64_t kSize = 8192;
  const bool is_bf16 = dtype == DType::kBF16;
  MM_CHECK(is_bf16 || dtype == DType::kF8E4M3, "no probe of products in {}", name(dtype));
  const auto matrix = [&](uint64_t seed) {
    return is_bf16 ? random_matrix<bf16>(cuda, kSize, seed, 1) : random_matrix<f8e4m3>(cuda, kSize, seed, 60);
  };
  const auto probe = std::make_shared<GemmProbe>(
      GemmProbe{cuda, is_bf16 ? Scalar::kBF16 : Scalar::kE4m3, kSize, matrix(1), matrix(2),
                cuda.allocate(kSize * kSize * 2), Gemm(cuda.allocate(kGemmWorkspaceBytes))});
  return [probe] { return probe->rate(); };
}

}  // namespace minimax::cuda
