// commands_train.cpp -- `lanas_train search` and `lanas_train retrain`: one training each.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <optional>

#include "autograd/checkpoint.h"
#include "nas/check_settings.h"
#include "nas/commands.h"
#include "nas/decode.h"
#include "nas/draw.h"
#include "nas/folder_lock.h"
#include "nas/memory_need.h"
#include "nas/progress.h"
#include "nas/settings.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

struct SearchCommand {
  Common common;
  RunConfig config;
  std::string mode, predictor, out = "runs/search";
  double lambda = 0, target_ms = 0;
  CLI::Option* given_reference = nullptr;

  CLI::App* add(CLI::App& app) {
    mode = latency_mode_name(config.search.latency.mode);
    CLI::App* sub = app.add_subcommand("search", "one search; prints the genotype");
    add_common(*sub, common);
    sub->add_option("--preset", config.preset, "quick, darts, darts-second-order or pc-darts")
        ->capture_default_str();
    sub->add_option("--data", config.data_folder, "folder of Fashion-MNIST or CIFAR-10 files")
        ->capture_default_str();
    sub->add_option("--out", out, "folder of the checkpoint and the genotype")->capture_default_str();
    sub->add_option("--predictor", predictor, "a run's predictor.safetensors, for the latency term");
    sub->add_option("--lambda", lambda, "weight of the latency term")->capture_default_str();
    sub->add_option("--target-ms", target_ms,
                    "latency to be met: lambda is learned, the result measured as --eval-channels and "
                    "--eval-layers say");
    sub->add_option("--eval-channels", config.retrain.network.channels, "channels of the measured network")
        ->capture_default_str();
    sub->add_option("--eval-layers", config.retrain.network.layers, "its cells")->capture_default_str();
    sub->add_option("--latency-batch", config.campaign.latency.network.batch,
                    "images per measured forward pass")
        ->capture_default_str();
    sub->add_option("--latency-threads", config.campaign.latency.threads,
                    "threads of the measured forward pass")
        ->capture_default_str();
    given_reference = sub->add_option("--reference-ms", config.search.latency.reference_ms,
                                      "latency that counts as 1 in the term; default: the mean of what the "
                                      "predictor was trained on, as in run");
    add_checkpoint_seconds(*sub, config);
    add_search_options(*sub, config, mode);
    return sub;
  }

  void run() {
    check_json_target(common.json);
    check_search_settings(config.search);
    check_latency_settings(config);
    CHECK(lambda == 0 || target_ms == 0, "--lambda ", lambda, " and --target-ms ", target_ms,
          ": expected one of them, as a target's lambda is learned");
    CHECK(lambda >= 0 && std::isfinite(lambda), "--lambda: expected a number >= 0, found ", lambda);
    CHECK(lambda == 0 || !predictor.empty(), "--lambda ", lambda, ": expected --predictor, found none");
    Stream stream(common.chosen(), common.threads);
    config.search.seed = common.seed;
    config.search.latency.mode = parse_latency_mode(mode);
    config.search.latency.lambda = lambda;
    config.search.latency.target_ms = target_ms;
    CHECK(target_ms >= 0 && std::isfinite(target_ms), "--target-ms: expected a number >= 0, found ",
          target_ms);
    CHECK(target_ms == 0 || !predictor.empty(), "--target-ms ", target_ms,
          ": expected --predictor, found none");
    std::optional<Regressor> regressor;
    if (!predictor.empty()) {
      regressor.emplace(Regressor::load(predictor));
      CHECK(regressor->unit() == "ms", predictor, ": predicts ",
            regressor->unit().empty() ? "a number without a unit" : regressor->unit(), ", expected ms");
      if (given_reference->count() == 0) config.search.latency.reference_ms = regressor->mean_target();
    }
    const ImageData data = load_image_data(config.data_folder);
    config.search.supernet.image = config.retrain.network.image = data.side;
    config.search.supernet.classes = config.retrain.network.classes = data.classes;
    check_search_images(config.search, data);
    const size_t available = available_memory();
    const MemoryNeed need = search_memory(config.search, data);
    check_memory("the search", need, available, config.search.supernet.batch, "--batch", "--channels");
    if (target_ms > 0) prepare_target(*regressor);
    make_folder(out);
    const FolderLock lock(out);
    if (!common.quiet) std::fprintf(stderr, "%s\n", memory_text("the search", need, available).c_str());
    Progress progress("search", 1, common.quiet);
    SearchHooks hooks;
    hooks.on_step = show_steps(progress);
    hooks.measure_ms = [&](const Genotype& g) { return measure_ms(g); };
    SearchResult result = search(stream, config.search, data, regressor ? &*regressor : nullptr,
                                 out + "/search.safetensors", hooks);
    progress.finish();
    if (target_ms > 0) result.genotype = verified(result.architecture);
    replace_file(out + "/genotype.txt", write_genotype(result.genotype) + "\n");
    if (common.json != "-")
      std::cout << write_genotype(result.genotype) << "\n" << draw_text(result.genotype);
    Json history = Json::array();
    for (const SearchEpoch& epoch : result.history) history.push_back(to_json(epoch));
    emit(common.json, {{"genotype", write_genotype(result.genotype)},
                       {"history", history},
                       {"settings", to_json(config.search)}});
  }

 private:
  std::optional<LatencyMeter> meter_;
  std::optional<Decoder> decoder_;

  double measure_ms(const Genotype& genotype) {
    if (!meter_) meter_.emplace(measured_latency(config));
    return meter_->measure(genotype).median_ms;
  }

  void prepare_target(const Regressor& regressor) {
    decoder_.emplace(regressor, config.search.caps);
    const LatencyRange range = decoder_->range();
    // The least of three: a slow moment must not make a target look out of reach.
    const double fastest =
        std::min({measure_ms(range.fastest), measure_ms(range.fastest), measure_ms(range.fastest)});
    check_target(target_ms, DecodeConfig{}.low, fastest, measure_ms(range.slowest));
  }

  Genotype verified(const ArchitectureValues& architecture) {
    DecodeConfig decode;
    decode.target_ms = target_ms;
    const Decoding decoding =
        decoder_->decode(architecture, decode, [&](const Genotype& g) { return measure_ms(g); });
    CHECK(decoding.chosen >= 0, "--target-ms ", target_ms, ": ", describe(decoding, decode));
    if (!common.quiet) std::fprintf(stderr, "%s\n", describe(decoding, decode).c_str());
    return decoding.tried[size_t(decoding.chosen)].genotype;
  }
};

struct RetrainCommand {
  Common common;
  RunConfig config;
  std::string genotype, out = "runs/retrain";

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("retrain", "train the network of a genotype from scratch");
    add_common(*sub, common);
    sub->add_option("--preset", config.preset, "quick, darts, darts-second-order or pc-darts")
        ->capture_default_str();
    sub->add_option("--data", config.data_folder, "folder of Fashion-MNIST or CIFAR-10 files")
        ->capture_default_str();
    sub->add_option("--out", out, "folder of the checkpoint and the network")->capture_default_str();
    sub->add_option("--genotype", genotype, "published name, file or text")->required();
    add_checkpoint_seconds(*sub, config);
    add_network_options(*sub, config);
    return sub;
  }

  void run() {
    check_json_target(common.json);
    check_retrain_settings(config.retrain);
    Stream stream(common.chosen(), common.threads);
    config.retrain.seed = common.seed;
    const Genotype g = resolve_genotype(genotype);
    const ImageData data = load_image_data(config.data_folder);
    check_retrain_images(config.retrain, data);
    const size_t available = available_memory();
    const MemoryNeed need = retrain_memory(config.retrain, g, data);
    check_memory("retraining", need, available, config.retrain.network.batch, "--eval-batch",
                 "--eval-channels");
    make_folder(out);
    const FolderLock lock(out);
    if (!common.quiet) std::fprintf(stderr, "%s\n", memory_text("retraining", need, available).c_str());
    Progress progress("retrain", 1, common.quiet);
    RetrainHooks hooks;
    hooks.on_step = show_steps(progress);
    const RetrainResult result = retrain(stream, config.retrain, g, data, out + "/retrain.safetensors",
                                         out + "/network.safetensors", hooks);
    progress.finish();
    if (common.json != "-")
      std::printf("best epoch %d, validation accuracy %.4f: %s/network.safetensors\n", result.best_epoch + 1,
                  result.best_valid_accuracy, out.c_str());
    Json history = Json::array();
    for (const RetrainEpoch& epoch : result.history) history.push_back(to_json(epoch));
    emit(common.json, {{"best_epoch", result.best_epoch},
                       {"valid_accuracy", result.best_valid_accuracy},
                       {"history", history},
                       {"settings", to_json(config.retrain)}});
  }
};

}  // namespace

void add_search(CLI::App& app, const RunConfig& defaults) {
  auto command = std::make_shared<SearchCommand>();
  command->config = defaults;
  add_command(app, command);
}

void add_retrain(CLI::App& app, const RunConfig& defaults) {
  auto command = std::make_shared<RetrainCommand>();
  command->config = defaults;
  add_command(app, command);
}

}  // namespace lanas
