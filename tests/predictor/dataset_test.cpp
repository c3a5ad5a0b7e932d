// Rows of numbers: coding of columns, architectures measured twice, and splits that keep them together.
#include "predictor/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "kernels/core/check.h"

namespace lanas {
namespace {

const char* const kText =
    "e0,e1,macs,ms\n"
    "3,1,1000000,2.0\n"
    "1,1,1000002,4.0\n"
    "3,1,1000000,3.0\n"
    "2,0,1000004,8.0\n";

Dataset table_data(const std::vector<std::string>& features) {
  return read_dataset(parse_table(kText, "t.csv"), features, "ms");
}

TEST(Dataset, OneHotAndStandardisedColumns) {
  const Table table = parse_table(kText, "t.csv");
  const Dataset data = table_data({"e0", "e1"});
  EXPECT_EQ(data.rows, 4);
  EXPECT_EQ(data.columns, 5);
  const std::vector<float> expected = {0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0};
  EXPECT_EQ(data.x, expected);
  EXPECT_EQ(data.y, (std::vector<double>{2, 4, 3, 8}));

  const FeatureCoder coder(table, {"macs"}, 2);  // three values are more than two levels: a number
  EXPECT_EQ(coder.width(), 1);
  const std::vector<float> macs = coder.encode(table);
  double sum = 0, square = 0;
  for (float v : macs) sum += double(v), square += double(v) * double(v);
  EXPECT_NEAR(sum, 0, 1e-6);
  EXPECT_NEAR(square, 4, 1e-5);
}

TEST(Dataset, NumbersValuesAcrossColumns) {
  const Table table = parse_table(kText, "t.csv");
  // e0 is 1, 2 or 3 and e1 0 or 1: four values, of which both columns have the 1; a number is not counted.
  EXPECT_EQ(FeatureCoder(table, {"e0", "e1"}).level_groups(), (std::vector<int>{1, 2, 3, 0, 1}));
  EXPECT_EQ(FeatureCoder(table, {"e1", "macs"}, 2).level_groups(), (std::vector<int>{0, 1, -1}));
}

TEST(Dataset, RefusesWhatItCannotCode) {
  const Table table = parse_table(kText, "t.csv");
  const FeatureCoder coder(table, {"e0"});
  EXPECT_THROW(coder.encode(parse_table("e0\n5\n", "u.csv")), Error);
  EXPECT_THROW(coder.encode(parse_table("e0\nx\n", "u.csv")), Error);
  EXPECT_THROW(coder.encode(parse_table("f0\n1\n", "u.csv")), Error);
  EXPECT_THROW(FeatureCoder(table, {}), Error);
  EXPECT_THROW(table_data({"e0", "absent"}), Error);
  EXPECT_THROW(read_dataset(parse_table("a,ms\n", "t.csv"), {"a"}, "ms"), Error);
  EXPECT_THROW(read_dataset(parse_table("a,ms\nx,1\n", "t.csv"), {"a"}, "ms"), Error);
  try {
    read_dataset(parse_table("a,ms\n1,1\n2,-3\n", "t.csv"), {"a"}, "ms");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "t.csv:3: column ms: '-3' is not positive");
  }
}

TEST(Dataset, DuplicatedArchitecturesAreFoundAndMerged) {
  const Dataset data = table_data({"e0", "e1"});
  EXPECT_EQ(architecture_of_row(data), (std::vector<int>{0, 1, 0, 2}));
  const Dataset merged = merge_duplicates(data);
  EXPECT_EQ(merged.rows, 3);
  EXPECT_EQ(merged.y, (std::vector<double>{2.5, 4, 8}));
  EXPECT_TRUE(std::equal(data.row(3), data.row(3) + 5, merged.row(2)));
}

TEST(Dataset, SplitKeepsArchitecturesTogether) {
  Dataset data;
  data.rows = 300;
  data.columns = 1;
  for (int r = 0; r < data.rows; ++r) {
    data.x.push_back(float(r % 100));
    data.y.push_back(1 + r);
  }
  const Split split = split_by_architecture(data, 200, 7);
  EXPECT_GE(int(split.train.size()), 200);
  EXPECT_LE(int(split.train.size()), 202);
  EXPECT_EQ(split.train.size() + split.test.size(), 300u);
  std::set<float> train, test;
  for (int r : split.train) train.insert(*data.row(r));
  for (int r : split.test) EXPECT_EQ(train.count(*data.row(r)), 0u);
  EXPECT_EQ(split_by_architecture(data, 200, 7).test, split.test);
  EXPECT_NE(split_by_architecture(data, 200, 8).test, split.test);
  EXPECT_THROW(split_by_architecture(data, 300, 7), Error);
  EXPECT_THROW(split_by_architecture(data, 0, 7), Error);
  EXPECT_THROW(split_by_architecture(data, 299, 7), Error);  // 299 rows round up to all architectures
}

TEST(Dataset, ShuffleIsAPermutationThatTheSeedDecides) {
  std::vector<int> order = shuffled(50, 3);
  EXPECT_EQ(order, shuffled(50, 3));
  EXPECT_NE(order, shuffled(50, 4));
  std::sort(order.begin(), order.end());
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[size_t(i)], i);
}

}  // namespace
}  // namespace lanas
