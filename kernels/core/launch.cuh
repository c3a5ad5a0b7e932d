// launch.cuh -- the one way to launch a kernel, and the one header a .cu file needs for it.
// Three builds read the same kernel: nvcc (a real launch), g++ with LANAS_EMULATE (library kernels_emulated:
// the kernel runs on simt.h's emulator), and g++ without it (library kernels without a toolkit: the kernel is
// parsed, and launch() throws, for no cuda device exists there). How a kernel file reads:
//
//   #include "kernels/core/launch.cuh"
//   #include "kernels/core/reduce.cuh"
//   namespace lanas {
//   namespace {
//   __global__ void relu_kernel(Tensor y, Tensor x) {  // packed: y[i] = max(x[i], 0)
//     for (int64_t i : grid_stride(x.size())) y.data[i] = fmaxf(x.data[i], 0.0f);
//   }
//   }  // namespace
//   void relu_forward(Stream& stream, Tensor y, Tensor x) {
//     CHECK(y.shape() == x.shape(), "relu_forward: y ", y.shape(), " does not match x ", x.shape());
//     if (stream.device() == Device::cpu) return host::relu_forward(y, x);
//     launch(relu_kernel, grid_blocks(x.size(), 256), 256, 0, stream, y, x);
//   }
//   }  // namespace lanas
//
// Rules: no early return before a barrier; full masks; no float atomics; what changes from step to step is
// read from memory, never passed as an argument. Kernels are templates or stand in an anonymous namespace.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#else
#include "kernels/core/simt.h"
#include "kernels/core/simt_memory.h"
#endif

#include <tuple>
#include <type_traits>

#include "kernels/core/device.h"

namespace lanas {

// A stream, and the place of the launch for error messages.
struct LaunchStream {
  Stream& stream;
  const char* file;
  int line;
  LaunchStream(Stream& work, const char* file_name = __builtin_FILE(), int line_number = __builtin_LINE())
      : stream(work), file(file_name), line(line_number) {}
};

#ifdef __CUDACC__
static_assert(__cplusplus >= 202002L, "compile .cu files with -std=c++20");

// The cudaStream_t of a stream on the cuda device.
void* native_stream(const Stream& stream);

// Dynamic shared memory of the block, 16-byte aligned, uninitialised; its size is launch()'s shared_bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char lanas_dynamic_shared[];
  return reinterpret_cast<T*>(lanas_dynamic_shared);
}

// kCount elements of static shared memory, uninitialised. Calls with the same T, kCount and kTag in one
// kernel give the same array: give each array of a kernel its own tag.
template <class T, int kCount, int kTag = 0>
__device__ __forceinline__ T* static_shared() {
  __shared__ __align__(16) T data[kCount];
  return data;
}

inline namespace on_device {
// Runs kernel(args...) on grid x block threads with shared_bytes of dynamic shared memory, in stream order.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, LaunchStream where,
            Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args),
                "launch: as many arguments as the kernel has parameters");
  const auto check = [&](cudaError_t status) {
    CHECK(status == cudaSuccess, where.file, ":", where.line, ": launch: ", cudaGetErrorString(status),
          " (grid ", grid.x, "x", grid.y, "x", grid.z, ", block ", block.x, "x", block.y, "x", block.z, ", ",
          shared_bytes, " bytes shared)");
  };
  if (shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)));
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(native_stream(where.stream))>>>(
      static_cast<Args&&>(args)...);
  check(cudaGetLastError());
}
}  // namespace on_device

#else  // g++

// In the emulator a heap block of exactly the launch's size, all bytes 0xFF (NaN) when a block starts.
template <class T>
__device__ T* dynamic_shared(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return static_cast<T*>(simt::dynamic_shared(file, line));
}

template <class T, int kCount, int kTag = 0>
__device__ T* static_shared() {
  static constinit char key = 0;
  return static_cast<T*>(simt::static_shared(&key, sizeof(T) * kCount));
}

#ifdef LANAS_EMULATE
inline namespace on_emulator {
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, LaunchStream where,
            Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args),
                "launch: as many arguments as the kernel has parameters");
  CHECK(where.stream.device() == Device::cuda, where.file, ":", where.line, ": launch: the stream is on the ",
        device_name(where.stream.device()));
  const simt::Config config{grid, block, shared_bytes, where.file, where.line};
  simt::check_config(config);
  auto work = [config, kernel, values = std::tuple<Params...>(static_cast<Params>(args)...)] {
    simt::run_grid(config, [&] { std::apply(kernel, values); });
  };
  simt::run_or_record(std::move(work));
}
}  // namespace on_emulator
#else
inline namespace without_device {
template <class... Params, class... Args>
int check_launch(void (*)(Params...), dim3, dim3, size_t, LaunchStream, Args&&...) {
  static_assert(sizeof...(Params) == sizeof...(Args),
                "launch: as many arguments as the kernel has parameters");
  return 0;
}
[[noreturn]] inline void no_launch(size_t, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  throw Error(join(file, ":", line, ": launch: this build has no CUDA"));
}
}  // namespace without_device

// A macro, so that the kernel's name is not evaluated: else each of its instances would be compiled and never
// run, which was nine tenths of what separable_conv.cu took to compile.
#define launch(...) ::lanas::no_launch(sizeof(::lanas::check_launch(__VA_ARGS__)))
#endif
#endif

}  // namespace lanas
