// Exact parameter and multiply-accumulate counts of the published genotypes, in both forms, and of the
// supernets. The values are those of tests/fixtures/counts.py, which computes them by arithmetic alone.
#include <gtest/gtest.h>

#include "autograd/plan.h"
#include "nas/network.h"
#include "nas/supernet.h"

namespace lanas::test {
namespace {

struct Row {
  const char* name;
  int64_t parameters, macs;
};

void expect_counts(const NetworkConfig& config, const std::vector<Row>& rows, int64_t auxiliary) {
  for (const Row& row : rows) {
    const NetworkCounts counts = count_network(config, resolve_genotype(row.name));
    EXPECT_EQ(counts.parameters, row.parameters) << row.name;
    EXPECT_EQ(counts.macs, row.macs) << row.name;
    EXPECT_EQ(counts.parameters_auxiliary, auxiliary) << row.name;
  }
}

TEST(Counts, PublishedGenotypes) {
  expect_counts({36, 20, 10, 32, 1},
                {{"DARTS_V1", 3'169'414, 500'987'520},
                 {"DARTS_V2", 3'349'342, 528'359'040},
                 {"PC_DARTS_cifar", 3'634'678, 556'670'592},
                 {"PC_DARTS_image", 3'721'510, 570'466'944},
                 {"PDARTS", 3'433'798, 532'174'464}},
                476'426);
}

// Published as 4.7 M parameters for DARTS_V2, 4.9 M and 557 M MACs for P-DARTS, 5.3 M and 597 M for PC-DARTS;
// those MACs count batch norms too and are 2-3% higher.
TEST(Counts, PublishedGenotypesInImageNetForm) {
  expect_counts({48, 14, 1000, 224, 1},
                {{"DARTS_V1", 4'510'432, 505'864'704},
                 {"DARTS_V2", 4'718'752, 529'911'552},
                 {"PC_DARTS_cifar", 5'270'560, 571'137'408},
                 {"PC_DARTS_image", 5'342'464, 581'627'328},
                 {"PDARTS", 4'944'352, 542'819'328}},
                1'260'776);
}

TEST(Counts, Supernets) {
  struct SupernetRow {
    SupernetConfig config;
    int64_t parameters, macs;
  };
  for (SupernetRow row : {SupernetRow{SupernetConfig::darts(), 1'930'618, 300'255'744},
                          SupernetRow{SupernetConfig::pc_darts(), 299'578, 56'596'992},
                          SupernetRow{{8, 5, 10, 32, 1, 1, false}, 394'210, 61'629'696},
                          SupernetRow{{8, 5, 10, 32, 1, 4, true}, 66'586, 12'907'776}}) {
    row.config.batch = 1;
    ParameterStore weights, buffers, architecture;
    const Supernet net(row.config, weights, buffers, architecture);
    EXPECT_EQ(weights.count(), row.parameters);
    EXPECT_EQ(Plan(net.tape, {.outputs = {net.logits}}, std::make_shared<Workspace>()).macs(), row.macs);
  }
}

}  // namespace
}  // namespace lanas::test
