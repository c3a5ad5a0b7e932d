#include "predictor/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "kernels/core/check.h"
#include "kernels/core/random.cuh"

namespace lanas {

Dataset take_rows(const Dataset& data, const std::vector<int>& rows) {
  Dataset out;
  out.rows = int(rows.size());
  out.columns = data.columns;
  out.x.reserve(rows.size() * size_t(data.columns));
  out.y.reserve(rows.size());
  for (int r : rows) {
    CHECK(0 <= r && r < data.rows, "take_rows: row ", r, " of ", data.rows);
    out.x.insert(out.x.end(), data.row(r), data.row(r) + data.columns);
    out.y.push_back(data.y[size_t(r)]);
  }
  return out;
}

std::vector<int> architecture_of_row(const Dataset& data) {
  std::unordered_map<std::string_view, int> seen;
  std::vector<int> number(static_cast<size_t>(data.rows));
  for (int r = 0; r < data.rows; ++r) {
    const std::string_view bytes(reinterpret_cast<const char*>(data.row(r)),
                                 size_t(data.columns) * sizeof(float));
    number[size_t(r)] = seen.try_emplace(bytes, int(seen.size())).first->second;
  }
  return number;
}

Dataset merge_duplicates(const Dataset& data) {
  const std::vector<int> number = architecture_of_row(data);
  std::vector<int> first;
  std::vector<double> sum, count;
  for (int r = 0; r < data.rows; ++r) {
    const size_t a = size_t(number[size_t(r)]);
    if (a == first.size()) {
      first.push_back(r);
      sum.push_back(0);
      count.push_back(0);
    }
    sum[a] += data.y[size_t(r)];
    count[a] += 1;
  }
  Dataset out = take_rows(data, first);
  for (size_t a = 0; a < first.size(); ++a) out.y[a] = sum[a] / count[a];
  return out;
}

std::vector<int> shuffled(int count, uint64_t seed) {
  std::vector<int> order(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) order[size_t(i)] = i;
  Random(seed).shuffle(order);
  return order;
}

Split split_by_architecture(const Dataset& data, int train_rows, uint64_t seed) {
  CHECK(1 <= train_rows && train_rows < data.rows, "split_by_architecture: ", train_rows,
        " training rows asked of ", data.rows, "; at least one row must be left to test");
  const std::vector<int> number = architecture_of_row(data);
  std::vector<std::vector<int>> members;
  for (int r = 0; r < data.rows; ++r) {
    const size_t a = size_t(number[size_t(r)]);
    if (a == members.size()) members.emplace_back();
    members[a].push_back(r);
  }
  Split split;
  for (int a : shuffled(int(members.size()), seed)) {
    std::vector<int>& side = int(split.train.size()) < train_rows ? split.train : split.test;
    side.insert(side.end(), members[size_t(a)].begin(), members[size_t(a)].end());
  }
  CHECK(!split.test.empty(), "split_by_architecture: ", train_rows, " training rows leave none of the ",
        members.size(), " architectures to test");
  return split;
}

FeatureCoder::FeatureCoder(const Table& table, const std::vector<std::string>& columns, int max_levels) {
  CHECK(!columns.empty(), table.path(), ": no feature columns were named");
  CHECK(table.rows() > 0, table.path(), ": the table has no rows");
  for (const std::string& name : columns) {
    Column column;
    column.name = name;
    const int c = table.column(name);
    if (table.column_is_integer(c)) {
      for (int r = 0; r < table.rows(); ++r) {
        const int64_t value = table.integer(r, c);
        const auto at = std::lower_bound(column.levels.begin(), column.levels.end(), value);
        if (at == column.levels.end() || *at != value) column.levels.insert(at, value);
        if (int(column.levels.size()) > max_levels) break;
      }
      if (int(column.levels.size()) > max_levels) column.levels.clear();
    }
    if (column.levels.empty()) {
      double sum = 0, square = 0;
      for (int r = 0; r < table.rows(); ++r) sum += table.number(r, c);
      column.mean = sum / table.rows();
      for (int r = 0; r < table.rows(); ++r) square += std::pow(table.number(r, c) - column.mean, 2);
      column.deviation = square > 0 ? std::sqrt(square / table.rows()) : 1;
    }
    columns_.push_back(std::move(column));
  }
}

int FeatureCoder::width() const {
  int width = 0;
  for (const Column& column : columns_) width += column.levels.empty() ? 1 : int(column.levels.size());
  return width;
}

std::vector<int> FeatureCoder::level_groups() const {
  std::vector<int64_t> values;
  for (const Column& column : columns_)
    values.insert(values.end(), column.levels.begin(), column.levels.end());
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  std::vector<int> groups;
  for (const Column& column : columns_) {
    if (column.levels.empty()) groups.push_back(-1);
    for (const int64_t level : column.levels)
      groups.push_back(int(std::lower_bound(values.begin(), values.end(), level) - values.begin()));
  }
  return groups;
}

std::vector<float> FeatureCoder::encode(const Table& table) const {
  const size_t row_width = size_t(width());
  std::vector<float> x(size_t(table.rows()) * row_width, 0.0f);
  size_t offset = 0;
  for (const Column& column : columns_) {
    const int c = table.column(column.name);
    for (int r = 0; r < table.rows(); ++r) {
      float* const features = x.data() + size_t(r) * row_width + offset;
      if (column.levels.empty()) {
        *features = float((table.number(r, c) - column.mean) / column.deviation);
        continue;
      }
      const int64_t value = table.integer(r, c);
      const auto at = std::lower_bound(column.levels.begin(), column.levels.end(), value);
      if (at == column.levels.end() || *at != value)
        table.fail(r, join("column ", column.name, ": value ", value, " was never seen in training"));
      features[at - column.levels.begin()] = 1;
    }
    offset += column.levels.empty() ? 1 : column.levels.size();
  }
  return x;
}

Dataset read_dataset(const Table& table, const std::vector<std::string>& features,
                     const std::string& target) {
  const int y = table.column(target);
  const FeatureCoder coder(table, features);
  Dataset data;
  data.rows = table.rows();
  data.columns = coder.width();
  data.x = coder.encode(table);
  for (int r = 0; r < table.rows(); ++r) data.y.push_back(table.positive(r, y));
  return data;
}

}  // namespace lanas
