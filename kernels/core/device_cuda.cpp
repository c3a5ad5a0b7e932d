// device_cuda.cpp -- the real cuda device: the process's current one, streams that do not wait for the
// default stream, plain allocations (all memory is reserved before the first step).
#include <cstdio>

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

}  // namespace backend
}  // namespace lanas
