#include "predictor/transfer.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/check.h"
#include "predictor/linear.h"

namespace lanas {
namespace {

// Prior variances of the blocks and of the noise, in units of the samples' variance.
struct Prior {
  double block[3], noise;
};
constexpr Prior kChoosing = {{4, 0.5, 0.1}, 0.05};  // for choosing, before anything was measured
constexpr double kMeanVariance = 10;

std::vector<Prior> prior_grid() {
  std::vector<Prior> grid;
  for (const double source : {0.0, 0.25, 1.0, 4.0})
    for (const double count : {0.0, 0.1, 0.5, 2.0, 8.0})
      for (const double code : {0.0, 0.02, 0.1})
        for (const double noise : {0.003, 0.015, 0.06}) grid.push_back({{source, count, code}, noise});
  return grid;
}

// log of the marginal likelihood of z (but for a constant), and K^-1 z in `alpha`.
double log_likelihood(std::vector<double> k, const std::vector<double>& z, std::vector<double>& alpha) {
  const size_t n = z.size();
  alpha = z;
  CHECK(cholesky_solve(k, alpha), "Transfer::adapt: the covariance of ", n, " samples is singular");
  double quadratic = 0, log_diagonal = 0;
  for (size_t i = 0; i < n; ++i) {
    quadratic += z[i] * alpha[i];
    log_diagonal += std::log(k[i * n + i]);  // the factor stands where the matrix was
  }
  return -0.5 * quadratic - log_diagonal;
}

}  // namespace

Dataset count_features(const Dataset& code, const std::vector<int>& group) {
  CHECK(int(group.size()) == code.columns, "count_features: ", group.size(), " groups for ", code.columns,
        " columns");
  Dataset out;
  out.rows = code.rows;
  out.columns = 1 + *std::max_element(group.begin(), group.end());
  CHECK(out.columns > 0, "count_features: no column is counted");
  out.y = code.y;
  out.x.assign(size_t(out.rows) * size_t(out.columns), 0.f);
  for (int r = 0; r < code.rows; ++r)
    for (int c = 0; c < code.columns; ++c)
      if (group[size_t(c)] >= 0)
        out.x[size_t(r) * size_t(out.columns) + size_t(group[size_t(c)])] += code.row(r)[c];
  return out;
}

Transfer::Transfer(const TransferRows& candidates, const std::vector<int>& group) : group_(group) {
  CHECK(candidates.code.rows > 1, "Transfer: ", candidates.code.rows, " candidates");
  rows_ = candidates.code.rows;
  sources_ = int(candidates.sources.size());
  code_ = candidates.code.columns;
  counts_ = count_features(candidates.code, group).columns;
  begin_[1] = sources_;
  begin_[2] = begin_[1] + counts_;
  begin_[3] = begin_[2] + code_;
  centre_.assign(size_t(begin_[3]), 0);
  scale_.assign(size_t(begin_[3]), 1);
  candidates_ = features(candidates);
  const auto width = size_t(begin_[3]);
  std::vector<double> variance(width, 0.0);
  for (size_t f = 0; f < width; ++f) {
    double mean = 0;
    for (size_t r = 0; r < size_t(rows_); ++r) mean += candidates_[r * width + f] / rows_;
    for (size_t r = 0; r < size_t(rows_); ++r)
      variance[f] += std::pow(candidates_[r * width + f] - mean, 2) / rows_;
    centre_[f] = mean;
  }
  // A source has variance 1; the other blocks have it together.
  for (int block = 0; block < kBlocks; ++block) {
    double together = 0;
    for (int f = begin_[block]; f < begin_[block + 1]; ++f) together += variance[size_t(f)];
    for (int f = begin_[block]; f < begin_[block + 1]; ++f) {
      const double v = block == 0 ? variance[size_t(f)] * sources_ : together;
      scale_[size_t(f)] = v > 0 ? 1 / std::sqrt(v) : 0;
    }
  }
  candidates_ = features(candidates);
}

std::vector<double> Transfer::features(const TransferRows& rows) const {
  CHECK(rows.code.columns == code_ && int(rows.sources.size()) == sources_, "Transfer: rows of ",
        rows.code.columns, " numbers and ", rows.sources.size(), " sources, expected ", code_, " and ",
        sources_);
  const Dataset counts = count_features(rows.code, group_);
  const auto width = size_t(begin_[3]);
  std::vector<double> out(size_t(rows.code.rows) * width);
  for (int r = 0; r < rows.code.rows; ++r) {
    double* const to = out.data() + size_t(r) * width;
    for (int s = 0; s < sources_; ++s) {
      CHECK(int(rows.sources[size_t(s)].size()) == rows.code.rows, "Transfer: source ", s, " has ",
            rows.sources[size_t(s)].size(), " predictions for ", rows.code.rows, " rows");
      to[s] = rows.sources[size_t(s)][size_t(r)];
    }
    std::copy_n(counts.row(r), counts_, to + begin_[1]);
    std::copy_n(rows.code.row(r), code_, to + begin_[2]);
    for (size_t f = 0; f < width; ++f) to[f] = (to[f] - centre_[f]) * scale_[f];
  }
  return out;
}

// Greedy: variance given the rows chosen so far, by one column of the Cholesky factor a time.
std::vector<int> Transfer::choose(int count) const {
  CHECK(1 <= count && count <= rows_, "Transfer::choose: ", count, " of ", rows_, " candidates");
  const auto width = size_t(begin_[3]), rows = size_t(rows_);
  std::vector<double> phi(candidates_);
  std::vector<double> variance(rows, 0.0);
  for (size_t r = 0; r < rows; ++r)
    for (int block = 0; block < kBlocks; ++block)
      for (int f = begin_[block]; f < begin_[block + 1]; ++f) {
        double& v = phi[r * width + size_t(f)];
        v *= std::sqrt(kChoosing.block[block]);
        variance[r] += v * v;
      }
  std::vector<std::vector<double>> factor;
  std::vector<int> chosen;
  std::vector<char> taken(rows, 0);
  while (int(chosen.size()) < count) {
    // The first is the most ordinary one, the others are each the least known.
    size_t best = rows;
    for (size_t r = 0; r < rows; ++r)
      if (!taken[r] &&
          (best == rows || (chosen.empty() ? variance[r] < variance[best] : variance[r] > variance[best])))
        best = r;
    const double pivot = std::sqrt(variance[best] + kChoosing.noise);
    std::vector<double> column(rows);
    for (size_t r = 0; r < rows; ++r) {
      double dot = 0;
      for (size_t f = 0; f < width; ++f) dot += phi[r * width + f] * phi[best * width + f];
      for (const std::vector<double>& earlier : factor) dot -= earlier[r] * earlier[best];
      column[r] = dot / pivot;
      variance[r] = std::max(0.0, variance[r] - column[r] * column[r]);
    }
    factor.push_back(std::move(column));
    chosen.push_back(int(best));
    taken[best] = 1;
  }
  return chosen;
}

void Transfer::adapt(const std::vector<int>& rows, const std::vector<double>& y) {
  const size_t n = rows.size(), width = size_t(begin_[3]);
  CHECK(n >= 2 && y.size() == n, "Transfer::adapt: ", n, " rows and ", y.size(),
        " costs, expected at least 2");
  double mean = 0, variance = 0;
  for (const double v : y) mean += v / double(n);
  for (const double v : y) variance += (v - mean) * (v - mean) / double(n);
  const double deviation = std::max(std::sqrt(variance), 1e-9 * std::abs(mean));
  std::vector<double> z(n);
  for (size_t i = 0; i < n; ++i) z[i] = (y[i] - mean) / deviation;

  std::vector<double> gram[kBlocks];
  for (int block = 0; block < kBlocks; ++block) {
    gram[block].assign(n * n, 0.0);
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j <= i; ++j)
        for (int f = begin_[block]; f < begin_[block + 1]; ++f)
          gram[block][i * n + j] += candidates_[size_t(rows[i]) * width + size_t(f)] *
                                    candidates_[size_t(rows[j]) * width + size_t(f)];
  }
  const std::vector<Prior> grid = prior_grid();
  std::vector<std::vector<double>> alphas(grid.size());
  std::vector<double> likelihood(grid.size());
  for (size_t g = 0; g < grid.size(); ++g) {
    std::vector<double> k(n * n, kMeanVariance);
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j <= i; ++j)
        for (int block = 0; block < kBlocks; ++block)
          k[i * n + j] += grid[g].block[block] * gram[block][i * n + j];
      k[i * n + i] += grid[g].noise;
    }
    likelihood[g] = log_likelihood(std::move(k), z, alphas[g]);
  }
  const double best = *std::max_element(likelihood.begin(), likelihood.end());
  double total = 0;
  for (double& l : likelihood) total += l = std::exp(l - best);
  // f(x) = sum_g share_g sum_i cov_g(x, x_i) alpha_g,i, which is linear in the features of x.
  weights_.assign(width, 0.0);
  intercept_ = mean;
  for (size_t g = 0; g < grid.size(); ++g)
    for (size_t i = 0; i < n; ++i) {
      const double factor = deviation * likelihood[g] / total * alphas[g][i];
      intercept_ += kMeanVariance * factor;
      for (int block = 0; block < kBlocks; ++block) {
        if (grid[g].block[block] == 0) continue;
        for (int f = begin_[block]; f < begin_[block + 1]; ++f)
          weights_[size_t(f)] +=
              factor * grid[g].block[block] * candidates_[size_t(rows[i]) * width + size_t(f)];
      }
    }
}

std::vector<double> Transfer::predict(const TransferRows& rows) const {
  CHECK(!weights_.empty(), "Transfer::predict: before adapt");
  const std::vector<double> phi = features(rows);
  std::vector<double> out(size_t(rows.code.rows), intercept_);
  for (size_t r = 0; r < out.size(); ++r)
    for (size_t f = 0; f < weights_.size(); ++f) out[r] += weights_[f] * phi[r * weights_.size() + f];
  return out;
}

}  // namespace lanas
