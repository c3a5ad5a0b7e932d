// device_cuda.cpp -- the real cuda device: the process's current one, streams that do not wait for the
// default stream, plain allocations (all memory is reserved before the first step).
#include <cstdio>

#include "kernels/core/event.h"
#include "kernels/core/graph.h"
#include "kernels/core/limits.h"
#include "kernels/core/native.cuh"

namespace lanas {

Stream::Native::Native() { CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)); }

Stream::Native::~Native() {
  cublas.reset();
  cudnn.reset();
  if (const cudaError_t status = cudaStreamDestroy(stream); status != cudaSuccess)
    std::fprintf(stderr, "cuda: a stream could not be destroyed: %s\n", cudaGetErrorString(status));
}

void* native_stream(const Stream& stream) {
  CHECK(stream.native(), "launch: the stream is on the ", device_name(stream.device()));
  check_recorded(stream);
  return stream.native()->stream;
}

namespace backend {

std::string missing() {
  int driver = 0, devices = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return "no NVIDIA driver was found on this machine";
  if (const cudaError_t status = cudaGetDeviceCount(&devices); status != cudaSuccess)
    return join("no usable GPU: ", cudaGetErrorString(status), " (driver for CUDA ", driver / 1000, '.',
                driver % 1000 / 10, ", this build needs ", CUDART_VERSION / 1000, '.',
                CUDART_VERSION % 1000 / 10, ')');
  return devices > 0 ? "" : "no GPU was found on this machine";
}

bool preferred() { return missing().empty(); }

std::shared_ptr<Stream::Native> make_stream() {
  const std::string why = missing();
  CHECK(why.empty(), "cuda: ", why);
  return std::make_shared<Stream::Native>();
}

void synchronize(Stream::Native& stream) { CUDA_CHECK(cudaStreamSynchronize(stream.stream)); }

Memory& scratch(Stream::Native& stream) { return stream.scratch; }

size_t shared_memory_limit() {
  int device = 0, bytes = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return size_t(bytes);
}

std::string device_warning() { return ""; }
std::string device_description() {
  int device = 0;
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  return properties.name;
}

void* allocate(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // forgets it
    return nullptr;
  }
  CUDA_CHECK(status);
  CUDA_CHECK(cudaMemset(memory, 0xFF, bytes));
  CUDA_CHECK(cudaStreamSynchronize(nullptr));  // our streams do not wait for this one
  return memory;
}

void release(void* memory) noexcept {
  if (const cudaError_t status = cudaFree(memory); status != cudaSuccess)
    std::fprintf(stderr, "cuda: memory could not be freed: %s\n", cudaGetErrorString(status));
}

void upload(Stream::Native* stream, void* device, const void* host, size_t bytes) {
  if (stream) {
    CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream->stream));
    return;
  }
  CUDA_CHECK(cudaDeviceSynchronize());
  CUDA_CHECK(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
  CUDA_CHECK(cudaDeviceSynchronize());  // from pageable memory a copy may return when it is staged
}

void download(Stream::Native* stream, void* host, const void* device, size_t bytes) {
  if (stream) {
    CUDA_CHECK(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream->stream));
    CUDA_CHECK(cudaStreamSynchronize(stream->stream));
    return;
  }
  CUDA_CHECK(cudaDeviceSynchronize());
  CUDA_CHECK(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost));
}

namespace {

// A captured graph, ready to launch.
class Executable {
 public:
  Executable(cudaStream_t stream, const std::function<void()>& work) {
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      cudaGetLastError();  // forgets what the broken capture left
      throw;
    }
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    CUDA_CHECK(status);
  }
  ~Executable() {
    if (const cudaError_t status = cudaGraphExecDestroy(executable_); status != cudaSuccess)
      std::fprintf(stderr, "cuda: a graph could not be destroyed: %s\n", cudaGetErrorString(status));
  }
  Executable(const Executable&) = delete;
  Executable& operator=(const Executable&) = delete;
  void launch(cudaStream_t stream) const { CUDA_CHECK(cudaGraphLaunch(executable_, stream)); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

std::function<void(Stream&)> record(Stream& stream, const std::function<void()>& work) {
  auto executable = std::make_shared<Executable>(stream.native()->stream, work);
  return [executable](Stream& on) { executable->launch(on.native()->stream); };
}

void record_event(Stream::Native& stream, std::shared_ptr<void>& event) {
  if (!event) {
    cudaEvent_t made = nullptr;
    CUDA_CHECK(cudaEventCreate(&made));
    event = std::shared_ptr<void>(made, [](void* e) { cudaEventDestroy(cudaEvent_t(e)); });
  }
  CUDA_CHECK(cudaEventRecord(cudaEvent_t(event.get()), stream.stream));
}

double milliseconds(const std::shared_ptr<void>& from, const std::shared_ptr<void>& to) {
  float ms = 0;
  CUDA_CHECK(cudaEventSynchronize(cudaEvent_t(to.get())));
  CUDA_CHECK(cudaEventElapsedTime(&ms, cudaEvent_t(from.get()), cudaEvent_t(to.get())));
  return ms;
}

}  // namespace backend
}  // namespace lanas
