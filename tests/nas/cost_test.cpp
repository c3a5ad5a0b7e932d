// Tests of nas/cost: counted costs against known counts, and a campaign of them.
#include "nas/cost.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "nas/campaign.h"
#include "predictor/linear.h"
#include "tests/support/temp_folder.h"

namespace lanas {
namespace {

NetworkConfig network(int channels, int layers, int batch) {
  return {.channels = channels, .layers = layers, .batch = batch};
}

TEST(Cost, CountsMultiplyAdds) {
  const Genotype darts = resolve_genotype("DARTS_V2");
  EXPECT_DOUBLE_EQ(count_cost(CostMetric::macs, network(36, 20, 1), darts), 528.35904);  // the published net
  EXPECT_DOUBLE_EQ(count_cost(CostMetric::macs, network(36, 20, 4), darts), 528.35904) << "of one image";
}

TEST(Cost, CountsMemory) {
  const Genotype darts = resolve_genotype("DARTS_V2");
  const double one = count_cost(CostMetric::peak_memory, network(8, 5, 1), darts);
  const double two = count_cost(CostMetric::peak_memory, network(8, 5, 2), darts);
  const double eight = count_cost(CostMetric::peak_memory, network(8, 5, 8), darts);
  // At least the folded weights and the image; activations grow with the batch up to what
  // goes through the network at once, images beyond it, weights do not.
  const double weights = 4.0 * double(count_network(network(8, 5, 1), darts).parameters) / (1 << 20);
  EXPECT_GT(one, 0.9 * weights + 4.0 * 32 * 32 * 3 / (1 << 20));
  EXPECT_LT(one, 10);
  EXPECT_GT(two, 1.3 * one);
  EXPECT_LT(two, 2 * one);
  EXPECT_GT(eight, two);
  EXPECT_LT(eight, 8 * one);
}

TEST(Cost, NamesItsMetrics) {
  for (const CostMetric metric : {CostMetric::latency, CostMetric::peak_memory, CostMetric::macs})
    EXPECT_EQ(parse_metric(metric_name(metric)), metric);
  EXPECT_THROW(parse_metric("energy"), Error);
  EXPECT_THROW(count_cost(CostMetric::latency, network(8, 5, 1), resolve_genotype("DARTS_V2")), Error);
}

TEST(Cost, GoesThroughACampaign) {
  const TempFolder folder;
  for (const CostMetric metric : {CostMetric::macs, CostMetric::peak_memory}) {
    const std::string path = folder / (std::string(metric_name(metric)) + ".csv");
    CampaignConfig config;
    config.metric = metric;
    config.latency.network = network(4, 3, 2);
    config.count = 300;
    const Campaign campaign = run_campaign(path, config);
    ASSERT_EQ(campaign.rows.size(), 300u);
    EXPECT_EQ(campaign.metric, metric);
    EXPECT_EQ(campaign.noise_mape, 0);
    EXPECT_EQ(campaign.max_drift, 0);
    EXPECT_TRUE(campaign.second_pass.empty());
    const MeasuredArchitecture& row = campaign.rows[17];
    EXPECT_EQ(row.latency.median_ms, count_cost(metric, network(4, 3, 2), genotype_from_key(row.key)));
    EXPECT_EQ(network_of_setting(campaign.setting, path).layers, 3);
    EXPECT_EQ(run_campaign(path, config).rows.size(), 300u) << "a finished file goes on as it is";
    CampaignConfig latency = config;
    latency.metric = CostMetric::latency;
    EXPECT_THROW(run_campaign(path, latency), Error) << "one file, two costs";
    if (metric != CostMetric::macs) continue;
    // Multiply-adds are a sum over edges: the linear model knows them exactly.
    const Dataset data = latency_dataset(campaign);
    const LinearModel model = fit_ridge_with_penalty(data, 1e-8);
    for (int r = 0; r < data.rows; ++r) EXPECT_NEAR(model.predict(data.row(r)), data.y[size_t(r)], 1e-5);
  }
}

}  // namespace
}  // namespace lanas
