#include "nas/check_settings.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

namespace lanas {
namespace {

void whole(const char* flag, int64_t value, int64_t low, int64_t high) {
  CHECK(value >= low && value <= high, flag, ": expected ", low, " to ", high, ", found ", value);
}

void number(const char* flag, double value, double low, double high) {
  CHECK(value >= low && value <= high, flag, ": expected ", low, " to ", high, ", found ", value);
}

constexpr int kMany = 1'000'000'000;
constexpr double kHuge = 1e38;  // below the largest float

// The smallest part of `count` images must hold a batch: as split() rounds.
void batch_fits(const char* flag, int batch, double fraction, int count) {
  const int64_t part = std::lround(fraction * count);
  CHECK(batch <= part, flag, ": ", batch, " images do not fit into the ", part,
        " that are trained on, expected 1 to ", part);
}

void count_fits(const char* flag, int count, const ImageData& data) {
  CHECK(count <= data.train_count(), flag, ": expected 0 (all) to ", data.train_count(),
        ", the training images of ", data.name, ", found ", count);
}

void image_fits(int image, int classes, const ImageData& data) {
  CHECK(image == data.side && classes == data.classes, "--image: expected ", data.side,
        ", the side of the images of ", data.name, ", found ", image);
}

// How many numbers name the same search.
auto same_names(const std::vector<double>& numbers, double number) {
  return std::ranges::count_if(numbers, [&](double other) { return join(other) == join(number); });
}

}  // namespace

void check_search_settings(const SearchConfig& c) {
  const SupernetConfig& s = c.supernet;
  whole("--channels", s.channels, 1, 4096);
  whole("--layers", s.layers, 1, 1000);
  CHECK(s.partial >= 1 && s.partial <= s.channels && s.channels % s.partial == 0,
        "--partial: expected a divisor of the ", s.channels, " channels, found ", s.partial);
  whole("--batch", s.batch, 1, 65536);
  whole("--epochs", c.epochs, 1, 1'000'000);
  whole("--frozen-epochs", c.frozen_epochs, 0, kMany);
  whole("--images", c.images, 0, kMany);
  number("--lr", c.lr, 0, kHuge);
  number("--alpha-lr", c.alpha_lr, 0, kHuge);
  whole("--max-skips", c.caps.max_skips, 0, kPairs);
  whole("--max-pools", c.caps.max_pools, 0, kPairs);
  whole("--latency-draws", c.latency.samples, 1, 1024);
  whole("--stable-epochs", c.stable_epochs, 0, kMany);
  whole("--measure-every", c.measure_every, 0, kMany);
  number("--lambda-lr", c.latency.lambda_lr, 0, kHuge);
}

void check_retrain_settings(const RetrainConfig& c) {
  whole("--eval-channels", c.network.channels, 1, 4096);
  whole("--eval-layers", c.network.layers, 1, 1000);
  whole("--eval-epochs", c.epochs, 1, 1'000'000);
  whole("--eval-images", c.images, 0, kMany);
  whole("--eval-batch", c.network.batch, 1, 65536);
  number("--eval-lr", c.lr, 0, kHuge);
  CHECK(c.network.image >= 8 && c.network.image <= 1024 && c.network.image % 4 == 0,
        "--image: expected a multiple of 4 from 8 to 1024, found ", c.network.image);
  whole("--cutout", c.cutout, 0, 1024);
  CHECK(c.drop_path >= 0 && c.drop_path < 1, "--drop-path: expected 0 or more, below 1, found ", c.drop_path);
}

void check_latency_settings(const RunConfig& c) {
  whole("--eval-channels", c.retrain.network.channels, 1, 4096);
  whole("--eval-layers", c.retrain.network.layers, 1, 1000);
  whole("--latency-batch", c.campaign.latency.network.batch, 1, 65536);
  whole("--latency-threads", c.campaign.latency.threads, 1, 1024);
}

void check_run_settings(const RunConfig& c) {
  CHECK(!c.lambdas.empty() || !c.targets_ms.empty(), "--lambdas: expected at least one number");
  for (const double target : c.targets_ms) {
    CHECK(target > 0 && std::isfinite(target), "--target-ms: expected milliseconds above 0, found ", target);
    CHECK(same_names(c.targets_ms, target) == 1,
          "--target-ms: expected numbers that differ in six digits, found ", target, " twice");
  }
  for (size_t i = 0; i < c.lambdas.size(); ++i) {
    const double lambda = c.lambdas[i];
    CHECK(lambda >= 0 && std::isfinite(lambda), "--lambdas: expected numbers >= 0, found ", lambda);
    CHECK(same_names(c.lambdas, lambda) == 1, "--lambdas: expected numbers that differ in six digits, found ",
          lambda, " twice");
  }
  whole("--random", c.random_networks, 0, 1000);
  whole("--latency-samples", c.latency_samples, 5, kMany);  // fewer cannot be split to train and test on
  check_latency_settings(c);
  whole("--latency-redos", c.campaign.max_redos, 0, 1000);
  CHECK(c.campaign.latency.max_wait_share >= 0, "--latency-wait-share: expected at least 0, found ",
        c.campaign.latency.max_wait_share);
  whole("--final-rounds", c.final_rounds, 1, 1000);
  whole("--final-tries", c.final_tries, 1, 1000);
  check_search_settings(c.search);
  check_retrain_settings(c.retrain);
}

void check_search_images(const SearchConfig& c, const ImageData& data) {
  image_fits(c.supernet.image, c.supernet.classes, data);
  count_fits("--images", c.images, data);
  batch_fits("--batch", c.supernet.batch, 0.5, c.images > 0 ? c.images : data.train_count());
}

void check_retrain_images(const RetrainConfig& c, const ImageData& data) {
  image_fits(c.network.image, c.network.classes, data);
  count_fits("--eval-images", c.images, data);
  batch_fits("--eval-batch", c.network.batch, 1 - c.validation_fraction,
             c.images > 0 ? c.images : data.train_count());
  const int count = c.images > 0 ? c.images : data.train_count();
  CHECK(std::lround((1 - c.validation_fraction) * count) < count, "--eval-images: ", count,
        " images leave none to validate on");
}

void check_json_target(const std::string& path) {
  if (path.empty() || path == "-") return;
  check_writable("--json", path);
}

void check_writable(const char* flag, const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  CHECK(!fs::is_directory(status), flag, " ", path, ": is a folder, expected a file");
  if (fs::exists(status) && !fs::is_regular_file(status)) return;  // a device or a pipe
  const fs::path folder = fs::path(path).parent_path();
  CHECK(folder.empty() || fs::is_directory(folder, ignored), flag, " ", path,
        ": no such folder: ", folder.string());
  CHECK(access(folder.empty() ? "." : folder.c_str(), W_OK) == 0, flag, " ", path,
        ": cannot be written: ", std::strerror(errno));
}

}  // namespace lanas
