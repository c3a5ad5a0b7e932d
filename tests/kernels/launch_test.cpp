// A build without CUDA: kernels are parsed, and a launch says what is missing.
#undef LANAS_EMULATE
#include "kernels/core/launch.cuh"

#include <gtest/gtest.h>

#include "kernels/core/reduce.cuh"

namespace lanas {
namespace {

__global__ void sum_kernel(float* out, const float* in, int64_t n) {
  float sum = 0;
  for (int64_t i : grid_stride(n)) sum += in[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

TEST(Launch, WithoutADeviceItThrowsWithFileAndLine) {
  Stream stream;
  float value = 3;
  try {
    launch(sum_kernel, 1, 32, 0, stream, &value, &value, int64_t{1});
    FAIL() << "ran";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("launch_test.cpp:"), std::string::npos) << text;
    EXPECT_NE(text.find("this build has no CUDA"), std::string::npos) << text;
  }
  EXPECT_EQ(value, 3);
}

TEST(Launch, DeviceFunctionsOutsideAKernelThrow) { EXPECT_THROW(__syncthreads(), Error); }

}  // namespace
}  // namespace lanas
