// commands_common.cpp -- options that several subcommands of lanas_train share.
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "autograd/checkpoint.h"
#include "kernels/core/limits.h"
#include "kernels/core/precision.h"
#include "nas/command_line.h"
#include "nas/commands.h"

namespace lanas {

using Json = nlohmann::json;

Device Common::chosen() const {
  set_tf32(tf32);
  const Device chosen = parse_device(device);
  const std::string warning = chosen == Device::cuda ? backend::device_warning() : "";
  if (!warning.empty()) std::fprintf(stderr, "%s\n", warning.c_str());
  return chosen;
}

void add_common(CLI::App& app, Common& common) {
  app.add_option("--device", common.device, "auto, cpu or cuda")->capture_default_str();
  app.add_flag("--tf32", common.tf32, "cuda: matrix products may round to TF32");
  app.add_option("--threads", common.threads, "worker threads; 0: all cores")->capture_default_str();
  add_seed(app, common.seed, "the same seed gives the same bits");
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
  app.add_option("--max-skips", s.caps.max_skips, "cap on skip connections in the normal cell; 8: none")
      ->capture_default_str();
  app.add_option("--max-pools", s.caps.max_pools, "cap on max and average pools in each cell; 8: none")
      ->capture_default_str();
  app.add_flag("--second-order,!--first-order", s.second_order,
               "alpha's gradient looks one weight step ahead (finite differences)");
  app.add_option("--stable-epochs", s.stable_epochs,
                 "stop when the genotype has not changed for so many epochs; 0: never")
      ->capture_default_str();
  app.add_option("--measure-every", s.measure_every,
                 "epochs between two real measurements of the genotype, for the log; 0: never")
      ->capture_default_str();
  app.add_option("--lambda-lr", s.latency.lambda_lr, "rate at which lambda is learned for a target")
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

}  // namespace lanas
