// device_test.cpp -- devices by name, memory and copies on the cpu, recorded work.
#include "kernels/core/device.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "kernels/core/graph.h"

namespace lanas {
namespace {

TEST(Device, ByName) {
  EXPECT_EQ(parse_device("cpu"), Device::cpu);
  EXPECT_EQ(parse_device("auto"), backend::preferred() ? Device::cuda : Device::cpu);
  EXPECT_THROW(parse_device("gpu"), Error);
}

TEST(Device, WithoutCudaOneLineSaysWhatIsMissing) {
  if (backend::missing().empty()) {
    EXPECT_EQ(parse_device("cuda"), Device::cuda);
    return;
  }
  try {
    parse_device("cuda");
    FAIL() << "accepted";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("--device cuda: " + backend::missing()), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
  EXPECT_THROW(Stream{Device::cuda}, Error);
}

TEST(Device, MemoryStartsAsNanAndIsCopied) {
  Stream stream;
  Memory memory(Device::cpu, 5 * sizeof(float));
  EXPECT_EQ(memory.bytes() % kAlignment, 0u);
  EXPECT_TRUE(std::isnan(memory.floats()[4]));
  const float value = 3;
  upload(stream, memory.data(), &value, sizeof value);
  upload(Device::cpu, memory.floats() + 1, &value, sizeof value);
  float back[2] = {};
  download(stream, back, memory.data(), sizeof back);
  EXPECT_EQ(back[0] + back[1], 6);
}

TEST(Graph, OnTheCpuIsTheFunctionItself) {
  Stream stream;
  int runs = 0;
  Graph graph;
  EXPECT_FALSE(bool(graph));
  EXPECT_THROW(graph.replay(stream), Error);
  graph.record(stream, [&] { ++runs; });
  EXPECT_EQ(runs, 0);
  graph.replay(stream);
  graph.replay(stream);
  EXPECT_EQ(runs, 2);
}

}  // namespace
}  // namespace lanas
