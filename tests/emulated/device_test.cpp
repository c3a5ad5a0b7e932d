// device_test.cpp -- the emulated cuda device: memory that only device work can touch, copies, scratch of a
// stream, recorded work.
#include "kernels/core/device.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

#include "kernels/core/event.h"
#include "kernels/core/graph.h"
#include "kernels/core/reduce.cuh"
#include "kernels/ops/elementwise.h"
#include "kernels/vendor/gemm.h"

namespace lanas {
namespace {

std::vector<float> read(Stream& stream, const Memory& memory, size_t count) {
  std::vector<float> values(count);
  download(stream, values.data(), memory.data(), count * sizeof(float));
  return values;
}

__global__ void add_kernel(float* y, const float* step, int64_t n, float value) {
  for (const int64_t i : grid_stride(n)) y[i] += *step * value;
}

TEST(EmulatedDevice, IsThereWhenAskedFor) {
  EXPECT_EQ(parse_device("cuda"), Device::cuda);
  EXPECT_EQ(parse_device("auto"), Device::cpu);
  EXPECT_THROW(parse_device("gpu"), Error);
}

TEST(EmulatedDevice, EventsTimeWhatLiesBetween) {
  for (const Device device : {Device::cpu, Device::cuda}) {
    Stream stream(device, 1);
    Event before, after;
    before.record(stream);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    after.record(stream);
    EXPECT_GE(after.ms_since(before), 2);
  }
  Stream cpu(Device::cpu, 1), cuda(Device::cuda);
  Event here, there;
  here.record(cpu), there.record(cuda);
  EXPECT_THROW(there.ms_since(here), Error);
  EXPECT_THROW(Graph().record(cuda, [&] { there.record(cuda); }), Error);
}

TEST(EmulatedDevice, CopiesAndFillsWithNan) {
  Stream stream(Device::cuda);
  Memory memory(Device::cuda, 10 * sizeof(float));
  for (const float v : read(stream, memory, 10)) EXPECT_TRUE(std::isnan(v));
  const std::vector<float> values = {1, 2, 3};
  upload(stream, memory.data(), values.data(), 3 * sizeof(float));
  EXPECT_EQ(read(stream, memory, 3), values);
  upload(Device::cuda, memory.floats() + 1, values.data(), sizeof(float));
  float back[2];
  download(Device::cuda, back, memory.data(), sizeof back);
  EXPECT_EQ(back[1], 1);
}

TEST(EmulatedDevice, BlocksDoNotOverlap) {
  Stream stream(Device::cuda);
  std::vector<Memory> blocks;
  for (int i = 0; i < 20; ++i) blocks.emplace_back(Device::cuda, size_t(1 + i * 700));
  for (int i = 0; i < 20; i += 3) blocks[size_t(i)] = Memory(Device::cuda, size_t(9000 - i));
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::vector<char> bytes(blocks[i].bytes(), char(i));
    upload(stream, blocks[i].data(), bytes.data(), bytes.size());
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    std::vector<char> bytes(blocks[i].bytes());
    download(stream, bytes.data(), blocks[i].data(), bytes.size());
    EXPECT_EQ(bytes, std::vector<char>(bytes.size(), char(i)));
  }
}

TEST(EmulatedDeviceDeathTest, HostCodeCannotTouchDeviceMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Memory memory(Device::cuda, 64);
  EXPECT_DEATH(*static_cast<volatile float*>(memory.floats()) = 1, "");
  EXPECT_DEATH(std::exit(int(*static_cast<volatile float*>(memory.floats()))), "");
}

TEST(EmulatedDevice, ScratchOfAStreamStaysWhereItIs) {
  Stream stream(Device::cuda), other(Device::cuda), host;
  void* first = stream_scratch(stream, 100);
  EXPECT_EQ(stream_scratch(stream, kStreamScratch), first);
  EXPECT_NE(stream_scratch(other, 100), first);
  EXPECT_THROW(stream_scratch(stream, kStreamScratch + 1), Error);
  EXPECT_THROW(stream_scratch(host, 1), Error);
}

TEST(EmulatedDevice, AGraphReadsMemoryAnewAndFreezesArguments) {
  Stream stream(Device::cuda);
  Memory y(Device::cuda, 4 * sizeof(float)), step(Device::cuda, sizeof(float));
  const float zeros[4] = {}, one = 1, ten = 10;
  upload(stream, y.data(), zeros, sizeof zeros);
  upload(stream, step.data(), &one, sizeof one);
  float argument = 2;
  Graph graph;
  graph.record(stream, [&] {
    launch(add_kernel, 1, 32, 0, stream, y.floats(), step.floats(), int64_t{4}, argument);
    gemm(stream, false, false, 1, 1, 1, 1, step.floats(), 1, step.floats(), 1, 1, y.floats(), 1);
  });
  EXPECT_EQ(read(stream, y, 1)[0], 0);  // nothing has run
  argument = 100;
  upload(stream, step.data(), &ten, sizeof ten);
  graph.replay(stream);
  EXPECT_EQ(read(stream, y, 1)[0], 10 * 2 + 10 * 10);
}

TEST(EmulatedDevice, CopiesCannotBeRecorded) {
  Stream stream(Device::cuda);
  const Memory memory(Device::cuda, 4);
  float value = 0;
  Graph graph;
  EXPECT_THROW(graph.record(stream, [&] { download(stream, &value, memory.data(), 4); }), Error);
  EXPECT_THROW(graph.replay(stream), Error);
  EXPECT_NO_THROW(graph.record(stream, [] {}));  // the broken recording is over
}

TEST(EmulatedDevice, AGraphIsRecordedFromOneStream) {
  Stream stream(Device::cuda), other(Device::cuda), host;
  Memory memory(Device::cuda, 4 * sizeof(float));
  const Tensor y(memory.floats(), {1, 1, 1, 4});
  Graph graph;
  for (Stream* wrong : {&other, &host})
    EXPECT_THROW(graph.record(stream, [&] { relu_forward(*wrong, y, y); }), Error);
  EXPECT_THROW(graph.record(stream, [&] { stream_scratch(other, 4); }), Error);
  EXPECT_NO_THROW(relu_forward(other, y, y));  // the broken recordings are over
  graph.record(stream, [copy = stream, y]() mutable { relu_forward(copy, y, y); });
  graph.replay(stream);
}

}  // namespace
}  // namespace lanas
