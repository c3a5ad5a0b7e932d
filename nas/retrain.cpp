#include "nas/retrain.h"

#include <optional>
#include <tuple>

#include "autograd/optimizer.h"
#include "kernels/ops/drop_path.h"
#include "nas/batch_loader.h"
#include "nas/evaluate.h"
#include "nas/settings.h"
#include "nas/trainer_state.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

enum class RetrainStream : uint64_t { weights, split, batches, augment, drop_path };
uint64_t seed_of(uint64_t seed, RetrainStream stream) { return seed * 16 + 8 + uint64_t(stream); }

Json network_settings(const NetworkConfig& config, const Genotype& genotype, const ImageData& data) {
  return {{"network", to_json(config)},
          {"genotype", write_genotype(genotype)},
          {"data", data.name},
          {"mean", data.mean},
          {"stddev", data.stddev}};
}

// Paths that are never dropped cost nothing: the tape then has no masks.
RetrainConfig with_drop_path(RetrainConfig config) {
  config.network.drop_path = config.drop_path > 0;
  return config;
}

class Retrain {
 public:
  Retrain(Stream& stream, const RetrainConfig& config, const Genotype& genotype, const ImageData& data,
          const std::string& checkpoint, const std::string& best)
      : stream_(stream),
        config_(config),
        genotype_(genotype),
        data_name_(data.name),
        data_checksum_(data.checksum),
        network_settings_(network_settings(config.network, genotype, data)),
        best_path_(best),
        weights_(stream.device()),
        buffers_(stream.device()),
        net_(config.network, genotype, weights_, buffers_),
        loader_(stream, data, false),
        reader_(stream, "retrain"),
        saver_(checkpoint, config.checkpoint_seconds) {
    weights_.allocate(seed_of(config.seed, RetrainStream::weights));
    buffers_.allocate(0);
    auto workspace = std::make_shared<Workspace>(stream.device());
    train_plan_.emplace(net_.tape, PlanOptions{{net_.loss, net_.logits}, net_.loss, {&weights_}, {}, true},
                        workspace);
    valid_plan_.emplace(net_.tape, PlanOptions{{net_.logits}, {}, {}, {}, false}, workspace);
    train_plan_->update_statistics = true;
    sgd_.emplace(weights_, config.momentum, config.weight_decay, config.clip);
    CHECK(config.validation_fraction > 0 && config.validation_fraction < 1, "retrain: validation fraction ",
          config.validation_fraction, " is not between 0 and 1");
    const auto parts = split(seed_of(config.seed, RetrainStream::split), data.train_count(), config.images,
                             {1 - config.validation_fraction, config.validation_fraction});
    batches_.emplace(stream_, parts[0], config.network.batch, seed_of(config.seed, RetrainStream::batches));
    validation_ = parts[1];
    CHECK(steps_per_epoch() > 0, "retrain: ", parts[0].size(), " images are less than one batch of ",
          config.network.batch);
    drop_state_ = Memory(stream.device(), sizeof(DropState));
  }

  RetrainResult run(const RetrainHooks& hooks) {
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
               finish_epoch(start_ms);
               if (hooks.on_epoch) hooks.on_epoch(result_.history.back());
             },
         .save = [&] { return save(); },
         .on_step = hooks.on_step});
    return result_;
  }

 private:
  struct DropState {  // read by the mask kernel from device memory
    float probability;
    float unused;
    uint64_t step;
  };

  int steps_per_epoch() const { return batches_->per_epoch(); }
  int64_t global_step() const { return int64_t{state_.epoch} * steps_per_epoch() + state_.step; }

  void draw_drop_masks() {
    const DropState now{config_.drop_path * float(state_.epoch) / float(config_.epochs), 0,
                        uint64_t(global_step())};
    auto* state = static_cast<DropState*>(drop_state_.data());
    upload(stream_, state, &now, sizeof now);
    for (size_t path = 0; path < net_.drop_masks.size(); ++path)
      drop_path_mask(stream_, net_.tape.data(net_.drop_masks[path]).data, config_.network.batch,
                     &state->probability, seed_of(config_.seed, RetrainStream::drop_path), uint32_t(path),
                     &state->step);
  }

  double step() {
    AugmentConfig augment = loader_.plain();
    augment.padding = config_.crop_padding;
    augment.flip = config_.flip;
    augment.cutout = config_.cutout;
    augment.seed = seed_of(config_.seed, RetrainStream::augment);
    loader_.load(stream_, net_.tape.data(net_.images), net_.tape.data(net_.labels),
                 batches_->epoch_batch(stream_, state_.epoch, state_.step), augment, uint64_t(global_step()));
    draw_drop_masks();
    graph_.run(stream_, [this] {
      train_plan_->forward(stream_);
      train_plan_->backward(stream_);
      sgd_->step(stream_);
    });
    if (reads_loss(stream_, state_))
      last_loss_ = reader_.read(stream_, state_, train_plan_->value(net_.loss),
                                train_plan_->value(net_.logits), net_.tape.data(net_.labels));
    return last_loss_;
  }

  // Validates, and keeps the network if it is the best so far (the earlier epoch wins a tie).
  void finish_epoch(double start_ms) {
    const Accuracy valid = evaluate(stream_, {*valid_plan_, net_.tape, net_.images, net_.labels, net_.logits},
                                    loader_, validation_);
    result_.history.push_back({state_.epoch, state_.loss(), state_.accuracy(), valid.loss, valid.accuracy,
                               seconds_since(start_ms)});
    if (result_.history.size() > 1 && valid.accuracy <= result_.best_valid_accuracy) return;
    result_.best_epoch = state_.epoch;
    result_.best_valid_accuracy = valid.accuracy;
    if (best_path_.empty()) return;
    TensorFile file;
    file.put("weights.", weights_);
    file.put("buffers.", buffers_);
    file.metadata["kind"] = "network";
    file.metadata["settings"] = network_settings_.dump();
    file.metadata["validation"] = Json{{"epoch", state_.epoch}, {"accuracy", valid.accuracy}}.dump();
    write_tensors(best_path_, file);
  }

  Json settings() const {
    Json settings = to_json(config_);
    settings["genotype"] = write_genotype(genotype_);
    settings["data"] = data_name_;
    settings["data_checksum"] = data_checksum_;
    return settings;
  }

  TensorFile save() const {
    TensorFile file;
    file.put("weights.", weights_);
    file.put("buffers.", buffers_);
    sgd_->save(file, "sgd.");
    Json history = Json::array();
    for (const RetrainEpoch& epoch : result_.history) history.push_back(to_json(epoch));
    describe_checkpoint(file, "retrain", settings(), state_, history);
    file.metadata["best"] =
        Json{{"epoch", result_.best_epoch}, {"accuracy", result_.best_valid_accuracy}}.dump();
    return file;
  }

  void load() {
    const std::string& path = saver_.path();
    const TensorFile file = read_checkpoint(path, "retrain", settings());
    file.get("weights.", weights_, path);
    file.get("buffers.", buffers_, path);
    sgd_->load(file, "sgd.", path);
    try {
      state_ = TrainerState::from_json(Json::parse(file.metadata.at("state")));
      for (const Json& epoch : Json::parse(file.metadata.at("history")))
        result_.history.push_back(retrain_epoch_from_json(epoch));
      const Json best = Json::parse(file.metadata.at("best"));
      result_.best_epoch = best.at("epoch");
      result_.best_valid_accuracy = best.at("accuracy");
    } catch (const std::exception& e) {
      throw Error(join(path, ": its metadata is damaged: ", e.what()));
    }
  }

  Stream& stream_;
  RetrainConfig config_;
  Genotype genotype_;
  std::string data_name_;
  uint32_t data_checksum_;
  Json network_settings_;
  std::string best_path_;
  ParameterStore weights_, buffers_;
  Network net_;
  std::optional<Plan> train_plan_, valid_plan_;
  std::optional<Sgd> sgd_;
  BatchLoader loader_;
  std::optional<MiniBatches> batches_;
  std::vector<int> validation_;
  StepReader reader_;
  Checkpointer saver_;
  TrainerState state_;
  RetrainResult result_;
  Memory drop_state_;
  StepGraph graph_;
  double last_loss_ = 0;
};

}  // namespace

RetrainResult retrain(Stream& stream, const RetrainConfig& config, const Genotype& genotype,
                      const ImageData& data, const std::string& checkpoint, const std::string& best,
                      const RetrainHooks& hooks) {
  return Retrain(stream, with_drop_path(config), genotype, data, checkpoint, best).run(hooks);
}

TrainedNetwork load_trained(const std::string& path, Device device) {
  const TensorFile file = read_tensors(path);
  auto kind = file.metadata.find("kind");
  CHECK(kind != file.metadata.end() && kind->second == "network", path,
        ": expected a trained network, found ",
        kind == file.metadata.end() ? "no kind" : "kind '" + kind->second + "'", " in its metadata");
  TrainedNetwork trained(device);
  try {
    const Json settings = Json::parse(file.metadata.at("settings"));
    const Json& n = settings.at("network");
    trained.config = {n.at("channels"), n.at("layers"),    n.at("classes"),          n.at("image"),
                      n.at("batch"),    n.at("auxiliary"), n.at("auxiliary_weight"), n.at("label_smoothing"),
                      n.at("drop_path")};
    trained.genotype = read_genotype(settings.at("genotype").get<std::string>(), path);
    trained.data_name = settings.at("data");
    for (size_t c = 0; c < 3; ++c) {
      trained.mean[c] = settings.at("mean").at(c);
      trained.stddev[c] = settings.at("stddev").at(c);
    }
    const NetworkConfig& c = trained.config;
    for (const auto& [name, value, most] :
         {std::tuple("channels", c.channels, 4096), std::tuple("layers", c.layers, 1000),
          std::tuple("classes", c.classes, 1'000'000), std::tuple("image", c.image, 1024),
          std::tuple("batch", c.batch, 65536)})
      CHECK(value >= 1 && value <= most, path, ": its settings are damaged: ", name, " is ", value,
            ", expected 1 to ", most);
  } catch (const Json::exception& e) {
    throw Error(join(path, ": its settings are damaged: ", e.what()));
  } catch (const std::out_of_range&) {
    throw Error(path + ": has no settings in its metadata");
  }
  const Network network(trained.config, trained.genotype, trained.weights, trained.buffers);
  trained.weights.allocate(0);
  trained.buffers.allocate(0);
  file.get("weights.", trained.weights, path);
  file.get("buffers.", trained.buffers, path);
  return trained;
}

}  // namespace lanas
