// code_regressor.h -- a small regressor of an invented latency, for tests of what uses one.
#pragma once

#include <functional>

#include "nas/search_space.h"
#include "predictor/regressor.h"

namespace lanas::test {

// Trained on `rows` architectures sampled with `seed`, whose latency in ms `latency_of` tells.
inline Regressor fit_code_regressor(int rows, uint64_t seed,
                                    const std::function<double(const Genotype&)>& latency_of) {
  Dataset data{rows, kCodeSize, {}, {}};
  for (int i = 0; i < rows; ++i) {
    const Genotype g = sample_architecture(seed, uint64_t(i)).genotype;
    const auto code = encode(g);
    data.x.insert(data.x.end(), code.begin(), code.end());
    data.y.push_back(latency_of(g));
  }
  Stream stream(Device::cpu, 1);
  RegressorConfig config;
  config.members = 2;
  config.mlp.epochs = 2;
  return Regressor::fit(data, config, stream);
}

}  // namespace lanas::test
