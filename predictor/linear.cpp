#include "predictor/linear.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/check.h"
#include "kernels/core/parallel.h"

namespace lanas {
namespace {

// Sums over rows z = (x, y - offset): count, sum of z, and the lower triangle of sum of z z'.
struct Moments {
  double count = 0;
  std::vector<double> sum;     // [p + 1]
  std::vector<double> square;  // [p + 1, p + 1], lower triangle

  explicit Moments(int p) : sum(size_t(p) + 1, 0.0), square((size_t(p) + 1) * (size_t(p) + 1), 0.0) {}

  void add(const Moments& other, double sign) {
    count += sign * other.count;
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += sign * other.sum[i];
    for (size_t i = 0; i < square.size(); ++i) square[i] += sign * other.square[i];
  }
};

// Moments of every fold; fold_of_row gives each row's fold. Only the entries that are not zero are visited:
// codes are mostly one-hot. One thread per band of columns, so the sums are always in the order of the rows.
std::vector<Moments> fold_moments(const Dataset& data, const std::vector<int>& fold_of_row, int folds,
                                  double offset) {
  const int p = data.columns;
  std::vector<Moments> moments(static_cast<size_t>(folds), Moments(p));
  const int bands = omp_in_parallel() ? 1 : std::max(1, omp_get_max_threads());
  parallel_for(bands, [&](int64_t band) {
    std::vector<int> index(static_cast<size_t>(p) + 1);
    std::vector<double> value(static_cast<size_t>(p) + 1);
    for (int r = 0; r < data.rows; ++r) {
      Moments& m = moments[size_t(fold_of_row[size_t(r)])];
      const float* x = data.row(r);
      int used = 0;
      for (int c = 0; c <= p; ++c) {
        const double v = c < p ? double(x[c]) : data.y[size_t(r)] - offset;
        if (v == 0) continue;
        index[size_t(used)] = c;
        value[size_t(used++)] = v;
      }
      for (int i = 0; i < used; ++i) {
        if (index[size_t(i)] % bands != band) continue;
        double* const to = m.square.data() + size_t(index[size_t(i)]) * (size_t(p) + 1);
        m.sum[size_t(index[size_t(i)])] += value[size_t(i)];
        for (int j = 0; j <= i; ++j) to[index[size_t(j)]] += value[size_t(i)] * value[size_t(j)];
      }
      if (band == 0) m.count += 1;
    }
  });
  return moments;
}

// Ridge weights from moments; the intercept is relative to the moments' offset. No weights where the normal
// matrix is singular (it does not throw: it is called from parallel loops).
LinearModel solve(const Moments& m, double penalty) {
  const size_t p = m.sum.size() - 1, stride = p + 1;
  std::vector<double> normal(p * p), right(p);
  for (size_t i = 0; i < p; ++i)
    for (size_t j = 0; j <= i; ++j)
      normal[i * p + j] = m.square[i * stride + j] - m.sum[i] * m.sum[j] / m.count + (i == j ? penalty : 0);
  for (size_t i = 0; i < p; ++i) right[i] = m.square[p * stride + i] - m.sum[i] * m.sum[p] / m.count;
  LinearModel model;
  model.penalty = penalty;
  if (!cholesky_solve(normal, right)) return model;
  model.weights = std::move(right);
  model.intercept = m.sum[p];
  for (size_t i = 0; i < p; ++i) model.intercept -= model.weights[i] * m.sum[i];
  model.intercept /= m.count;
  return model;
}

// Sum of squared residuals over the rows behind the moments: q'Sq with q = (-w, 1), minus the intercept's
// part.
double squared_error(const Moments& m, const LinearModel& model) {
  const size_t p = m.sum.size() - 1, stride = p + 1;
  double quadratic = 0, linear = 0;
  const auto q = [&](size_t i) { return i < p ? -model.weights[i] : 1.0; };
  for (size_t i = 0; i <= p; ++i) {
    double row = 0.5 * m.square[i * stride + i] * q(i);
    for (size_t j = 0; j < i; ++j) row += m.square[i * stride + j] * q(j);
    quadratic += 2 * row * q(i);
    linear += m.sum[i] * q(i);
  }
  return quadratic - 2 * model.intercept * linear + m.count * model.intercept * model.intercept;
}

double mean_target(const Dataset& data) {
  CHECK(data.rows > 0 && data.columns > 0, "fit_ridge: a table of ", data.rows, " rows and ", data.columns,
        " features");
  CHECK(data.x.size() == size_t(data.rows) * size_t(data.columns) && data.y.size() == size_t(data.rows),
        "fit_ridge: ", data.x.size(), " features and ", data.y.size(), " targets for ", data.rows,
        " rows of ", data.columns);
  double sum = 0;
  for (double y : data.y) sum += y;
  CHECK(std::isfinite(sum), "fit_ridge: a target is not finite");
  return sum / data.rows;
}

void check_solved(const LinearModel& model, int columns) {
  CHECK(int(model.weights.size()) == columns, "fit_ridge: the normal matrix of ", columns,
        " features is singular at penalty ", model.penalty);
}

}  // namespace

bool cholesky_solve(std::vector<double>& a, std::vector<double>& b) {
  const size_t n = b.size();
  CHECK(a.size() == n * n, "cholesky_solve: ", a.size(), " entries for ", n, " unknowns");
  for (size_t i = 0; i < n; ++i) {
    double* const ai = a.data() + i * n;
    for (size_t j = 0; j <= i; ++j) {
      const double* const aj = a.data() + j * n;
      double dot[4] = {0, 0, 0, 0};  // four chains: the sum is not reordered by the compiler
      size_t k = 0;
      for (; k + 4 <= j; k += 4)
        for (size_t t = 0; t < 4; ++t) dot[t] += ai[k + t] * aj[k + t];
      for (; k < j; ++k) dot[0] += ai[k] * aj[k];
      const double rest = ai[j] - ((dot[0] + dot[1]) + (dot[2] + dot[3]));
      if (i != j) {
        ai[j] = rest / aj[j];
      } else {
        if (!(rest > 0)) return false;
        ai[i] = std::sqrt(rest);
      }
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    b[i] /= a[i * n + i];
    for (size_t k = 0; k < i; ++k) b[k] -= a[i * n + k] * b[i];
  }
  return true;
}

double LinearModel::predict(const float* row) const {
  double sum = intercept;
  for (size_t i = 0; i < weights.size(); ++i) sum += weights[i] * double(row[i]);
  return sum;
}

std::vector<double> LinearModel::predict(const Dataset& data) const {
  CHECK(data.columns == int(weights.size()), "linear model: a row of ", data.columns, " features for ",
        weights.size(), " weights");
  std::vector<double> out(static_cast<size_t>(data.rows));
  for (int r = 0; r < data.rows; ++r) out[size_t(r)] = predict(data.row(r));
  return out;
}

LinearModel fit_ridge_with_penalty(const Dataset& data, double penalty) {
  const double offset = mean_target(data);
  CHECK(penalty > 0, "fit_ridge: penalty ", penalty, " is not positive");
  LinearModel model =
      solve(fold_moments(data, std::vector<int>(size_t(data.rows), 0), 1, offset)[0], penalty);
  check_solved(model, data.columns);
  model.intercept += offset;
  return model;
}

LinearModel fit_ridge(const Dataset& data, const RidgeConfig& config) {
  const double offset = mean_target(data);
  CHECK(data.rows >= 2 && config.folds >= 2 && config.steps >= 2, "fit_ridge: ", data.rows, " rows in ",
        config.folds, " folds with ", config.steps, " penalties; each must be at least 2");
  const int folds = std::min(config.folds, data.rows);
  std::vector<int> fold_of_row(static_cast<size_t>(data.rows));
  const std::vector<int> order = shuffled(data.rows, config.seed);
  for (int i = 0; i < data.rows; ++i) fold_of_row[size_t(order[size_t(i)])] = i % folds;
  const std::vector<Moments> parts = fold_moments(data, fold_of_row, folds, offset);
  Moments all(data.columns);
  for (const Moments& part : parts) all.add(part, 1);

  std::vector<double> error(static_cast<size_t>(config.steps), 0.0);
  const double ratio = std::log(config.largest / config.smallest) / (config.steps - 1);
  const auto penalty_at = [&](int64_t s) { return config.smallest * std::exp(ratio * double(s)); };
  std::vector<Moments> rest(static_cast<size_t>(folds), all);
  for (int f = 0; f < folds; ++f) rest[size_t(f)].add(parts[size_t(f)], -1);
  parallel_for(config.steps, [&](int64_t s) {
    for (size_t f = 0; f < size_t(folds); ++f) {
      const LinearModel model = solve(rest[f], penalty_at(s));
      error[size_t(s)] += model.weights.empty() ? HUGE_VAL : squared_error(parts[f], model);
    }
  });
  const int best = int(std::min_element(error.begin(), error.end()) - error.begin());
  LinearModel model = solve(all, penalty_at(best));
  check_solved(model, data.columns);
  model.intercept += offset;
  model.cross_validated_mse = std::max(0.0, error[size_t(best)]) / data.rows;
  return model;
}

}  // namespace lanas
