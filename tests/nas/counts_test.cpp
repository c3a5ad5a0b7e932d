// Exact parameter and multiply-accumulate counts of published networks and of the supernets.
#include <gtest/gtest.h>

#include "autograd/plan.h"
#include "nas/network.h"
#include "nas/supernet.h"

namespace lanas::test {
namespace {

TEST(Counts, PublishedNetworks) {
  const NetworkCounts v1 = count_network({36, 20, 10, 32, 1}, resolve_genotype("DARTS_V1"));
  EXPECT_EQ(v1.parameters, 3'169'414);
  EXPECT_EQ(v1.macs, 500'987'520);
  const NetworkCounts v2 = count_network({36, 20, 10, 32, 1}, resolve_genotype("DARTS_V2"));
  EXPECT_EQ(v2.parameters, 3'349'342);
  EXPECT_EQ(v2.macs, 528'359'040);
  // These by the PyTorch program of tests/fixtures.
  struct Row {
    const char* name;
    int64_t parameters, macs;
  };
  for (const Row& row : {Row{"PC_DARTS_cifar", 3'634'678, 556'670'592}, Row{"PDARTS", 3'433'798, 532'174'464},
                         Row{"PC_DARTS_image", 3'721'510, 570'466'944}}) {
    const NetworkCounts counts = count_network({36, 20, 10, 32, 1}, resolve_genotype(row.name));
    EXPECT_EQ(counts.parameters, row.parameters) << row.name;
    EXPECT_EQ(counts.macs, row.macs) << row.name;
  }
}

TEST(Counts, Supernets) {
  struct Row {
    SupernetConfig config;
    int64_t parameters, macs;
  };
  for (Row row : {Row{SupernetConfig::darts(), 1'930'618, 300'255'744},
                  Row{SupernetConfig::pc_darts(), 299'578, 56'596'992}}) {
    row.config.batch = 1;
    ParameterStore weights, buffers, architecture;
    const Supernet net(row.config, weights, buffers, architecture);
    EXPECT_EQ(weights.count(), row.parameters);
    EXPECT_EQ(Plan(net.tape, {.outputs = {net.logits}}, std::make_shared<Workspace>()).macs(), row.macs);
  }
}

// The ImageNet form (48 channels, 14 cells, 1000 classes): published as 4.7 M parameters for DARTS_V2, 4.9 M
// and 557 M MACs for P-DARTS, 5.3 M and 597 M for PC-DARTS. Their MACs count batch norms too: ours are 2-3%
// lower.
TEST(Counts, ImageNetForm) {
  struct Row {
    const char* name;
    double parameters, macs;  // in millions; 0: no comparable figure
  };
  for (const Row& row : {Row{"DARTS_V2", 4.7, 0}, Row{"PDARTS", 4.9, 557}, Row{"PC_DARTS_image", 5.3, 597}}) {
    const NetworkCounts counts = count_network({48, 14, 1000, 224, 1}, resolve_genotype(row.name));
    EXPECT_NEAR(double(counts.parameters) / 1e6, row.parameters, 0.05) << row.name;
    if (row.macs > 0) {
      EXPECT_LT(double(counts.macs) / 1e6, row.macs) << row.name;
      EXPECT_GT(double(counts.macs) / 1e6, 0.97 * row.macs) << row.name;
    }
    EXPECT_GT(counts.parameters_auxiliary, 0);
  }
}

}  // namespace
}  // namespace lanas::test
