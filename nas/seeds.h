// seeds.h -- the same run with several seeds: one table with mean and standard deviation.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nas/report.h"

namespace lanas {

// Mean and sample standard deviation (n - 1; 0 for one value). Error without values.
struct Spread {
  double mean = 0, deviation = 0;
  int count = 0;
};
Spread spread_of(const std::vector<double>& values);

// Networks of the same name are one row: "latency  3  86.9 +- 0.2%  0.257 +- 0.003 ms ...".
std::string seeds_table(const std::vector<RunReport>& reports);
nlohmann::json seeds_json(const std::vector<RunReport>& reports);

}  // namespace lanas
