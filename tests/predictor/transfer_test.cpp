// Tests of predictor/transfer: what it chooses, that it equals the Gaussian process it states, and that it
// uses a source where one helps.
#include "predictor/transfer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "kernels/core/check.h"
#include "predictor/transfer_report.h"

namespace lanas {
namespace {

constexpr int kPlaces = 8, kLevels = 4;

// One-hot codes of random architectures: 8 places, 4 ops; the group of a column is its op.
struct World {
  TransferRows rows;
  std::vector<int> group;

  World(int count, uint64_t seed, double shift) {
    std::mt19937_64 random(seed);
    Dataset& code = rows.code;
    code.rows = count;
    code.columns = kPlaces * kLevels;
    rows.sources.emplace_back();
    for (int r = 0; r < count; ++r) {
      double source = 5, target = 3;
      for (int place = 0; place < kPlaces; ++place) {
        const int op = int(random() % kLevels);
        for (int level = 0; level < kLevels; ++level) code.x.push_back(level == op);
        const double cost = op * (1 + 0.6 * std::sin(3 * place + op));
        source += cost;
        target += 2 * cost + shift * op;
      }
      rows.sources[0].push_back(source);
      code.y.push_back(target);
    }
    for (int c = 0; c < code.columns; ++c) group.push_back(c % kLevels);
  }
};

TEST(Transfer, ChoosesWithoutRepeatingAndByPrefix) {
  const World world(200, 1, 0);
  const Transfer model(world.rows, world.group);
  const std::vector<int> five = model.choose(5), forty = model.choose(40);
  EXPECT_EQ(std::set<int>(forty.begin(), forty.end()).size(), 40u);
  EXPECT_TRUE(std::equal(five.begin(), five.end(), forty.begin()));
  EXPECT_THROW(model.choose(201), Error);
  EXPECT_THROW(model.predict(world.rows), Error) << "before it was adapted";
}

TEST(Transfer, ChoosesDiverseRows) {
  const World world(400, 2, 0);
  const auto spread = [&](const std::vector<int>& rows) {  // variance of the sources' costs
    double mean = 0, variance = 0;
    for (int r : rows) mean += world.rows.sources[0][size_t(r)] / double(rows.size());
    for (int r : rows) variance += std::pow(world.rows.sources[0][size_t(r)] - mean, 2) / double(rows.size());
    return variance;
  };
  const Transfer model(world.rows, world.group);
  EXPECT_GT(spread(model.choose(10)), 1.3 * spread(shuffled(400, 0)));
}

TEST(Transfer, FollowsAnExactSource) {
  const World world(300, 3, 0), fresh(100, 4, 0);  // the target is 2 source - 7
  Transfer model(world.rows, world.group);
  const std::vector<int> rows = model.choose(6);
  model.adapt(rows, take_rows(world.rows.code, rows).y);
  const Metrics metrics = evaluate(model.predict(fresh.rows), fresh.rows.code.y);
  EXPECT_LT(metrics.mape, 0.02);
  EXPECT_GT(metrics.spearman, 0.99);
}

TEST(Transfer, IsBetterThanWhatHasNoSource) {
  const World world(500, 5, 0.5), fresh(300, 6, 0.5);
  TransferOptions options;
  options.samples = {10};
  std::vector<int> chosen;
  const auto results = transfer_report(world.rows, fresh.rows, world.group, options, &chosen);
  ASSERT_EQ(results.size(), 6u);
  EXPECT_EQ(chosen.size(), 10u);
  EXPECT_EQ(results[0].model, "transfer");
  for (size_t i = 1; i < results.size(); ++i) {
    EXPECT_LT(results[0].metrics.mape, results[i].metrics.mape) << results[i].model;
    EXPECT_GT(results[0].metrics.spearman, results[i].metrics.spearman) << results[i].model;
  }
}

TEST(Transfer, LearnsFromManySamplesThatASourceIsWrong) {
  World world(600, 7, 0), fresh(300, 8, 0);
  std::mt19937_64 random(9);
  for (World* w : {&world, &fresh})
    for (double& s : w->rows.sources[0]) s = double(random() % 1000);  // says nothing
  Transfer model(world.rows, world.group);
  const std::vector<int> rows = model.choose(100);
  model.adapt(rows, take_rows(world.rows.code, rows).y);
  EXPECT_GT(evaluate(model.predict(fresh.rows), fresh.rows.code.y).spearman, 0.98);
}

TEST(Transfer, CountsGroups) {
  const World world(3, 10, 0);
  const Dataset counts = count_features(world.rows.code, world.group);
  EXPECT_EQ(counts.columns, kLevels);
  for (int r = 0; r < 3; ++r) {
    float sum = 0;
    for (int c = 0; c < kLevels; ++c) sum += counts.row(r)[c];
    EXPECT_EQ(sum, kPlaces);
  }
  EXPECT_THROW(count_features(world.rows.code, {1, 2}), Error);
}

TEST(Transfer, MlpFromScratchLearnsAtAll) {
  const World world(100, 11, 0), fresh(100, 12, 0);
  const std::vector<double> predicted = mlp_from_scratch(world.rows.code, fresh.rows.code, 1);
  EXPECT_GT(evaluate(predicted, fresh.rows.code.y).spearman, 0.7);
  EXPECT_EQ(predicted, mlp_from_scratch(world.rows.code, fresh.rows.code, 1));
}

}  // namespace
}  // namespace lanas
