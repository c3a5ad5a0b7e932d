// native.cuh -- what stands behind a Stream on a real cuda device, and the check of CUDA calls; for the
// device and the vendor twins.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "kernels/core/device.h"

namespace lanas {

struct Stream::Native {
  cudaStream_t stream = nullptr;
  Memory scratch;  // see stream_scratch
  // Library handles of this stream with their workspaces, made by the vendor twins at first use.
  std::shared_ptr<void> cublas, cudnn;

  Native();
  ~Native();
  Native(const Native&) = delete;
  Native& operator=(const Native&) = delete;
};

}  // namespace lanas

// Throws Error with the call, its place and what CUDA says.
#define CUDA_CHECK(call)                                                                         \
  do {                                                                                           \
    if (const cudaError_t status_ = (call); status_ != cudaSuccess) [[unlikely]]                 \
      throw ::lanas::Error(                                                                      \
          ::lanas::join(__FILE__, ":", __LINE__, ": " #call ": ", cudaGetErrorString(status_))); \
  } while (false)
