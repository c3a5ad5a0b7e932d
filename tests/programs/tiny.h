// tiny.h -- a job of seconds: images whose classes are stripes of different width and brightness, a latency
// table by formula, and the options of a run on them.
#pragma once

#include <zlib.h>

#include <cstdint>

#include "nas/campaign.h"
#include "tests/programs/program.h"

namespace lanas::test {

inline std::string idx_bytes(const std::vector<uint32_t>& sizes, const std::string& content) {
  std::string bytes = {0, 0, 8, char(sizes.size())};
  for (uint32_t size : sizes)
    for (int shift = 24; shift >= 0; shift -= 8) bytes += char(size >> shift);
  return bytes + content;
}

inline void write_gz(const std::filesystem::path& path, const std::string& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_EQ(gzwrite(file, bytes.data(), unsigned(bytes.size())), int(bytes.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
}

// Horizontal stripes, which neither a flip nor a small shift turns into another class.
inline void write_images(const std::filesystem::path& folder, uint32_t train = 240, uint32_t tests = 100) {
  std::filesystem::create_directories(folder);
  uint32_t noise = 1;
  for (const auto& [prefix, count] : {std::pair{"train", train}, {"t10k", tests}}) {
    std::string images, labels;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t label = i % 10, width = 1 + label % 5 * (1 + label % 5) / 2,
                     height = label < 5 ? 70 : 180;
      labels += char(label);
      for (uint32_t pixel = 0; pixel < 28 * 28; ++pixel) {
        noise = noise * 1664525 + 1013904223;
        images += char((noise >> 24) % 40 + (pixel / 28 / width % 2 ? height : 0));
      }
    }
    write_gz(folder / (std::string(prefix) + "-images-idx3-ubyte.gz"), idx_bytes({count, 28, 28}, images));
    write_gz(folder / (std::string(prefix) + "-labels-idx1-ubyte.gz"), idx_bytes({count}, labels));
  }
}

// A finished campaign of this machine and the tiny network, its latencies by formula: no clock in it.
inline void write_latency_table(const std::filesystem::path& path, int count = 40) {
  CampaignConfig config;
  config.latency.network = {.channels = 4, .layers = 3, .batch = 1};
  config.count = count;
  config.measure = [](const Genotype& genotype) {
    double ms = 0.1;
    for (const CellGenotype* cell : {&genotype.normal, &genotype.reduce})
      for (const CellEdge& edge : *cell) ms += 0.004 * int(edge.op) * (1 + edge.input % 2);
    return Latency{ms, 0.98 * ms, 1.03 * ms, 20, 1000};
  };
  run_campaign(path, config);
}

// Options of search and network; the steps of an epoch are 5 in the search and 9 in training.
inline Words tiny_search() {
  return {"--data",   "data", "--channels", "4", "--layers",        "3", "--partial", "2", "--batch", "24",
          "--images", "0",    "--epochs",   "2", "--frozen-epochs", "1", "--threads", "1", "--quiet"};
}
inline Words tiny_network() {
  return {"--eval-channels", "4", "--eval-layers", "3", "--eval-epochs", "2",
          "--eval-images",   "0", "--eval-batch",  "24"};
}
inline Words tiny_run(const std::string& out) {
  return Words{"run",   "--out",           out, "--lambdas",
               "0,0.5", "--random",        "1", "--latency-samples",
               "40",    "--latency-redos", "0", "--final-rounds",
               "1",     "--final-tries",   "1", "--latency-wait-share",
               "0"} +
         tiny_search() + tiny_network();
}

}  // namespace lanas::test
