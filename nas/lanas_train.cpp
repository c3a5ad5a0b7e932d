// lanas_train.cpp -- the command line: run (the whole job), search, retrain, evaluate, show.
// Exit codes: 0 done, 2 wrong input or a failure told in one line, 130 stopped by a signal after a
// checkpoint.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "nas/check_settings.h"
#include "nas/command_line.h"
#include "nas/draw.h"
#include "nas/machine.h"
#include "nas/pipeline.h"
#include "nas/progress.h"
#include "nas/settings.h"
#include "nas/trainer_state.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

// Options every subcommand has.
struct Common {
  std::string device = "auto", json, config;
  int threads = 0;
  uint64_t seed = 0;
  bool quiet = false;
};

void add_common(CLI::App& app, Common& common) {
  app.add_option("--device", common.device, "auto, cpu or cuda")->capture_default_str();
  app.add_option("--threads", common.threads, "worker threads; 0: all cores")->capture_default_str();
  app.add_option("--seed", common.seed, "the same seed gives the same bits")->capture_default_str();
  app.add_option("--json", common.json, "write the result as JSON to FILE, or - for standard output");
  app.add_flag("--quiet", common.quiet, "no progress lines");
  app.add_option("--config", common.config,
                 "read options from a TOML file: key = value; words given here win");
}

void emit(const std::string& where, const Json& json) {
  if (where.empty()) return;
  if (where == "-")
    std::cout << json.dump(2) << std::endl;
  else
    replace_file(where, json.dump(2) + "\n");
}

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  CHECK(!error, path, ": cannot be made: ", error.message());
}

void add_checkpoint_seconds(CLI::App& app, RunConfig& c) {
  app.add_option_function<double>(
         "--checkpoint-seconds",
         [&c](double seconds) {
           CHECK(seconds >= 0, "--checkpoint-seconds: expected 0 or more, found ", seconds);
           c.search.checkpoint_seconds = c.retrain.checkpoint_seconds = seconds;
         },
         "seconds between two saves within an epoch")
      ->default_str(join(c.search.checkpoint_seconds));
}

void add_search_options(CLI::App& app, RunConfig& c, std::string& mode) {
  SearchConfig& s = c.search;
  app.add_option("--channels", s.supernet.channels, "channels of the supernet's first cells")
      ->capture_default_str();
  app.add_option("--layers", s.supernet.layers, "cells of the supernet")->capture_default_str();
  app.add_option("--partial", s.supernet.partial, "the ops see 1/K of the channels; 1: plain DARTS")
      ->capture_default_str();
  app.add_option("--batch", s.supernet.batch, "images per search step")->capture_default_str();
  app.add_option("--epochs", s.epochs, "search epochs")->capture_default_str();
  app.add_option("--frozen-epochs", s.frozen_epochs, "first epochs in which alpha does not move")
      ->capture_default_str();
  app.add_option("--images", s.images, "training images used by the search; 0: all")->capture_default_str();
  app.add_option("--lr", s.lr, "learning rate of the weights")->capture_default_str();
  app.add_option("--alpha-lr", s.alpha_lr, "learning rate of alpha")->capture_default_str();
  app.add_option("--max-skips", s.max_skips, "cap on skip connections in the normal cell; 8: none")
      ->capture_default_str();
  app.add_option("--latency-mode", mode, "how alpha meets the predictor: soft, hard or sample")
      ->capture_default_str();
  app.add_option("--latency-draws", s.latency.samples, "Gumbel samples per step of mode sample")
      ->capture_default_str();
}

void add_network_options(CLI::App& app, RunConfig& c) {
  RetrainConfig& r = c.retrain;
  app.add_option("--eval-channels", r.network.channels, "channels of the retrained and measured network")
      ->capture_default_str();
  app.add_option("--eval-layers", r.network.layers, "its cells")->capture_default_str();
  app.add_option("--eval-epochs", r.epochs, "its training epochs")->capture_default_str();
  app.add_option("--eval-images", r.images, "training images used, a tenth of them held out; 0: all")
      ->capture_default_str();
  app.add_option("--eval-batch", r.network.batch, "images per training step")->capture_default_str();
  app.add_option("--eval-lr", r.lr, "learning rate")->capture_default_str();
  app.add_option("--image", r.network.image, "image side")->capture_default_str();
  app.add_option("--cutout", r.cutout, "side of the cutout square; 0: none")->capture_default_str();
  app.add_option("--drop-path", r.drop_path, "drop-path probability at the last epoch")
      ->capture_default_str();
  app.add_flag("--auxiliary,!--no-auxiliary", r.network.auxiliary, "train with the auxiliary head");
}

struct RunCommand {
  Common common;
  RunConfig config;
  std::vector<std::string> arguments;  // as given, kept in the run's folder for --resume
  std::string mode, resume, lambdas;

  CLI::App* add(CLI::App& app) {
    mode = latency_mode_name(config.search.latency.mode);
    CLI::App* sub =
        app.add_subcommand("run", "measure, predict, search, retrain, measure again, test, report");
    add_common(*sub, common);
    sub->add_option("--preset", config.preset, "quick, darts or pc-darts: the values of everything below")
        ->capture_default_str();
    sub->add_option("--data", config.data_folder, "folder of Fashion-MNIST or CIFAR-10 files")
        ->capture_default_str();
    sub->add_option("--out", config.folder, "folder of the run; default runs/DATE-PRESET-SEED");
    sub->add_option("--resume", resume,
                    "go on with the run in this folder, with the settings it was started with");
    for (double lambda : config.lambdas) lambdas += join(lambdas.empty() ? "" : ",", lambda);
    sub->add_option("--lambdas", lambdas, "weights of the latency term, one search each")
        ->capture_default_str();
    sub->add_option("--random", config.random_networks, "random genotypes retrained for comparison")
        ->capture_default_str();
    sub->add_option("--latency-samples", config.latency_samples, "architectures measured for the predictor")
        ->capture_default_str();
    sub->add_option("--latency", config.latency_table, "use this finished CSV instead of measuring");
    sub->add_option("--latency-batch", config.campaign.latency.network.batch,
                    "images per measured forward pass")
        ->capture_default_str();
    sub->add_option("--latency-threads", config.campaign.latency.threads,
                    "threads of the measured forward pass")
        ->capture_default_str();
    sub->add_option("--latency-redos", config.campaign.max_redos,
                    "times a stretch of the table is measured again while the controls are off")
        ->capture_default_str();
    sub->add_option("--final-rounds", config.final_rounds, "rounds of measuring the networks at the end")
        ->capture_default_str();
    sub->add_option("--final-tries", config.final_tries, "tries of each while the controls are off")
        ->capture_default_str();
    add_checkpoint_seconds(*sub, config);
    add_search_options(*sub, config, mode);
    add_network_options(*sub, config);
    return sub;
  }

  void run() {
    check_json_target(common.json);
    config.lambdas = parse_numbers("--lambdas", lambdas);
    config.device = parse_device(common.device);
    config.threads = common.threads;
    config.seed = common.seed;
    config.quiet = common.quiet;
    config.search.latency.mode = parse_latency_mode(mode);
    config.resume = !resume.empty();
    config.arguments = arguments;
    const RunReport report = run_pipeline(config);
    if (common.json != "-") std::cout << report_table(report);
    emit(common.json, report_json(report));
  }
};

struct SearchCommand {
  Common common;
  RunConfig config;
  std::string mode, predictor, out = "runs/search";
  double lambda = 0;

  CLI::App* add(CLI::App& app) {
    mode = latency_mode_name(config.search.latency.mode);
    CLI::App* sub = app.add_subcommand("search", "one search; prints the genotype");
    add_common(*sub, common);
    sub->add_option("--preset", config.preset, "quick, darts or pc-darts")->capture_default_str();
    sub->add_option("--data", config.data_folder, "folder of Fashion-MNIST or CIFAR-10 files")
        ->capture_default_str();
    sub->add_option("--out", out, "folder of the checkpoint and the genotype")->capture_default_str();
    sub->add_option("--predictor", predictor, "a run's predictor.safetensors, for the latency term");
    sub->add_option("--lambda", lambda, "weight of the latency term")->capture_default_str();
    sub->add_option("--reference-ms", config.search.latency.reference_ms,
                    "latency that counts as 1 in the term")
        ->capture_default_str();
    add_checkpoint_seconds(*sub, config);
    add_search_options(*sub, config, mode);
    return sub;
  }

  void run() {
    check_json_target(common.json);
    check_search_settings(config.search);
    CHECK(lambda >= 0 && std::isfinite(lambda), "--lambda: expected a number >= 0, found ", lambda);
    CHECK(lambda == 0 || !predictor.empty(), "--lambda ", lambda, ": expected --predictor, found none");
    Stream stream(parse_device(common.device), common.threads);
    config.search.seed = common.seed;
    config.search.latency.mode = parse_latency_mode(mode);
    config.search.latency.lambda = lambda;
    std::optional<Regressor> regressor;
    if (!predictor.empty()) regressor.emplace(Regressor::load(predictor));
    const ImageData data = load_image_data(config.data_folder);
    config.search.supernet.image = data.side;
    config.search.supernet.classes = data.classes;
    check_search_images(config.search, data);
    make_folder(out);
    Progress progress("search", 1, common.quiet);
    SearchHooks hooks;
    hooks.on_step = show_steps(progress);
    const SearchResult result = search(stream, config.search, data, regressor ? &*regressor : nullptr,
                                       out + "/search.safetensors", hooks);
    progress.finish();
    replace_file(out + "/genotype.txt", write_genotype(result.genotype) + "\n");
    if (common.json != "-")
      std::cout << write_genotype(result.genotype) << "\n" << draw_text(result.genotype);
    Json history = Json::array();
    for (const SearchEpoch& epoch : result.history) history.push_back(to_json(epoch));
    emit(common.json, {{"genotype", write_genotype(result.genotype)},
                       {"history", history},
                       {"settings", to_json(config.search)}});
  }
};

struct RetrainCommand {
  Common common;
  RunConfig config;
  std::string genotype, out = "runs/retrain";

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("retrain", "train the network of a genotype from scratch");
    add_common(*sub, common);
    sub->add_option("--preset", config.preset, "quick, darts or pc-darts")->capture_default_str();
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
    Stream stream(parse_device(common.device), common.threads);
    config.retrain.seed = common.seed;
    const Genotype g = resolve_genotype(genotype);
    const ImageData data = load_image_data(config.data_folder);
    check_retrain_images(config.retrain, data);
    make_folder(out);
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

struct EvaluateCommand {
  Common common;
  std::string checkpoint, data_folder = kDefaultDataFolder;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("evaluate", "accuracy of a trained network on the test images");
    add_common(*sub, common);
    sub->add_option("checkpoint", checkpoint, "a network.safetensors of retrain or run")->required();
    sub->add_option("--data", data_folder, "folder of Fashion-MNIST or CIFAR-10 files")
        ->capture_default_str();
    return sub;
  }

  void run() {
    Stream stream(parse_device(common.device), common.threads);
    TrainedNetwork network = load_trained(checkpoint);
    const ImageData data = load_image_data(data_folder);
    const double accuracy = test_accuracy(stream, network, data);
    if (common.json != "-") std::printf("test accuracy %.4f on %d images\n", accuracy, data.test_count());
    emit(common.json, {{"test_accuracy", accuracy},
                       {"images", data.test_count()},
                       {"genotype", write_genotype(network.genotype)}});
  }
};

struct ShowCommand {
  Common common;
  std::string genotype, supernet, svg;
  NetworkConfig network;
  int partial = 4;
  CLI::Option *channels = nullptr, *layers = nullptr;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub =
        app.add_subcommand("show", "draw a genotype and count its parameters and multiply-accumulates");
    add_common(*sub, common);
    auto* g = sub->add_option(
        "--genotype", genotype,
        "published name (DARTS_V1, DARTS_V2, PC_DARTS_cifar, PC_DARTS_image, PDARTS), file or text");
    sub->add_option("--supernet", supernet, "darts or pc-darts, instead of a genotype")->excludes(g);
    channels = sub->add_option("--channels", network.channels,
                               "channels of the first cells (default 36; supernets 16)");
    layers = sub->add_option("--layers", network.layers, "cells (default 20; supernets 8)");
    sub->add_option("--partial", partial, "K of pc-darts")->capture_default_str();
    sub->add_option("--classes", network.classes, "classes")->capture_default_str();
    sub->add_option("--image", network.image, "image side; 224 is the ImageNet form")->capture_default_str();
    sub->add_option("--svg", svg, "draw both cells into this file (needs graphviz)");
    return sub;
  }

  void run() {
    CHECK(genotype.empty() != supernet.empty(), "show: expected --genotype or --supernet");
    check_json_target(common.json);
    CHECK(network.classes > 0 && network.classes <= 1'000'000, "--classes: expected 1 to 1000000, found ",
          network.classes);
    CHECK(network.channels > 0 && network.channels <= 4096, "--channels: expected 1 to 4096, found ",
          network.channels);
    CHECK(network.layers > 0 && network.layers <= 1000, "--layers: expected 1 to 1000, found ",
          network.layers);
    CHECK(partial > 0, "--partial: expected 1 or more, found ", partial);
    supernet.empty() ? show_genotype() : show_supernet();
  }

  void show_genotype() {
    const Genotype g = resolve_genotype(genotype);
    const NetworkCounts counts = count_network(network, g);
    if (!svg.empty()) CHECK(write_svg(svg, draw_dot(g)), svg, ": not drawn: graphviz's dot is not installed");
    if (common.json != "-")
      std::cout << draw_text(g)
                << join("parameters ", counts.parameters, " (auxiliary head ", counts.parameters_auxiliary,
                        "), MACs ", counts.macs, "\n");
    emit(common.json, {{"parameters", counts.parameters},
                       {"macs", counts.macs},
                       {"parameters_auxiliary", counts.parameters_auxiliary},
                       {"skips_normal", count_skips(g.normal)},
                       {"skips_reduce", count_skips(g.reduce)},
                       {"genotype", write_genotype(g)}});
  }

  void show_supernet() {
    CHECK(supernet == "darts" || supernet == "pc-darts", "--supernet: expected darts or pc-darts, found '",
          supernet, "'");
    SupernetConfig config = supernet == "darts" ? SupernetConfig::darts() : SupernetConfig::pc_darts();
    if (channels->count()) config.channels = network.channels;
    if (layers->count()) config.layers = network.layers;
    if (supernet == "pc-darts") config.partial = partial;
    config.classes = network.classes;
    config.image = network.image;
    config.batch = 1;
    ParameterStore weights, buffers, architecture;
    const Supernet net(config, weights, buffers, architecture);
    const Plan plan(net.tape, {.outputs = {net.logits}}, std::make_shared<Workspace>());
    if (common.json != "-")
      std::cout << join("parameters ", weights.count(), " (architecture ", architecture.count(), "), MACs ",
                        plan.macs(), "\n");
    emit(common.json, {{"parameters", weights.count()},
                       {"macs", plan.macs()},
                       {"parameters_auxiliary", 0},
                       {"skips_normal", 0},
                       {"skips_reduce", 0},
                       {"parameters_architecture", architecture.count()}});
  }
};

std::string parse_complaint(const CLI::ParseError& error) {
  const std::string what = error.what(), failed = "Could not convert: ";
  if (what.starts_with(failed)) return what.substr(failed.size()) + ": expected a number";
  if (error.get_exit_code() == int(CLI::ExitCodes::RequiredError) && what == "A subcommand is required")
    return "expected run, search, retrain, evaluate or show first; lanas_train --help explains them";
  return what + "; --help lists what is expected";
}

int run(int argc, char** argv) {
  CLI::App app{
      "LaNAS: finds the network cell that is most accurate for a latency you choose, and measures it."};
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  std::vector<std::string> arguments = with_resumed(with_config_file({argv + 1, argv + argc}));
  const std::string preset_name =
      option_value(arguments, "--preset");  // other options override the preset's values
  const RunConfig defaults = preset(preset_name.empty() ? "quick" : preset_name);
  RunCommand run{{}, defaults, arguments, {}, {}, {}};
  SearchCommand search{{}, defaults, {}, {}, "runs/search", 0};
  RetrainCommand retrain{{}, defaults, {}, "runs/retrain"};
  EvaluateCommand evaluate;
  ShowCommand show;
  run.add(app)->callback([&] { run.run(); });
  search.add(app)->callback([&] { search.run(); });
  retrain.add(app)->callback([&] { retrain.run(); });
  evaluate.add(app)->callback([&] { evaluate.run(); });
  show.add(app)->callback([&] { show.run(); });
  try {
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help
    throw Error(parse_complaint(e));
  }
  return 0;
}

}  // namespace
}  // namespace lanas

int main(int argc, char** argv) {
  lanas::catch_stop_signals();
  try {
    return lanas::run(argc, argv);
  } catch (const lanas::Interrupted& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 130;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "lanas_train: out of memory: a smaller batch or network needs less\n");
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "lanas_train: %s\n", e.what());
    return 2;
  }
}
