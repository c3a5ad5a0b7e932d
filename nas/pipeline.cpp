#include "nas/pipeline.h"

#include <cmath>
#include <filesystem>
#include <optional>

#include "kernels/core/precision.h"
#include "kernels/core/timing.h"
#include "kernels/vendor/choices.h"
#include "nas/check_settings.h"
#include "nas/classify.h"
#include "nas/folder_lock.h"
#include "nas/interrupt.h"
#include "nas/machine.h"
#include "nas/memory_need.h"
#include "nas/progress.h"
#include "nas/report_text.h"
#include "nas/run_log.h"
#include "nas/search_stage.h"
#include "nas/settings.h"
#include "nas/trainer_state.h"
#include "predictor/fit_report.h"

namespace lanas {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

Json read_json(const std::string& path) {
  Json json = Json::parse(read_file(path), nullptr, false);
  CHECK(!json.is_discarded(), path, ": is not JSON");
  return json;
}

std::string ms(double value) { return fixed(value, 3) + " ms"; }

class Pipeline {
 public:
  explicit Pipeline(const RunConfig& config) : config_(config), stream_(config.device, config.threads) {}

  RunReport run() {
    check_folder();
    if (const std::string done = file("results.json"); config_.resume && fs::exists(done)) {
      say("results", "already there: " + done);
      return report_from_json(read_json(done), done);
    }
    const double start_ms = now_ms();
    load_images();
    read_latency_table();
    const double seconds = (now_ms() - start_ms) / 1000;
    open_folder();
    log_->stage("images", seconds);
    say("images",
        join(data_.name, ": ", data_.train_count(), " for training, ", data_.test_count(), " for the test"));
    try {
      run_stages();
    } catch (const Interrupted&) {
      throw Interrupted("stopped; go on with: lanas_train run --resume " + resume_folder());
    }
    return report_;
  }

 private:
  void run_stages() {
    stage("latency table", [&] { measure_architectures(); });
    stage("predictor", [&] { fit_predictor(); });
    search_all();
    for (NetworkResult& network : report_.networks)
      stage("retrain " + network.name, [&] { retrain_one(network); });
    stage("measure", [&] { measure_networks(); });
    stage("test", [&] { test_networks(); });
    finish();
  }

  std::string file(const std::string& name) const { return config_.folder + "/" + name; }
  const std::string& resume_folder() const {
    return config_.resume_folder.empty() ? config_.folder : config_.resume_folder;
  }

  void say(const std::string& label, const std::string& text) {
    if (!config_.quiet) std::fprintf(stderr, "%-22s %s\n", label.c_str(), text.c_str());
    if (log_) log_->event("note", {{"about", label}, {"text", text}});
  }

  template <class Work>
  void stage(const std::string& name, Work work) {
    const double start_ms = now_ms();
    const auto log = [&] { log_->stage(name, (now_ms() - start_ms) / 1000); };
    try {
      work();
    } catch (const Interrupted&) {
      log();
      throw;
    }
    log();
    if (stop_requested()) throw Interrupted("stopped");
  }

  // A run's folder belongs to one set of settings. The run begins when they are written; a kill between the
  // arguments and the settings leaves a run of which nothing is done.
  void check_folder() const {
    const std::string path = file("settings.json");
    std::error_code ignored;
    const bool begun = fs::exists(path, ignored);
    CHECK(config_.resume ? begun || fs::exists(file("arguments.json"), ignored) : !begun, config_.folder,
          config_.resume ? ": holds no run to resume"
                         : ": holds a run already; go on with --resume or choose another --out");
    if (begun) check_same_settings(read_json(path), to_json(config_), path);
  }

  void open_folder() {
    std::error_code error;
    fs::create_directories(config_.folder, error);
    CHECK(!error, config_.folder, ": cannot be made: ", error.message());
    lock_.emplace(config_.folder);
    check_folder();  // another process may have begun a run here
    const Json settings = to_json(config_);
    if (!config_.resume) replace_file(file("arguments.json"), Json(config_.arguments).dump() + "\n");
    if (!fs::exists(file("settings.json"))) replace_file(file("settings.json"), settings.dump(2) + "\n");
    log_.emplace(config_.folder);
    report_.config = settings;
    report_.preset = config_.preset;
    report_.seed = config_.seed;
    const Machine machine = describe_machine();
    report_.machine = join(machine.cpu, ", ", machine.cores, " cores, ", machine.isa, ", ", machine.system);
    say("run", config_.folder + "  (stop with Ctrl-C, go on with: lanas_train run --resume " +
                   resume_folder() + ")");
  }

  void load_images() {
    data_ = load_image_data(config_.data_folder);
    check_search_images(config_.search, data_);
    check_retrain_images(config_.retrain, data_);
    const size_t available = available_memory();
    const MemoryNeed searching = search_memory(config_.search, data_);
    const MemoryNeed training = retrain_memory(config_.retrain, heaviest_genotype(), data_);
    check_memory("the search", searching, available, config_.search.supernet.batch, "--batch", "--channels");
    check_memory("retraining", training, available, config_.retrain.network.batch, "--eval-batch",
                 "--eval-channels");
    say("memory", memory_text("the search", searching, available));
    say("memory", memory_text("retraining at most", training, available));
    report_.data = data_.name;
  }

  // A finished campaign given by --latency; it must be of this machine and this network.
  void read_latency_table() {
    if (config_.latency_table.empty()) return;
    campaign_ = read_campaign(config_.latency_table);
    const CsvNotes expected = latency_setting(config_.campaign.latency);
    CHECK(campaign_.setting == expected, config_.latency_table, ": measured on ",
          setting_text(campaign_.setting), ", expected ", setting_text(expected));
  }

  // What has been searched belongs to the table of its time, which cannot be measured a second time.
  void check_whole_table() const {
    const auto is_search = [](const fs::directory_entry& entry) {
      return entry.path().filename().string().starts_with("search-");
    };
    if (std::ranges::none_of(fs::directory_iterator(config_.folder), is_search)) return;
    const std::string path = file("latency.csv");
    CHECK(fs::exists(path), path, ": no such file, and searches that went by it have begun");
    const size_t rows = read_campaign(path).rows.size();
    CHECK(rows == size_t(config_.latency_samples), path, ": expected the ", config_.latency_samples,
          " architectures by which searches have begun, found ", rows);
  }

  void measure_architectures() {
    if (config_.latency_table.empty()) {
      check_whole_table();
      Progress progress("latency table", config_.latency_samples, config_.quiet);
      CampaignConfig campaign = config_.campaign;
      campaign.progress = [&](const CampaignProgress& p) {
        progress.set_total(p.total);
        progress.update(p.done, "drift " + percent(p.drift, 1));
      };
      campaign_ = run_campaign(file("latency.csv"), campaign);
      progress.finish(join(campaign_.rows.size(), " architectures"));
    }
    report_.latency_setting = campaign_.setting;
    report_.predictor.noise_mape = campaign_.noise_mape;
    report_.predictor.mean_drift = campaign_.mean_drift;
    report_.predictor.max_drift = campaign_.max_drift;
    report_.predictor.stretches = campaign_.stretches;
    report_.predictor.unsettled = campaign_.unsettled;
    say("latency table",
        join("noise ", percent(campaign_.noise_mape), ", drift of the controls ",
             percent(campaign_.mean_drift), " in the mean, ", percent(campaign_.max_drift), " at most; ",
             campaign_.unsettled, " of ", campaign_.stretches, " stretches never settled"));
  }

  void fit_predictor() {
    const Dataset data = latency_dataset(campaign_);
    const int train = data.rows - int(std::lround(config_.predictor_test_fraction * data.rows));
    // All random draws of this fit come from the run's seed; the fit runs again on every start, to the same
    // bits.
    FitOptions options;
    options.train_rows = train;
    options.split_seed = options.regressor.seed = config_.seed;
    options.mlp_alone = false;
    options.noise_mape = campaign_.noise_mape;
    const FitReport fit = fit_report(data, options, stream_, &regressor_);
    PredictorResult& p = report_.predictor;
    p.n_train = fit.n_train;
    p.n_test = fit.n_test;
    p.test_mape = fit.test.mape;
    p.within_5 = fit.test.within_5;
    p.within_10 = fit.test.within_10;
    p.spearman = fit.test.spearman;
    p.cheapest_tenth = fit.test.cheapest_tenth;
    p.linear_mape = fit.linear.mape;
    p.linear_spearman = fit.linear.spearman;
    p.held_out = fit.held_out;
    regressor_->save(file("predictor.safetensors"));
    Regressor on_host = regressor_->to(Device::cpu);  // for single predictions; a search takes it back
    regressor_.emplace(std::move(on_host));
    say("predictor",
        join("relative error ", percent(p.test_mape), " on ", p.n_test, " unseen architectures (ridge ",
             percent(p.linear_mape), ", noise ", percent(p.noise_mape), "), Spearman ", p.spearman));
  }

  void search_all() {
    SearchStage searches(config_, stream_, data_, campaign_, *regressor_, *log_,
                         [this](const std::string& label, const std::string& text) { say(label, text); });
    searches.check_targets();
    auto add = [&](NetworkResult network) {
      describe(network);
      report_.networks.push_back(std::move(network));
    };
    for (const SearchStage::Job& job : searches.jobs())
      stage("search " + job.name, [&] { add(searches.search(job)); });
    stage("random genotypes", [&] {
      for (NetworkResult& network : searches.random(report_.networks)) add(std::move(network));
    });
  }

  void describe(NetworkResult& network) {
    network.predicted_ms = predict_ms(*regressor_, network.genotype);
    const NetworkCounts counts = count_network(config_.retrain.network, network.genotype);
    network.parameters = counts.parameters;
    network.macs = counts.macs;
    network.skips_normal = count_skips(network.genotype.normal);
    network.skips_reduce = count_skips(network.genotype.reduce);
    replace_file(file(network.name + ".genotype"), write_genotype(network.genotype) + "\n");
    say(network.name, join("predicted ", ms(network.predicted_ms), ", ", counts.parameters, " parameters, ",
                           counts.macs, " MACs"));
  }

  void retrain_one(NetworkResult& network) {
    Progress progress("retrain " + network.name, 1, config_.quiet);
    RetrainHooks hooks;
    hooks.on_step = show_steps(progress);
    const RetrainResult result =
        retrain(stream_, config_.retrain, network.genotype, data_,
                file("retrain-" + network.name + ".safetensors"), file(network.name + ".safetensors"), hooks);
    network.training = result.history;
    network.valid_accuracy = result.best_valid_accuracy;
    progress.finish("validation accuracy " + percent(result.best_valid_accuracy));
  }

  // In turn, round by round, so that a machine that slows down slows all of them; of each network those
  // rounds count in which the machine was as in the campaign, if there are any.
  void measure_networks() {
    LatencyMeter meter(config_.campaign.latency);
    std::vector<std::vector<SteadyTimes>> rounds(report_.networks.size());
    for (int round = 0; round < config_.final_rounds; ++round)
      for (size_t i = 0; i < rounds.size(); ++i)
        rounds[i].push_back(steady_times(meter, report_.networks[i].genotype, campaign_.control_ms,
                                         kControlTolerance, config_.final_tries));
    for (size_t i = 0; i < rounds.size(); ++i) {
      NetworkResult& network = report_.networks[i];
      const SteadyTimes steady = steady_rounds(rounds[i]);
      network.latency_ms = summarise(steady.ms);
      network.latency_ms.macs = network.macs;
      network.control_off = steady.control_off;
    }
    for (const std::string& line : disturbed_lines(report_)) say("measured", line);
    for (const std::string& line : target_lines(report_)) say("target", line);
  }

  void test_networks() {
    for (NetworkResult& network : report_.networks) {
      TrainedNetwork trained = load_trained(file(network.name + ".safetensors"), stream_.device());
      network.test_accuracy = test_confusion(stream_, trained, data_).accuracy();
    }
  }

  void finish() {
    for (const std::string& choice : vendor_choices()) log_->event("vendor choice", {{"text", choice}});
    report_.stages = log_->stages();
    for (const auto& [name, seconds] : report_.stages) report_.seconds += seconds;
    report_.peak_bytes = peak_memory_bytes();
    report_.date = utc_time();
    write_report_html(file("report.html"), report_);
    replace_file(file("results.json"), report_json(report_).dump(2) + "\n");  // last: it ends the run
    say("report", file("report.html"));
  }

  RunConfig config_;
  Stream stream_;
  RunReport report_;
  ImageData data_;
  Campaign campaign_;
  std::optional<Regressor> regressor_;
  std::optional<FolderLock> lock_;
  std::optional<RunLog> log_;
};

}  // namespace

std::string default_folder(const RunConfig& config, const std::string& what) {
  return join("runs/", utc_time().substr(0, 10), "-", config.preset, "-", what);
}

LatencyConfig measured_latency(const RunConfig& config) {
  LatencyConfig latency = config.campaign.latency;
  const int batch = latency.network.batch;
  latency.network = config.retrain.network;
  latency.network.batch = batch;
  latency.network.auxiliary = false;
  return latency;
}

RunReport run_pipeline(RunConfig config) {
  if (config.folder.empty()) config.folder = default_folder(config, std::to_string(config.seed));
  config.search.seed = config.retrain.seed = config.campaign.seed = config.seed;
  config.search.supernet.image = config.retrain.network.image;
  config.search.supernet.classes = config.retrain.network.classes;
  config.campaign.count = config.latency_samples;
  config.campaign.latency = measured_latency(config);
  check_run_settings(config);
  return Pipeline(config).run();
}

std::vector<std::string> read_run_arguments(const std::string& folder) {
  const std::string path = folder + "/arguments.json";
  CHECK(fs::exists(path), folder, ": holds no run to resume");
  const Json json = read_json(path);
  CHECK(json.is_array() && std::all_of(json.begin(), json.end(), [](const Json& j) { return j.is_string(); }),
        path, ": expected a JSON list of words");
  return json;
}

// A table within the folder that holds the run's is named from there, however that folder was spelled and
// wherever it has been moved.
static std::string table_name(const RunConfig& c) {
  if (c.latency_table.empty()) return "";
  std::error_code error;
  const fs::path home = fs::weakly_canonical(fs::path(c.folder) / "..", error);
  const std::string name = fs::weakly_canonical(c.latency_table, error).lexically_relative(home).string();
  return name.empty() || name.starts_with("..") ? c.latency_table : name;
}

Json to_json(const RunConfig& c) {
  Json metrics = Json::array();
  for (const CostMetric metric : c.metrics) metrics.push_back(metric_name(metric));
  return {{"preset", c.preset},
          {"data", c.data_folder},
          {"device", device_name(c.device)},
          {"tf32", tf32()},
          {"threads", c.threads},
          {"seed", c.seed},
          {"latency_samples", c.latency_samples},
          {"latency_table", table_name(c)},
          {"lambdas", c.lambdas},
          {"targets_ms", c.targets_ms},
          {"metrics", metrics},
          {"random_networks", c.random_networks},
          {"predictor_test_fraction", c.predictor_test_fraction},
          {"search", to_json(c.search)},
          {"retrain", to_json(c.retrain)},
          {"latency_device", device_name(c.campaign.latency.device)},
          {"latency_threads", c.campaign.latency.threads},
          {"latency_batch", c.campaign.latency.network.batch}};
}

}  // namespace lanas
