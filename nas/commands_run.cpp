// commands_run.cpp -- `lanas_train run`: the whole job, for one seed or several.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "autograd/checkpoint.h"
#include "nas/check_settings.h"
#include "nas/command_line.h"
#include "nas/commands.h"
#include "nas/folder_lock.h"
#include "nas/seeds.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

struct RunCommand {
  Common common;
  RunConfig config;
  std::vector<std::string> arguments;  // as given, kept in the run's folder for --resume
  std::string mode, resume, lambdas, targets, metrics, seeds, baseline = "random", latency_device = "cpu";
  CLI::Option* given_lambdas = nullptr;

  CLI::App* add(CLI::App& app) {
    mode = latency_mode_name(config.search.latency.mode);
    CLI::App* sub =
        app.add_subcommand("run", "measure, predict, search, retrain, measure again, test, report");
    add_common(*sub, common);
    sub->add_option("--preset", config.preset,
                    "quick, darts, darts-second-order or pc-darts: the values of everything below")
        ->capture_default_str();
    sub->add_option("--data", config.data_folder, "folder of Fashion-MNIST or CIFAR-10 files")
        ->capture_default_str();
    sub->add_option("--out", config.folder, "folder of the run; default runs/DATE-PRESET-SEED");
    sub->add_option("--resume", resume,
                    "go on with the run in this folder, with the settings it was started with");
    for (double lambda : config.lambdas) lambdas += join(lambdas.empty() ? "" : ",", lambda);
    sub->add_option("--seeds", seeds, "several seeds, a run each in FOLDER/seed-N, and one table of all");
    given_lambdas = sub->add_option("--lambdas", lambdas, "weights of the latency term, one search each")
                        ->capture_default_str();
    sub->add_option(
        "--target-ms", targets,
        "latencies to be met, one search each: lambda is learned, the result measured; with it --lambdas "
        "is 0 unless given");
    metrics = metric_name(CostMetric::latency);
    sub->add_option("--metric", metrics,
                    "what lambda and target hold down, one search each: latency, macs, peak-memory")
        ->capture_default_str();
    sub->add_option("--baseline", baseline,
                    "what else is retrained for comparison: random genotypes, or none")
        ->capture_default_str();
    sub->add_option("--random,--count", config.random_networks, "how many random genotypes")
        ->capture_default_str();
    sub->add_option("--latency-samples", config.latency_samples, "architectures measured for the predictor")
        ->capture_default_str();
    sub->add_option("--latency", config.latency_table, "use this finished CSV instead of measuring");
    sub->add_option("--latency-batch", config.campaign.latency.network.batch,
                    "images per measured forward pass")
        ->capture_default_str();
    sub->add_option("--latency-device", latency_device, "device that is measured: cpu or cuda")
        ->capture_default_str();
    sub->add_option("--latency-threads", config.campaign.latency.threads,
                    "threads of the measured forward pass")
        ->capture_default_str();
    sub->add_option("--latency-redos", config.campaign.max_redos,
                    "times a stretch of the table is measured again while the controls are off")
        ->capture_default_str();
    sub->add_option("--latency-wait-share", config.campaign.latency.max_wait_share,
                    "waiting while somebody else uses the core, as a share of the time of passes that count")
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
    config.targets_ms = parse_numbers("--target-ms", targets);
    if (given_lambdas->count() == 0 && !targets.empty()) lambdas = "0";
    config.lambdas = parse_numbers("--lambdas", lambdas);
    config.metrics.clear();
    std::istringstream names(metrics);
    for (std::string name; std::getline(names, name, ',');) config.metrics.push_back(parse_metric(name));
    CHECK(!config.metrics.empty(), "--metric: expected latency, macs or peak-memory, found none");
    for (const CostMetric metric : config.metrics)
      CHECK(std::ranges::count(config.metrics, metric) == 1, "--metric: ", metric_name(metric),
            " twice, expected different ones");
    CHECK(baseline == "random" || baseline == "none", "--baseline: expected random or none, found '",
          baseline, "'");
    if (baseline == "none") config.random_networks = 0;
    config.device = common.chosen();
    CHECK(latency_device == "cpu" || latency_device == "cuda",
          "--latency-device: expected cpu or cuda, found '", latency_device, "'");
    config.campaign.latency.device = parse_device(latency_device);
    config.threads = common.threads;
    config.seed = common.seed;
    config.quiet = common.quiet;
    config.search.latency.mode = parse_latency_mode(mode);
    config.resume = !resume.empty();
    config.arguments = arguments;
    // A run may be resumed from another folder than the one it was started in.
    for (const auto& [flag, path] :
         {std::pair("--data", &config.data_folder), std::pair("--latency", &config.latency_table)}) {
      if (path->empty()) continue;
      *path = std::filesystem::absolute(*path).lexically_normal().string();
      config.arguments.insert(config.arguments.end(), {flag, *path});
    }
    if (!seeds.empty()) return run_seeds();
    const RunReport report = run_pipeline(config);
    if (common.json != "-") std::cout << report_table(report);
    emit(common.json, report_json(report));
  }

  // One run after another, with the latency table of the first; what is there of a run is gone on with.
  void run_seeds() {
    const std::vector<double> numbers = parse_numbers("--seeds", seeds);
    for (const double n : numbers)
      CHECK(n >= 0 && n <= 1e15 && n == std::floor(n) && std::count(numbers.begin(), numbers.end(), n) == 1,
            "--seeds: expected different whole numbers, found ", n);
    const std::string base = config.folder.empty() ? default_folder(config, "seeds") : config.folder;
    const std::string begun = base + "/arguments.json";
    CHECK(!std::filesystem::exists(base + "/settings.json"), base,
          ": holds the run of one seed, expected one of several");
    CHECK(config.resume == std::filesystem::exists(begun), base,
          config.resume ? ": holds no run to resume"
                        : ": holds a run already; go on with --resume or choose another --out");
    make_folder(base);
    const FolderLock lock(base);
    if (!config.resume) replace_file(begun, Json(config.arguments).dump() + "\n");
    std::vector<RunReport> reports;
    for (const double n : numbers) {
      RunConfig one = config;
      one.seed = uint64_t(n);
      one.folder = join(base, "/seed-", one.seed);
      one.resume_folder = base;
      one.resume = std::filesystem::exists(one.folder + "/arguments.json");
      if (reports.size() && one.latency_table.empty()) one.latency_table = first_table(base, numbers[0]);
      one.arguments = without_seeds();
      one.arguments.insert(one.arguments.end(), {"--seed", std::to_string(one.seed)});
      if (!one.latency_table.empty())
        one.arguments.insert(one.arguments.end(), {"--latency", one.latency_table});
      reports.push_back(run_pipeline(one));
    }
    if (common.json != "-") std::cout << seeds_table(reports);
    const Json json = seeds_json(reports);
    replace_file(base + "/seeds.json", json.dump(2) + "\n");
    emit(common.json, json);
  }

  static std::string first_table(const std::string& base, double seed) {
    return (std::filesystem::absolute(base) / join("seed-", uint64_t(seed)) / "latency.csv").string();
  }

  // The words that a single run of these was started with.
  std::vector<std::string> without_seeds() const {
    std::vector<std::string> words;
    for (size_t i = 0; i < config.arguments.size(); ++i) {
      if (config.arguments[i] == "--seeds")
        ++i;
      else if (!config.arguments[i].starts_with("--seeds="))
        words.push_back(config.arguments[i]);
    }
    return words;
  }
};

}  // namespace

void add_run(CLI::App& app, const RunConfig& defaults, const std::vector<std::string>& arguments) {
  auto command = std::make_shared<RunCommand>();
  command->config = defaults;
  command->arguments = arguments;
  add_command(app, command);
}

}  // namespace lanas
