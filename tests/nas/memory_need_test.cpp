// The memory that a training plans is what it says it needs, and too much is refused with a batch that fits.
#include "nas/memory_need.h"

#include <gtest/gtest.h>

#include "autograd/plan.h"

namespace lanas::test {
namespace {

ImageData blank_images() {
  ImageData data;
  data.name = "test";
  data.side = 16;
  data.classes = 10;
  data.train_images.resize(100 * 16 * 16 * 3);
  data.test_images.resize(10 * 16 * 16 * 3);
  return data;
}

SearchConfig config_of(int batch, bool second_order = false) {
  SearchConfig config;
  config.supernet = {8, 3, 10, 16, batch, 2, true};
  config.second_order = second_order;
  return config;
}

TEST(MemoryNeed, CountsPlansParametersAndImages) {
  const MemoryNeed need = search_memory(config_of(16), blank_images());
  EXPECT_EQ(need.images, size_t(2 * 100 + 10) * 16 * 16 * 3);
  EXPECT_EQ(need.total(), need.workspace + need.parameters + need.images);
  const MemoryNeed twice = search_memory(config_of(32), blank_images());
  EXPECT_EQ(twice.parameters, need.parameters);
  EXPECT_NEAR(double(twice.workspace), 2 * double(need.workspace), 0.1 * double(need.workspace));
  const MemoryNeed second = search_memory(config_of(16, true), blank_images());
  EXPECT_GT(second.parameters, need.parameters);
  EXPECT_GE(second.workspace, need.workspace);
  RetrainConfig retrain;
  retrain.network = {.channels = 8, .layers = 3, .image = 16, .batch = 16};
  const MemoryNeed derived = retrain_memory(retrain, resolve_genotype("DARTS_V2"), blank_images());
  EXPECT_GT(derived.workspace, 0u);
  EXPECT_LT(derived.workspace, need.workspace) << "one op per edge, not all";
}

TEST(MemoryNeed, RefusesWithABatchThatFits) {
  const MemoryNeed need = search_memory(config_of(64), blank_images());
  EXPECT_NO_THROW(check_memory("search", need, need.total(), 64, "--batch", "--channels"));
  EXPECT_NO_THROW(check_memory("search", need, 0, 64, "--batch", "--channels")) << "not known";
  try {
    check_memory("search", need, need.total() / 2, 64, "--batch", "--channels");
    FAIL() << "accepted";
  } catch (const Error& e) {
    const std::string what = e.what();
    const size_t at = what.find("--batch ");
    ASSERT_NE(at, std::string::npos) << what;
    const int batch = std::stoi(what.substr(at + 8));
    EXPECT_GT(batch, 16);
    EXPECT_LE(search_memory(config_of(batch), blank_images()).total(), need.total() / 2) << batch;
  }
  EXPECT_THROW(check_memory("search", need, need.parameters / 2, 64, "--batch", "--channels"), Error);
  EXPECT_GT(available_memory(), size_t{1} << 20);
}

}  // namespace
}  // namespace lanas::test
