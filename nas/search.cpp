#include "nas/search.h"

#include <cmath>

#include "autograd/optimizer.h"
#include "nas/batch_loader.h"
#include "nas/evaluate.h"
#include "nas/search_space.h"
#include "nas/settings.h"
#include "nas/trainer_state.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

// Streams of random numbers of one search, told apart by their seeds.
uint64_t seed_of(uint64_t seed, uint64_t purpose) { return seed * 16 + purpose; }
enum : uint64_t { kWeights = 0, kSplit = 1, kWeightBatches = 2, kAlphaBatches = 3, kAugment = 4, kNoise = 5 };

double mean_entropy(const ParameterStore& architecture) {
  double total = 0;
  for (const char* name : {"alpha_normal", "alpha_reduce"}) {
    const LogStrengths log_p = log_strengths(architecture.read(name).data(), nullptr);
    for (const auto& row : log_p)
      for (double lp : row) total -= std::exp(lp) * lp;
  }
  return total / (2 * kEdges);
}

class Search {
 public:
  Search(Stream& stream, const SearchConfig& config, const ImageData& data, const Regressor* regressor,
         const std::string& checkpoint)
      : stream_(stream),
        config_(config),
        regressor_(regressor),
        weights_(stream.device()),
        buffers_(stream.device()),
        architecture_(stream.device()),
        net_(config.supernet, weights_, buffers_, architecture_),
        loader_(stream, data, false),
        reader_(stream, "search"),
        saver_(checkpoint, config.checkpoint_seconds) {
    CHECK(config.latency.lambda == 0 || regressor, "search: lambda ", config.latency.lambda,
          " needs a latency predictor");
    Var alpha_loss = net_.loss;
    if (regressor && config.latency.lambda != 0) {
      latency_.emplace(net_.tape, net_.alpha, net_.beta, *regressor, config.latency);
      alpha_loss = weighted_sum(net_.tape, {net_.loss, latency_->term}, {1, 1});
    }
    for (ParameterStore* store : {&weights_, &buffers_, &architecture_})
      store->allocate(seed_of(config.seed, kWeights));
    auto workspace = std::make_shared<Workspace>(stream.device());
    alpha_plan_.emplace(net_.tape, PlanOptions{{net_.loss}, alpha_loss, {&architecture_}, {}, true},
                        workspace);
    weight_plan_.emplace(net_.tape, PlanOptions{{net_.loss, net_.logits}, net_.loss, {&weights_}, {}, true},
                         workspace);
    valid_plan_.emplace(net_.tape, PlanOptions{{net_.loss, net_.logits}, {}, {}, {}, false}, workspace);
    alpha_plan_->update_statistics = weight_plan_->update_statistics = true;
    sgd_.emplace(weights_, config.momentum, config.weight_decay, config.clip);
    adam_.emplace(architecture_, config.alpha_lr, config.alpha_beta1, config.alpha_beta2,
                  config.alpha_weight_decay);
    const auto halves = split(seed_of(config.seed, kSplit), data.train_count(), config.images, {0.5, 0.5});
    weight_batches_.emplace(halves[0], config.supernet.batch, seed_of(config.seed, kWeightBatches));
    alpha_batches_.emplace(halves[1], config.supernet.batch, seed_of(config.seed, kAlphaBatches));
    validation_ = halves[1];
    if (config.validation_images > 0 && size_t(config.validation_images) < validation_.size())
      validation_.resize(size_t(config.validation_images));
    CHECK(steps_per_epoch() > 0, "search: ", halves[0].size(),
          " images for weights are less than one batch of ", config.supernet.batch);
  }

  SearchResult run(const SearchHooks& hooks) {
    if (saver_.exists()) load();
    run_training(
        state_, saver_,
        {.epochs = config_.epochs,
         .steps_per_epoch = steps_per_epoch(),
         .begin_epoch =
             [&] { sgd_->set_lr(cosine_lr(config_.lr, config_.lr_min, state_.epoch, config_.epochs)); },
         .step = [&] { return step(); },
         .end_epoch =
             [&](double start_ms) {
               history_.push_back(summarise());
               history_.back().seconds = seconds_since(start_ms);
               if (hooks.on_epoch) hooks.on_epoch(history_.back());
             },
         .save = [&] { return save(); },
         .on_step = hooks.on_step});
    return {derived(), history_};
  }

 private:
  int steps_per_epoch() const { return std::min(weight_batches_->per_epoch(), alpha_batches_->per_epoch()); }
  int64_t global_step() const { return int64_t{state_.epoch} * steps_per_epoch() + state_.step; }

  AugmentConfig augment(uint64_t purpose) const {
    AugmentConfig augment = loader_.plain();
    augment.padding = config_.crop_padding;
    augment.flip = config_.flip;
    augment.seed = seed_of(config_.seed, kAugment) * 2 + purpose;
    return augment;
  }

  void load_batch(std::span<const int> indices, uint64_t purpose) {
    loader_.load(stream_, net_.tape.data(net_.images), net_.tape.data(net_.labels), indices, augment(purpose),
                 uint64_t(global_step()));
  }

  // One bilevel step; returns the training loss, or the last one read.
  double step() {
    if (state_.epoch >= config_.frozen_epochs) {
      load_batch(alpha_batches_->random_batch(uint64_t(global_step())), 1);
      if (latency_) latency_->draw(stream_, seed_of(config_.seed, kNoise), uint64_t(global_step()));
      alpha_plan_->forward(stream_);
      alpha_plan_->backward(stream_);
      adam_->step(stream_);
    }
    load_batch(weight_batches_->epoch_batch(state_.epoch, state_.step), 0);
    weight_plan_->forward(stream_);
    weight_plan_->backward(stream_);
    sgd_->step(stream_);
    const int read_every = stream_.device() == Device::cpu ? 1 : 10;
    if (state_.step % read_every == 0)
      last_loss_ = reader_.read(stream_, state_, weight_plan_->value(net_.loss),
                                weight_plan_->value(net_.logits), net_.tape.data(net_.labels));
    return last_loss_;
  }

  Genotype derived() const {
    if (config_.max_skips >= kPairs) return derive_genotype(architecture_);
    const auto alpha_normal = architecture_.read("alpha_normal"),
               alpha_reduce = architecture_.read("alpha_reduce"),
               beta_normal = architecture_.read("beta_normal"),
               beta_reduce = architecture_.read("beta_reduce");
    return derive_with_skip_cap(alpha_normal.data(), alpha_reduce.data(),
                                beta_normal.empty() ? nullptr : beta_normal.data(),
                                beta_reduce.empty() ? nullptr : beta_reduce.data(), config_.max_skips);
  }

  SearchEpoch summarise() {
    const Accuracy valid =
        evaluate(stream_, {*valid_plan_, net_.tape, net_.images, net_.labels, net_.logits, net_.loss},
                 loader_, validation_);
    SearchEpoch epoch;
    epoch.epoch = state_.epoch;
    epoch.train_loss = state_.loss();
    epoch.train_accuracy = state_.accuracy();
    epoch.valid_loss = valid.loss;
    epoch.valid_accuracy = valid.accuracy;
    epoch.genotype = derived();
    epoch.skips_normal = count_skips(epoch.genotype.normal);
    epoch.skips_reduce = count_skips(epoch.genotype.reduce);
    epoch.alpha_entropy = mean_entropy(architecture_);
    if (regressor_) {
      epoch.soft_ms = soft_latency_ms(stream_, architecture_, *regressor_, config_.latency.temperature);
      epoch.hard_ms = predict_ms(*regressor_, epoch.genotype);
    }
    return epoch;
  }

  TensorFile save() const {
    TensorFile file;
    file.put("weights.", weights_);
    file.put("buffers.", buffers_);
    file.put("architecture.", architecture_);
    sgd_->save(file, "sgd.");
    adam_->save(file, "adam.");
    Json history = Json::array();
    for (const SearchEpoch& epoch : history_) history.push_back(to_json(epoch));
    describe_checkpoint(file, "search", to_json(config_), state_, history);
    return file;
  }

  void load() {
    const std::string& path = saver_.path();
    const TensorFile file = read_checkpoint(path, "search", to_json(config_));
    file.get("weights.", weights_, path);
    file.get("buffers.", buffers_, path);
    file.get("architecture.", architecture_, path);
    sgd_->load(file, "sgd.", path);
    adam_->load(file, "adam.", path);
    try {
      state_ = TrainerState::from_json(Json::parse(file.metadata.at("state")));
      for (const Json& epoch : Json::parse(file.metadata.at("history")))
        history_.push_back(search_epoch_from_json(epoch));
    } catch (const Json::exception& e) {
      throw Error(join(path, ": its metadata is damaged: ", e.what()));
    }
  }

  Stream& stream_;
  SearchConfig config_;
  const Regressor* regressor_;
  ParameterStore weights_, buffers_, architecture_;
  Supernet net_;
  std::optional<LatencyLoss> latency_;
  std::optional<Plan> alpha_plan_, weight_plan_, valid_plan_;
  std::optional<Sgd> sgd_;
  std::optional<Adam> adam_;
  BatchLoader loader_;
  std::optional<MiniBatches> weight_batches_, alpha_batches_;
  std::vector<int> validation_;
  StepReader reader_;
  Checkpointer saver_;
  TrainerState state_;
  std::vector<SearchEpoch> history_;
  double last_loss_ = 0;
};

}  // namespace

SearchResult search(Stream& stream, const SearchConfig& config, const ImageData& data,
                    const Regressor* regressor, const std::string& checkpoint, const SearchHooks& hooks) {
  return Search(stream, config, data, regressor, checkpoint).run(hooks);
}

}  // namespace lanas
