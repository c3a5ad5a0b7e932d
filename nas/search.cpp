#include "nas/search.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>

#include "autograd/optimizer.h"
#include "nas/batch_loader.h"
#include "nas/evaluate.h"
#include "nas/search_space.h"
#include "nas/second_order.h"
#include "nas/settings.h"
#include "nas/trainer_state.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

// Streams of random numbers of one search, told apart by their seeds.
enum class SearchStream : uint64_t { weights, split, weight_batches, alpha_batches, augment, noise };
uint64_t seed_of(uint64_t seed, SearchStream stream) { return seed * 16 + uint64_t(stream); }

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
         const Regressor* penalty, const std::string& checkpoint)
      : stream_(stream),
        config_(config),
        settings_(settings(config, data, regressor, penalty)),
        regressor_(regressor),
        weights_(stream.device()),
        buffers_(stream.device()),
        architecture_(stream.device()),
        net_(config.supernet, weights_, buffers_, architecture_),
        loader_(stream, data, false),
        reader_(stream, "search"),
        saver_(checkpoint, config.checkpoint_seconds) {
    CHECK(!config.latency.active() || regressor || penalty, "search: lambda ", config.latency.lambda,
          ", target ", config.latency.target_ms, " ms: a latency predictor is needed");
    regressor_here_ = here(regressor);
    Var alpha_loss = net_.loss;
    std::vector<Var> alpha_outputs = {net_.loss};
    if (config.latency.active()) {
      latency_.emplace(net_.tape, net_.alpha, net_.beta, penalty ? *here(penalty) : *regressor_here_,
                       config.latency);
      alpha_loss = weighted_sum(net_.tape, {net_.loss, latency_->term}, {1, 1});
      alpha_outputs.push_back(latency_->latency_ms);
    }
    for (ParameterStore* store : {&weights_, &buffers_, &architecture_})
      store->allocate(seed_of(config.seed, SearchStream::weights));
    auto workspace = std::make_shared<Workspace>(stream.device());
    if (config.second_order)
      second_order_.emplace(net_.tape, net_.loss, alpha_loss, alpha_outputs, weights_, architecture_,
                            workspace);
    else
      alpha_plan_.emplace(net_.tape, PlanOptions{alpha_outputs, alpha_loss, {&architecture_}, {}, true},
                          workspace);
    weight_plan_.emplace(net_.tape, PlanOptions{{net_.loss, net_.logits}, net_.loss, {&weights_}, {}, true},
                         workspace);
    valid_plan_.emplace(net_.tape, PlanOptions{{net_.logits}, {}, {}, {}, false}, workspace);
    weight_plan_->update_statistics = true;
    if (alpha_plan_) alpha_plan_->update_statistics = true;
    sgd_.emplace(weights_, config.momentum, config.weight_decay, config.clip);
    adam_.emplace(architecture_, config.alpha_lr, config.alpha_beta1, config.alpha_beta2,
                  config.alpha_weight_decay);
    const auto halves =
        split(seed_of(config.seed, SearchStream::split), data.train_count(), config.images, {0.5, 0.5});
    weight_batches_.emplace(stream_, halves[0], config.supernet.batch,
                            seed_of(config.seed, SearchStream::weight_batches));
    alpha_batches_.emplace(stream_, halves[1], config.supernet.batch,
                           seed_of(config.seed, SearchStream::alpha_batches));
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
               history_.push_back(summarise(hooks));
               history_.back().seconds = seconds_since(start_ms);
               if (hooks.on_epoch) hooks.on_epoch(history_.back());
             },
         .save = [&] { return save(); },
         .on_step = hooks.on_step,
         .finished = [&] { return stable(); }});
    return {derived(), history_, values()};
  }

 private:
  static Json settings(const SearchConfig& config, const ImageData& data, const Regressor* regressor,
                       const Regressor* penalty) {
    Json json = to_json(config);
    json["data"] = data.name;
    json["data_checksum"] = data.checksum;
    for (const auto& [name, model] : {std::pair("predictor", regressor), std::pair("penalty", penalty)}) {
      if (!model) continue;
      const std::vector<float> weights = model->weights();
      json[join(name, "_checksum")] =
          crc32_z(0, reinterpret_cast<const Bytef*>(weights.data()), weights.size() * sizeof(float));
    }
    return json;
  }

  // A predictor on this search's device: itself, or a copy.
  const Regressor* here(const Regressor* regressor) {
    if (!regressor || regressor->device() == stream_.device()) return regressor;
    copies_.push_back(std::make_unique<Regressor>(regressor->to(stream_.device())));
    return copies_.back().get();
  }

  double lambda() const { return latency_ ? latency_->lambda(stream_) : 0; }
  int steps_per_epoch() const { return std::min(weight_batches_->per_epoch(), alpha_batches_->per_epoch()); }
  int64_t global_step() const { return int64_t{state_.epoch} * steps_per_epoch() + state_.step; }

  AugmentConfig augment(uint64_t purpose) const {
    AugmentConfig augment = loader_.plain();
    augment.padding = config_.crop_padding;
    augment.flip = config_.flip;
    augment.seed = seed_of(config_.seed, SearchStream::augment) * 2 + purpose;
    return augment;
  }

  void load_batch(const int* indices, uint64_t purpose) {
    loader_.load(stream_, net_.tape.data(net_.images), net_.tape.data(net_.labels), indices, augment(purpose),
                 uint64_t(global_step()));
  }

  void load_train() { load_batch(weight_batches_->epoch_batch(stream_, state_.epoch, state_.step), 0); }
  void load_valid() { load_batch(alpha_batches_->random_batch(stream_, uint64_t(global_step())), 1); }

  void alpha_step() {
    if (latency_) latency_->set_step(stream_, uint64_t(global_step()));
    if (second_order_) return second_order_step();
    load_valid();
    alpha_graph_.run(stream_, [this] {
      draw();
      alpha_plan_->forward(stream_);
      alpha_plan_->backward(stream_);
      ascend(*alpha_plan_);
      adam_->step(stream_);
    });
  }

  // In three graphs: batches are loaded, with a copy from the host, in between.
  void second_order_step() {
    load_train();
    unroll_graph_.run(stream_, [this] { second_order_->unroll(stream_, *sgd_); });
    load_valid();
    valid_graph_.run(stream_, [this] {
      draw();
      second_order_->validate(stream_);
      ascend(second_order_->at_unrolled());
    });
    load_train();
    alpha_graph_.run(stream_, [this] {
      second_order_->differentiate(stream_, *sgd_);
      adam_->step(stream_);
    });
  }

  void draw() {
    if (latency_) latency_->draw(stream_, seed_of(config_.seed, SearchStream::noise));
  }
  void ascend(Plan& plan) {
    if (latency_) latency_->ascend(stream_, plan);
  }

  // One bilevel step; returns the training loss, or the last one read.
  double step() {
    if (state_.epoch >= config_.frozen_epochs) alpha_step();
    load_train();
    weight_graph_.run(stream_, [this] {
      weight_plan_->forward(stream_);
      weight_plan_->backward(stream_);
      sgd_->step(stream_);
    });
    if (reads_loss(stream_, state_))
      last_loss_ = reader_.read(stream_, state_, weight_plan_->value(net_.loss),
                                weight_plan_->value(net_.logits), net_.tape.data(net_.labels));
    return last_loss_;
  }

  ArchitectureValues values() const {
    return {{architecture_.read("alpha_normal"), architecture_.read("alpha_reduce")},
            {architecture_.read("beta_normal"), architecture_.read("beta_reduce")}};
  }

  Genotype derived() const {
    if (!config_.caps.any()) return derive_genotype(architecture_);
    const ArchitectureValues v = values();
    return derive_with_caps(v.strengths(0), v.strengths(1), config_.caps);
  }

  // The same genotype, up to the order of a node's edges, at the end of the last stable_epochs in which alpha
  // could move and of the one before them.
  bool stable() const {
    const size_t wanted = size_t(config_.stable_epochs);
    if (wanted == 0 || history_.size() < wanted + 1 + size_t(config_.frozen_epochs)) return false;
    const uint64_t key = genotype_key(history_.back().genotype);
    return std::all_of(history_.end() - std::ptrdiff_t(wanted) - 1, history_.end(),
                       [&](const SearchEpoch& epoch) { return genotype_key(epoch.genotype) == key; });
  }

  SearchEpoch summarise(const SearchHooks& hooks) {
    const Accuracy valid = evaluate(stream_, {*valid_plan_, net_.tape, net_.images, net_.labels, net_.logits},
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
      epoch.soft_ms = soft_latency_ms(stream_, architecture_, *regressor_here_, config_.latency.temperature);
      epoch.hard_ms = predict_ms(*regressor_, epoch.genotype);
    }
    epoch.lambda = lambda();
    if (hooks.measure_ms && config_.measure_every > 0 && (state_.epoch + 1) % config_.measure_every == 0)
      epoch.measured_ms = hooks.measure_ms(epoch.genotype);
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
    describe_checkpoint(file, "search", settings_, state_, history);
    file.metadata["lambda"] = Json(lambda()).dump();
    return file;
  }

  void load() {
    const std::string& path = saver_.path();
    const TensorFile file = read_checkpoint(path, "search", settings_);
    file.get("weights.", weights_, path);
    file.get("buffers.", buffers_, path);
    file.get("architecture.", architecture_, path);
    sgd_->load(file, "sgd.", path);
    adam_->load(file, "adam.", path);
    try {
      state_ = TrainerState::from_json(Json::parse(file.metadata.at("state")));
      for (const Json& epoch : Json::parse(file.metadata.at("history")))
        history_.push_back(search_epoch_from_json(epoch));
      const double lambda = Json::parse(file.metadata.at("lambda"));
      if (latency_) latency_->set_lambda(stream_, lambda);
    } catch (const std::exception& e) {
      throw Error(join(path, ": its metadata is damaged: ", e.what()));
    }
  }

  Stream& stream_;
  SearchConfig config_;
  Json settings_;               // what a checkpoint belongs to
  const Regressor* regressor_;  // as given, for single predictions
  const Regressor* regressor_here_ = nullptr;
  std::vector<std::unique_ptr<Regressor>> copies_;
  ParameterStore weights_, buffers_, architecture_;
  Supernet net_;
  std::optional<LatencyLoss> latency_;
  std::optional<SecondOrder> second_order_;
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
  StepGraph unroll_graph_, valid_graph_, alpha_graph_, weight_graph_;  // the first two: second order
  double last_loss_ = 0;
};

}  // namespace

SearchResult search(Stream& stream, const SearchConfig& config, const ImageData& data,
                    const Regressor* regressor, const std::string& checkpoint, const SearchHooks& hooks,
                    const Regressor* penalty) {
  return Search(stream, config, data, regressor, penalty, checkpoint).run(hooks);
}

}  // namespace lanas
