// presets.cpp -- named settings of a run. "darts" and "pc-darts" are the published ones (docs/method.md);
// "quick" is the demo's, chosen so that a run takes minutes on two cores; docs/method.md says how.
#include "nas/pipeline.h"

namespace lanas {
namespace {

// The demo. Budget on two cores: latency table 30 s (90 s where the machine drifts), predictor 1 s, each of
// two searches 70 s, each of three retrainings 75 s, measuring and testing 10 s
// (stages in bench/results/cpu-epyc-9004/quick-seed*.json).
RunConfig quick() {
  RunConfig c;
  c.preset = "quick";
  c.latency_samples = 1000;
  // Latencies of a third of a millisecond, often on a shared machine: a calm one measures the table in 15 s,
  // with all waiting and stretches measured again it takes 90 s at most.
  c.campaign.latency.max_total_ms = 30;
  c.campaign.latency.max_wait_share = 3;
  c.lambdas = {0, 0.23};
  c.random_networks = 1;  // of the 8 of a full comparison: what the time allows
  SearchConfig& s = c.search;
  s.supernet = {8, 5, 10, 32, 32, 2, true};
  s.epochs = 4;
  s.frozen_epochs = 1;
  s.images = 6'000;
  s.validation_images = 1'000;
  s.alpha_lr = 0.02f;                  // few steps: alpha must move faster than in the published settings
  s.caps.max_pools = 2;                // which need no training and would win a search this short
  s.latency.mode = LatencyMode::soft;  // and its latency gradient must not be noisy
  RetrainConfig& r = c.retrain;
  r.network = {.channels = 8, .layers = 5, .batch = 32};
  r.epochs = 6;
  r.images = 12'000;
  r.lr = 0.05f;
  r.cutout = 0;
  r.drop_path = 0;
  r.flip = s.flip = true;
  r.crop_padding = s.crop_padding = 2;
  return c;
}

RunConfig published(bool partial, bool second_order = false) {
  RunConfig c;
  c.preset = partial ? "pc-darts" : second_order ? "darts-second-order" : "darts";
  c.search.second_order = second_order;
  c.search.measure_every = 5;
  c.latency_samples = 20'000;
  c.lambdas = {0, 0.1};
  c.random_networks = 1;
  c.search.supernet = partial ? SupernetConfig::pc_darts() : SupernetConfig::darts();
  c.search.supernet.batch = partial ? 256 : 64;
  c.search.epochs = 50;
  c.search.frozen_epochs = partial ? 15 : 0;
  c.search.lr = partial ? 0.1f : 0.025f;
  c.search.lr_min = partial ? 0 : 0.001f;
  c.search.alpha_lr = partial ? 6e-4f : 3e-4f;
  c.retrain.network.auxiliary = true;
  c.retrain.drop_path = partial ? 0.3f : 0.2f;
  return c;
}

}  // namespace

std::vector<std::string> preset_names() { return {"quick", "darts", "darts-second-order", "pc-darts"}; }

RunConfig preset(const std::string& name) {
  if (name == "quick") return quick();
  if (name == "darts" || name == "pc-darts") return published(name == "pc-darts");
  if (name == "darts-second-order") return published(false, true);
  throw Error("--preset: expected quick, darts, darts-second-order or pc-darts, found '" + name + "'");
}

}  // namespace lanas
