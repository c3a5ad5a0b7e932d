#include "nas/latency_loss.h"

#include "kernels/ops/architecture_code.h"
#include "kernels/ops/optimizer.h"
#include "nas/search_space.h"

namespace lanas {
namespace {

constexpr CellLayout kLayout;
static_assert(kLayout.code_size() == kCellCode && kLayout.edges() == kEdges);

}  // namespace

LatencyMode parse_latency_mode(const std::string& name) {
  for (LatencyMode mode : {LatencyMode::soft, LatencyMode::hard, LatencyMode::sample})
    if (name == latency_mode_name(mode)) return mode;
  throw Error("--latency-mode: expected soft, hard or sample, found '" + name + "'");
}

const char* latency_mode_name(LatencyMode mode) {
  return mode == LatencyMode::soft ? "soft" : mode == LatencyMode::hard ? "hard" : "sample";
}

LatencyLoss::LatencyLoss(Tape& tape, const Var alpha[2], const Var beta[2], const Regressor& regressor,
                         const LatencyLossConfig& config)
    : tape_(tape), config_(config) {
  CHECK(config.reference_ms > 0 && config.temperature > 0 && config.samples > 0, "latency loss: reference ",
        config.reference_ms, " ms, temperature ", config.temperature, " and samples ", config.samples,
        " must be positive");
  const bool sampled = config.mode == LatencyMode::sample;
  const int samples = sampled ? config.samples : 1;
  const Var temperature = tape.input({1, 1, 1, 1});
  scale_ = tape.input({1, 1, 1, 1});
  const float factor = float(config.lambda / unit_ms());
  upload(tape.device(), tape.data(temperature).data, &config.temperature, sizeof(float));
  upload(tape.device(), tape.data(scale_).data, &factor, sizeof factor);
  const Var code = tape.activation({samples, 1, 1, kCodeSize});
  for (int kind = 0; kind < 2; ++kind) {
    if (sampled) noise_[kind] = tape.input({samples, 1, 1, kLayout.noise_size()});
    architecture_code(tape, alpha[kind], beta[kind], noise_[kind], temperature, samples,
                      config.mode != LatencyMode::soft,
                      tape.slice(code, kind * kCellCode, (kind + 1) * kCellCode));
  }
  latency_ms = mean_rows(tape, regressor.apply(tape, code));
  term = scale_segments(tape, latency_ms, scale_, {1});
  step_ = Memory(tape.device(), sizeof(uint64_t));
}

void LatencyLoss::set_step(Stream& stream, uint64_t step) {
  upload(stream, step_.data(), &step, sizeof step);
}

void LatencyLoss::draw(Stream& stream, uint64_t seed) {
  if (!noise_[0]) return;
  for (int kind = 0; kind < 2; ++kind) {
    const Tensor noise = tape_.data(noise_[kind]);
    gumbel_noise(stream, noise.data, noise.size(), seed * 2 + uint64_t(kind),
                 static_cast<const uint64_t*>(step_.data()));
  }
}

void LatencyLoss::ascend(Stream& stream, Plan& plan) {
  if (config_.target_ms == 0) return;
  multiplier_ascent(stream, tape_.data(scale_).data, plan.value(latency_ms).data,
                    float(config_.lambda_lr / unit_ms()), float(config_.target_ms));
}

double LatencyLoss::lambda(Stream& stream) const {
  if (config_.target_ms == 0) return config_.lambda;
  float scale = 0;
  download(stream, &scale, tape_.data(scale_).data, sizeof scale);
  return double(scale) * unit_ms();
}

void LatencyLoss::set_lambda(Stream& stream, double lambda) {
  const float factor = float(lambda / unit_ms());
  upload(stream, tape_.data(scale_).data, &factor, sizeof factor);
}

double soft_latency_ms(Stream& stream, const ParameterStore& architecture, const Regressor& regressor,
                       float temperature) {
  Tape tape(architecture.device());
  Var alpha[2], beta[2];
  const char* kinds[2] = {"normal", "reduce"};
  for (int kind = 0; kind < 2; ++kind) {
    alpha[kind] = tape.parameter(architecture, architecture.find(join("alpha_", kinds[kind])));
    if (const int index = architecture.find(join("beta_", kinds[kind])); index >= 0)
      beta[kind] = tape.parameter(architecture, index);
  }
  const LatencyLoss loss(tape, alpha, beta, regressor,
                         {.mode = LatencyMode::soft, .samples = 1, .temperature = temperature, .lambda = 1});
  Plan plan(tape, {.outputs = {loss.latency_ms}}, std::make_shared<Workspace>(architecture.device()));
  plan.forward(stream);
  float ms = 0;
  download(stream, &ms, plan.value(loss.latency_ms).data, sizeof ms);
  return ms;
}

double predict_ms(const Regressor& regressor, const Genotype& genotype) {
  const auto code = encode(genotype);
  Dataset row{1, kCodeSize, {code.begin(), code.end()}, {1}};
  return regressor.predict(row)[0];
}

}  // namespace lanas
