// Tests of nas/machine: the machine's description, memory and time.
#include "nas/machine.h"

#include <gtest/gtest.h>

#include <regex>
#include <vector>

#include "kernels/core/parallel.h"

namespace lanas {
namespace {

TEST(Machine, IsDescribed) {
  const Machine machine = describe_machine();
  EXPECT_FALSE(machine.cpu.empty());
#if defined(__x86_64__)
  EXPECT_TRUE(std::regex_match(machine.cpu, std::regex(R"(.+ \(family \d+ model \d+\))"))) << machine.cpu;
#endif
  EXPECT_GE(machine.cores, 1);
  EXPECT_TRUE(machine.isa == "base" || machine.isa == "avx2" || machine.isa == "avx512");
  EXPECT_TRUE(machine.system.starts_with("Linux ")) << machine.system;
}

TEST(Machine, Zen5IsAskedForTheFirstCacheAndWrittenPastThem) {
  const std::string cpu = describe_machine().cpu;
  const bool zen5 = cpu.starts_with("AMD ") && cpu.find("(family 26 ") != std::string::npos;
  EXPECT_EQ(kPrefetchIntoL1, zen5) << cpu;
  EXPECT_EQ(kWritePastCaches, zen5) << cpu;
}

TEST(Machine, PeakMemoryGrowsWithUse) {
  const int64_t before = peak_memory_bytes();
  EXPECT_GT(before, 1 << 20);
  std::vector<char> block(size_t(before) + (64 << 20), 1);
  EXPECT_GE(peak_memory_bytes(), before + (60 << 20));
  EXPECT_EQ(block[block.size() / 2], 1);
}

TEST(Machine, TimeIsIso8601) {
  const std::string time = utc_time();
  ASSERT_EQ(time.size(), 20u);
  EXPECT_EQ(time[4], '-');
  EXPECT_EQ(time[10], 'T');
  EXPECT_EQ(time[19], 'Z');
  EXPECT_GT(time, "2024");
}

}  // namespace
}  // namespace lanas
