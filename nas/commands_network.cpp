// commands_network.cpp -- what is done with a trained network: `lanas_train evaluate` (accuracy and confusion
// on the test images), `predict` (classes of pictures), `export` (ONNX, and the genotype for DARTS's code).
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <iostream>

#include "autograd/checkpoint.h"
#include "nas/check_settings.h"
#include "nas/classify.h"
#include "nas/commands.h"
#include "nas/image_file.h"
#include "nas/onnx.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

constexpr const char* kCheckpointHelp = "a network.safetensors of retrain, or a NAME.safetensors of run";

std::string cell(const std::string& text, size_t width) {
  return std::string(width > text.size() ? width - text.size() : 0, ' ') + text;
}

struct EvaluateCommand {
  Common common;
  std::string checkpoint, data_folder = kDefaultDataFolder;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub =
        app.add_subcommand("evaluate", "accuracy and confusion of a trained network on the test images");
    add_common(*sub, common);
    sub->add_option("checkpoint", checkpoint, kCheckpointHelp)->required();
    sub->add_option("--data", data_folder, "folder of Fashion-MNIST or CIFAR-10 files")
        ->capture_default_str();
    return sub;
  }

  void run() {
    check_json_target(common.json);
    Stream stream(common.chosen(), common.threads);
    TrainedNetwork network = load_trained(checkpoint, stream.device());
    const ImageData data = load_image_data(data_folder);
    const Confusion confusion = test_confusion(stream, network, data);
    if (common.json != "-") {
      std::printf("test accuracy %.4f on %d images\n", confusion.accuracy(), data.test_count());
      std::cout << table(confusion, data.name);
    }
    Json rows = Json::array(), names = Json::array();
    for (int truth = 0; truth < confusion.classes; ++truth) {
      const auto row = confusion.counts.begin() + std::ptrdiff_t(truth) * confusion.classes;
      rows.push_back(std::vector<int64_t>(row, row + confusion.classes));
      names.push_back(class_name(data.name, truth));
    }
    emit(common.json, {{"test_accuracy", confusion.accuracy()},
                       {"images", data.test_count()},
                       {"classes", names},
                       {"confusion", rows},  // [truth][answer]
                       {"genotype", write_genotype(network.genotype)}});
  }

  // A row for each class: how its images were classified, and the share that was right.
  static std::string table(const Confusion& confusion, const std::string& data_name) {
    constexpr size_t kName = 12, kNumber = 7;
    std::string text = cell("true \\ given", kName);
    for (int c = 0; c < confusion.classes; ++c) text += cell(std::to_string(c), kNumber);
    text += cell("right", kNumber + 1) + "\n";
    for (int truth = 0; truth < confusion.classes; ++truth) {
      const std::string name = class_name(data_name, truth), number = std::to_string(truth);
      text += cell(name == number ? name : name + " " + number, kName);
      for (int c = 0; c < confusion.classes; ++c)
        text += cell(std::to_string(confusion.counts[size_t(truth * confusion.classes + c)]), kNumber);
      char right[16];
      std::snprintf(right, sizeof right, "%.1f%%", 100 * confusion.recall(truth));
      text += cell(right, kNumber + 1) + "\n";
    }
    return text;
  }
};

struct PredictCommand {
  Common common;
  std::string checkpoint;
  std::vector<std::string> images;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("predict", "the classes that a trained network gives to pictures");
    add_common(*sub, common);
    sub->add_option("checkpoint", checkpoint, kCheckpointHelp)->required();
    sub->add_option("images", images, "PPM, PGM or PNG files; other sizes are scaled to the network's")
        ->required()
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    return sub;
  }

  void run() {
    check_json_target(common.json);
    Stream stream(common.chosen(), common.threads);
    TrainedNetwork network = load_trained(checkpoint, stream.device());
    Json results = Json::array();
    for (const std::string& path : images) {
      const std::vector<float> logits =
          classify(stream, network, fit_picture(read_picture(path), network.config.image));
      const auto best = std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (const float x : logits) sum += std::exp(double(x) - *best);
      const int label = int(best - logits.begin());
      const std::string name = class_name(network.data_name, label);
      if (common.json != "-")
        std::printf("%s: %d%s, probability %.3f\n", path.c_str(), label,
                    name == std::to_string(label) ? "" : (" (" + name + ")").c_str(), 1 / sum);
      results.push_back(
          {{"image", path}, {"class", label}, {"name", name}, {"probability", 1 / sum}, {"logits", logits}});
    }
    emit(common.json, results);
  }
};

struct ExportCommand {
  Common common;
  std::string checkpoint, onnx, genotype, name = "LANAS";

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("export", "a trained network for other programs");
    add_common(*sub, common);
    sub->add_option("checkpoint", checkpoint, kCheckpointHelp)->required();
    sub->add_option("--onnx", onnx, "write it as an ONNX model to this file");
    sub->add_option("--genotype-out", genotype,
                    "write its genotype to this file, as the public DARTS code has it");
    sub->add_option("--name", name, "the genotype's name there")->capture_default_str();
    return sub;
  }

  void run() {
    CHECK(!onnx.empty() || !genotype.empty(), "export: expected --onnx or --genotype-out");
    CHECK(onnx != genotype, "--onnx and --genotype-out: expected two files, found ", onnx, " for both");
    const auto word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
    CHECK(!name.empty() && std::ranges::all_of(name, word) &&
              !std::isdigit(static_cast<unsigned char>(name[0])),
          "--name: expected a name of letters, digits and _, found '", name, "'");
    common.chosen();
    check_json_target(common.json);
    if (!onnx.empty()) check_writable("--onnx", onnx);
    if (!genotype.empty()) check_writable("--genotype-out", genotype);
    const TrainedNetwork network = load_trained(checkpoint);
    if (!onnx.empty()) replace_file(onnx, onnx_model(network));
    if (!genotype.empty()) replace_file(genotype, name + " = " + write_genotype(network.genotype) + "\n");
    emit(common.json,
         {{"onnx", onnx}, {"genotype_out", genotype}, {"genotype", write_genotype(network.genotype)}});
  }
};

}  // namespace

void add_network_commands(CLI::App& app) {
  add_command(app, std::make_shared<EvaluateCommand>());
  add_command(app, std::make_shared<PredictCommand>());
  add_command(app, std::make_shared<ExportCommand>());
}

}  // namespace lanas
