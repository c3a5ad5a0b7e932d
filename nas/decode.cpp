#include "nas/decode.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/core/random.cuh"

namespace lanas {
namespace {

using Json = nlohmann::json;

constexpr int kSampled = 2000;  // random genotypes behind the linear model
constexpr uint64_t kSampleStream = uint64_t{0x4445434f} << 32;
constexpr int kExact = 4096;   // decodings of alpha looked at in exact order
constexpr int kShifted = 512;  // and of each shifted alpha
constexpr double kWiden = 1.1,
                 kWidest = 1.6;  // of the predicted band, where it holds nothing more to measure

double score_of(const std::array<LogStrengths, 2>& strengths, const Genotype& genotype) {
  double score = 0;
  for (int kind = 0; kind < 2; ++kind) {
    const CellGenotype& cell = kind == 0 ? genotype.normal : genotype.reduce;
    for (int pair = 0; pair < kPairs; ++pair)
      score += strengths[size_t(kind)][size_t(edge_index(pair / 2, cell[size_t(pair)].input))]
                        [size_t(cell[size_t(pair)].op)];
  }
  return score;
}

// Every way to choose one node of a genotype, the others as they are.
std::vector<ScoredGenotype> neighbours(const Genotype& genotype, int kind, int node) {
  std::vector<ScoredGenotype> all;
  for (int a = 0; a < inputs_of(node); ++a)
    for (int b = a + 1; b < inputs_of(node); ++b)
      for (int ops = 0; ops < kChoosableOps * kChoosableOps; ++ops) {
        Genotype next = genotype;
        CellGenotype& cell = kind == 0 ? next.normal : next.reduce;
        cell[size_t(2 * node)] = {OpKind(1 + ops / kChoosableOps), a};
        cell[size_t(2 * node + 1)] = {OpKind(1 + ops % kChoosableOps), b};
        all.push_back({next, 0});
      }
  return all;
}

// Index of the best score measured within the band; -1: none.
int best_within(const std::vector<VerifiedGenotype>& tried, double low, double high) {
  int best = -1;
  for (size_t i = 0; i < tried.size(); ++i)
    if (tried[i].measured_ms >= low && tried[i].measured_ms <= high &&
        (best < 0 || tried[i].log_strength > tried[size_t(best)].log_strength))
      best = int(i);
  return best;
}

// The best score within the band, its latency confirmed by two more measurements; -1: none.
int best_confirmed(std::vector<VerifiedGenotype>& tried, double low, double high,
                   const std::function<double(const Genotype&)>& measure_ms) {
  for (;;) {
    const int best = best_within(tried, low, high);
    if (best < 0 || tried[size_t(best)].measurements > 1) return best;
    VerifiedGenotype& g = tried[size_t(best)];
    std::array<double, 3> ms = {g.measured_ms, measure_ms(g.genotype), measure_ms(g.genotype)};
    std::sort(ms.begin(), ms.end());
    g.measured_ms = ms[1];
    g.measurements = 3;
  }
}

}  // namespace

Decoder::Decoder(const Regressor& regressor, const OperationCaps& caps) : regressor_(regressor), caps_(caps) {
  CHECK(regressor.inputs() == kCodeSize, "decode: the predictor takes ", regressor.inputs(),
        " numbers, a genotype has ", kCodeSize);
  std::vector<ScoredGenotype> sampled;
  Random random(0, kSampleStream);
  for (int i = 0; i < kSampled; ++i) sampled.push_back({sample_genotype(random), 0});
  Dataset data{kSampled, kCodeSize, {}, predict(sampled)};
  for (const ScoredGenotype& s : sampled) {
    const auto code = encode(s.genotype);
    data.x.insert(data.x.end(), code.begin(), code.end());
  }
  linear_ = fit_ridge_with_penalty(data, 1e-3);
}

std::vector<double> Decoder::predict(const std::vector<ScoredGenotype>& genotypes) const {
  std::vector<float> rows;
  for (const ScoredGenotype& g : genotypes) {
    const auto code = encode(g.genotype);
    rows.insert(rows.end(), code.begin(), code.end());
  }
  return regressor_.predict(rows.data(), int(genotypes.size()));
}

// strength - per_ms * (what the op adds to the latency, against an unused edge).
Decoder::Strengths Decoder::shifted(const Strengths& strengths, double per_ms) const {
  Strengths shifted = strengths;
  for (size_t kind = 0; kind < 2; ++kind)
    for (size_t edge = 0; edge < size_t(kEdges); ++edge) {
      const double* row = linear_.weights.data() + kind * size_t(kCellCode) + edge * size_t(kOps);
      for (size_t op = 0; op < size_t(kOps); ++op) shifted[kind][edge][op] -= per_ms * (row[op] - row[0]);
    }
  return shifted;
}

Genotype Decoder::extreme(int sign) const {
  const Strengths by_latency = shifted({}, sign);
  Genotype best = derive_with_caps(by_latency[0], by_latency[1], caps_);
  double best_ms = predict({{best, 0}})[0];
  for (bool better = true; better;) {
    better = false;
    for (int kind = 0; kind < 2; ++kind)
      for (int node = 0; node < kNodes; ++node) {
        const std::vector<ScoredGenotype> all = neighbours(best, kind, node);
        const std::vector<double> ms = predict(all);
        for (size_t i = 0; i < all.size(); ++i) {
          if (sign * ms[i] >= sign * best_ms - 1e-9 * best_ms || !caps_.hold(all[i].genotype)) continue;
          best_ms = ms[i];
          best = all[i].genotype;
          better = true;
        }
      }
  }
  return best;
}

LatencyRange Decoder::range() const {
  LatencyRange range;
  range.fastest = extreme(1);
  range.slowest = extreme(-1);
  const std::vector<double> ms = predict({{range.fastest, 0}, {range.slowest, 0}});
  range.low_ms = ms[0];
  range.high_ms = ms[1];
  return range;
}

std::vector<VerifiedGenotype> Decoder::candidates(const ArchitectureValues& architecture, double low_ms,
                                                  double high_ms, const DecodeConfig& config,
                                                  const std::vector<uint64_t>& taken) const {
  const Strengths strengths = {architecture.strengths(0), architecture.strengths(1)};
  std::set<uint64_t> seen(taken.begin(), taken.end());
  std::vector<VerifiedGenotype> found;
  // Adds what lies in the band of the `count` best by `by`; returns the prediction of the very best.
  auto collect = [&](const Strengths& by, int count) {
    const std::vector<ScoredGenotype> top = top_genotypes(by[0], by[1], count);
    const std::vector<double> ms = predict(top);
    for (size_t i = 0; i < top.size(); ++i) {
      const Genotype& g = top[i].genotype;
      if (ms[i] < low_ms || ms[i] > high_ms || !caps_.hold(g)) continue;
      if (seen.insert(genotype_key(g)).second) found.push_back({g, score_of(strengths, g), ms[i], 0});
    }
    return ms.at(0);
  };
  // Where caps leave too few, what they cap is made less likely, more and more.
  for (double unlikely = 0; unlikely <= 16; unlikely = unlikely == 0 ? 1 : 2 * unlikely) {
    Strengths by = strengths;
    for (size_t kind = 0; kind < 2; ++kind)
      for (auto& row : by[kind])
        for (const OpKind op : caps_.capped(int(kind))) row[size_t(op)] -= unlikely;
    double best_ms = collect(by, kExact);
    if (int(found.size()) >= config.count) break;
    // Doubles the shift until the best decoding has crossed the band, then bisects: its way leads through.
    const double middle = (low_ms + high_ms) / 2, sign = best_ms > middle ? 1 : -1;
    double near = 0, far = 1e-3 / middle;
    while (far * middle < 1e4 &&
           sign * (best_ms = collect(shifted(by, sign * far), kShifted)) > sign * middle)
      near = far, far *= 2;
    for (int i = 0; i < 16; ++i) {
      const double between = (near + far) / 2;
      best_ms = collect(shifted(by, sign * between), kShifted);
      (sign * best_ms > sign * middle ? near : far) = between;
    }
    if (int(found.size()) >= config.count || !caps_.any()) break;
  }
  std::stable_sort(found.begin(), found.end(), [](const VerifiedGenotype& a, const VerifiedGenotype& b) {
    return a.log_strength > b.log_strength;
  });
  if (int(found.size()) > config.count) found.resize(size_t(config.count));
  return found;
}

Decoding Decoder::decode(const ArchitectureValues& architecture, const DecodeConfig& config,
                         const std::function<double(const Genotype&)>& measure_ms) const {
  const double high = config.target_ms, low = config.low * config.target_ms;
  Decoding decoding;
  std::vector<uint64_t> taken;
  std::vector<double> ratios;  // measured to predicted
  double wider = 1;            // grows while no decoding that is not measured yet is predicted in the band
  for (int round = 0; round < config.rounds && decoding.chosen < 0 && wider < kWidest;) {
    double ratio = 1;
    if (!ratios.empty()) {
      std::nth_element(ratios.begin(), ratios.begin() + std::ptrdiff_t(ratios.size() / 2), ratios.end());
      ratio = ratios[ratios.size() / 2];
    }
    const auto found = candidates(architecture, low / ratio / wider, high / ratio * wider, config, taken);
    if (found.empty()) {
      wider *= kWiden;
      continue;
    }
    ++round;
    for (VerifiedGenotype g : found) {
      g.measured_ms = measure_ms(g.genotype);
      ratios.push_back(g.measured_ms / g.predicted_ms);
      taken.push_back(genotype_key(g.genotype));
      decoding.tried.push_back(g);
    }
    for (const double margin : {config.margin, 0.0})
      if (decoding.chosen < 0)
        decoding.chosen = best_confirmed(decoding.tried, low * (1 + margin), high * (1 - margin), measure_ms);
  }
  return decoding;
}

void check_target(double target_ms, double low, double fastest_ms, double slowest_ms) {
  CHECK(target_ms >= fastest_ms && low * target_ms <= slowest_ms, "--target-ms ", target_ms,
        ": out of reach here; networks of this space take ", fastest_ms, " to ", slowest_ms,
        " ms, expected a target between them");
}

std::string describe(const Decoding& decoding, const DecodeConfig& config) {
  const std::string band = join("[", config.low * config.target_ms, ", ", config.target_ms, "] ms");
  if (decoding.tried.empty()) return "no decoding of alpha is predicted within " + band;
  if (decoding.chosen >= 0) {
    const VerifiedGenotype& g = decoding.tried[size_t(decoding.chosen)];
    return join("measured ", g.measured_ms, " ms, predicted ", g.predicted_ms, " ms, within ", band,
                ", number ", decoding.chosen + 1, " of ", decoding.tried.size(), " decodings measured");
  }
  auto off = [&](const VerifiedGenotype& g) {
    return std::max(config.low * config.target_ms - g.measured_ms, g.measured_ms - config.target_ms);
  };
  const auto nearest =
      std::min_element(decoding.tried.begin(), decoding.tried.end(),
                       [&](const VerifiedGenotype& a, const VerifiedGenotype& b) { return off(a) < off(b); });
  return join("none of ", decoding.tried.size(), " decodings measured within ", band, ", the nearest ",
              nearest->measured_ms, " ms");
}

Json to_json(const Decoding& decoding) {
  Json tried = Json::array();
  for (const VerifiedGenotype& g : decoding.tried)
    tried.push_back({{"genotype", write_genotype(g.genotype)},
                     {"log_strength", g.log_strength},
                     {"predicted_ms", g.predicted_ms},
                     {"measured_ms", g.measured_ms},
                     {"measurements", g.measurements}});
  return {{"chosen", decoding.chosen}, {"tried", tried}};
}

Decoding decoding_from_json(const Json& json) {
  Decoding decoding;
  decoding.chosen = json.at("chosen");
  for (const Json& g : json.at("tried"))
    decoding.tried.push_back({read_genotype(g.at("genotype").get<std::string>()), g.at("log_strength"),
                              g.at("predicted_ms"), g.at("measured_ms"), g.value("measurements", 1)});
  CHECK(decoding.chosen >= -1 && decoding.chosen < int(decoding.tried.size()), "decoding: chosen ",
        decoding.chosen, " of ", decoding.tried.size());
  return decoding;
}

}  // namespace lanas
