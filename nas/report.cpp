#include "nas/report.h"

#include <algorithm>

#include "nas/campaign.h"
#include "nas/decode.h"
#include "nas/progress.h"
#include "nas/report_text.h"
#include "nas/settings.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json network_json(const NetworkResult& n) {
  Json search = Json::array(), training = Json::array();
  for (const SearchEpoch& epoch : n.search) search.push_back(to_json(epoch));
  for (const RetrainEpoch& epoch : n.training) training.push_back(to_json(epoch));
  return {{"name", n.name},
          {"lambda", n.lambda},
          {"metric", n.metric},
          {"target_ms", n.target_ms},
          {"decoded_ms", n.decoded_ms},
          {"target_met", n.target_ms > 0 ? Json(meets_target(n)) : Json(nullptr)},
          {"genotype", write_genotype(n.genotype)},
          {"test_accuracy", number(n.test_accuracy)},
          {"valid_accuracy", number(n.valid_accuracy)},
          {"parameters", n.parameters},
          {"macs", n.macs},
          {"predicted_ms", number(n.predicted_ms)},
          {"latency_ms",
           {{"median", number(n.latency_ms.median_ms)},
            {"p10", number(n.latency_ms.p10_ms)},
            {"p90", number(n.latency_ms.p90_ms)},
            {"repeats", n.latency_ms.repeats}}},
          {"control_off", number(n.control_off)},
          {"skips_normal", n.skips_normal},
          {"skips_reduce", n.skips_reduce},
          {"search", search},
          {"training", training}};
}

Json predictor_json(const PredictorResult& p) {
  Json held_out = Json::array();
  for (const auto& [predicted, measured] : p.held_out) held_out.push_back({predicted, measured});
  return {{"n_train", p.n_train},
          {"n_test", p.n_test},
          {"test_mape", number(p.test_mape)},
          {"within_5", number(p.within_5)},
          {"within_10", number(p.within_10)},
          {"spearman", number(p.spearman)},
          {"cheapest_tenth", number(p.cheapest_tenth)},
          {"linear_mape", number(p.linear_mape)},
          {"linear_spearman", number(p.linear_spearman)},
          {"noise_mape", number(p.noise_mape)},
          {"mean_drift", number(p.mean_drift)},
          {"max_drift", number(p.max_drift)},
          {"stretches", p.stretches},
          {"stretches_unsettled", p.unsettled},
          {"held_out_predicted_measured_ms", held_out}};
}

double read_number(const Json& json, const char* key) {
  return json.at(key).is_null() ? kUnknown : json.at(key).get<double>();
}

NetworkResult network_from_json(const Json& json) {
  NetworkResult n;
  n.name = json.at("name");
  n.lambda = json.at("lambda");
  n.metric = json.value("metric", n.metric);
  n.target_ms = json.value("target_ms", 0.0);
  n.decoded_ms = json.value("decoded_ms", 0.0);
  n.genotype = read_genotype(json.at("genotype").get<std::string>());
  n.test_accuracy = read_number(json, "test_accuracy");
  n.valid_accuracy = read_number(json, "valid_accuracy");
  n.parameters = json.at("parameters");
  n.macs = json.at("macs");
  n.predicted_ms = read_number(json, "predicted_ms");
  const Json& latency = json.at("latency_ms");
  n.latency_ms = {read_number(latency, "median"), read_number(latency, "p10"), read_number(latency, "p90"),
                  latency.at("repeats"), n.macs};
  n.control_off = json.contains("control_off") ? read_number(json, "control_off") : 0;
  n.skips_normal = json.at("skips_normal");
  n.skips_reduce = json.at("skips_reduce");
  for (const Json& epoch : json.at("search")) n.search.push_back(search_epoch_from_json(epoch));
  for (const Json& epoch : json.at("training")) n.training.push_back(retrain_epoch_from_json(epoch));
  return n;
}

PredictorResult predictor_from_json(const Json& json) {
  PredictorResult p;
  p.n_train = json.at("n_train");
  p.n_test = json.at("n_test");
  p.test_mape = read_number(json, "test_mape");
  p.within_5 = read_number(json, "within_5");
  p.within_10 = read_number(json, "within_10");
  p.spearman = read_number(json, "spearman");
  p.cheapest_tenth = read_number(json, "cheapest_tenth");
  p.linear_mape = read_number(json, "linear_mape");
  p.linear_spearman = read_number(json, "linear_spearman");
  p.noise_mape = read_number(json, "noise_mape");
  p.mean_drift = read_number(json, "mean_drift");
  p.max_drift = read_number(json, "max_drift");
  p.stretches = json.value("stretches", 0);
  p.unsettled = json.value("stretches_unsettled", 0);
  for (const Json& pair : json.at("held_out_predicted_measured_ms"))
    p.held_out.emplace_back(pair.at(0), pair.at(1));
  return p;
}

std::string padded(const std::string& text, size_t width, bool left) {
  const std::string space(width > text.size() ? width - text.size() : 0, ' ');
  return left ? text + space : space + text;
}

}  // namespace

std::string aligned_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) text += (i ? "  " : "") + padded(row[i], widths[i], i == 0);
    text += '\n';
  }
  return text;
}

std::vector<const NetworkResult*> accuracy_latency_front(const RunReport& report) {
  std::vector<const NetworkResult*> front;
  for (const NetworkResult& n : report.networks) {
    const bool beaten =
        std::any_of(report.networks.begin(), report.networks.end(), [&](const NetworkResult& other) {
          const double ms = other.latency_ms.median_ms, accuracy = other.test_accuracy;
          return ms <= n.latency_ms.median_ms && accuracy >= n.test_accuracy &&
                 (ms < n.latency_ms.median_ms || accuracy > n.test_accuracy);
        });
    if (!beaten) front.push_back(&n);
  }
  std::stable_sort(front.begin(), front.end(), [](const NetworkResult* a, const NetworkResult* b) {
    return a->latency_ms.median_ms < b->latency_ms.median_ms;
  });
  return front;
}

Json report_json(const RunReport& report) {
  Json networks = Json::array(), stages = Json::array(), setting = Json::object();
  for (const NetworkResult& network : report.networks) networks.push_back(network_json(network));
  Json front = Json::array();
  for (const NetworkResult* network : accuracy_latency_front(report)) front.push_back(network->name);
  for (const auto& [name, seconds] : report.stages)
    stages.push_back({{"name", name}, {"seconds", number(seconds)}});
  for (const auto& [key, value] : report.latency_setting) setting[key] = value;
  return {{"preset", report.preset},
          {"data", report.data},
          {"seed", report.seed},
          {"date", report.date},
          {"machine", report.machine},
          {"networks", networks},
          {"front", front},
          {"predictor", predictor_json(report.predictor)},
          {"latency_setting", setting},
          {"stages", stages},
          {"seconds", number(report.seconds)},
          {"peak_bytes", report.peak_bytes},
          {"config", report.config}};
}

RunReport report_from_json(const Json& json, const std::string& source) try {
  RunReport report;
  report.preset = json.at("preset");
  report.data = json.at("data");
  report.seed = json.at("seed");
  report.date = json.at("date");
  report.machine = json.at("machine");
  for (const Json& network : json.at("networks")) report.networks.push_back(network_from_json(network));
  report.predictor = predictor_from_json(json.at("predictor"));
  for (const auto& [key, value] : json.at("latency_setting").items())
    report.latency_setting.emplace_back(key, value);
  for (const Json& stage : json.at("stages"))
    report.stages.emplace_back(stage.at("name"), read_number(stage, "seconds"));
  report.seconds = read_number(json, "seconds");
  report.peak_bytes = json.at("peak_bytes");
  report.config = json.at("config");
  return report;
} catch (const Json::exception& error) {
  throw Error(source + ": is not the report of a run: " + error.what());
}

bool meets_target(const NetworkResult& n) {
  const double ms = n.latency_ms.median_ms;
  return ms >= kTargetLow * n.target_ms && ms <= n.target_ms;
}

const NetworkResult* baseline_of(const RunReport& report) {
  for (const NetworkResult& network : report.networks)
    if (network.name == "lambda0") return &network;
  return nullptr;
}

double latency_change(const RunReport& report, const NetworkResult& network) {
  const NetworkResult* base = baseline_of(report);
  if (!base || !(base->latency_ms.median_ms > 0)) return kUnknown;
  return network.latency_ms.median_ms / base->latency_ms.median_ms - 1;
}

std::vector<std::vector<std::string>> network_rows(const RunReport& report) {
  std::vector<std::vector<std::string>> rows = {{"network", "lambda", "test accuracy", "measured ms",
                                                 "p10 - p90", "vs lambda0", "predicted ms", "parameters",
                                                 "MACs", "skips"}};
  for (const NetworkResult& n : report.networks) {
    const bool random = n.search.empty() && n.lambda == 0 && n.name != "lambda0";
    const bool baseline = n.name == "lambda0";
    const double change = latency_change(report, n);
    rows.push_back({n.name,
                    random            ? "-"
                    : n.target_ms > 0 ? fixed(n.lambda, 2) + " learned"
                                      : join(n.lambda),
                    percent(n.test_accuracy, 2), fixed(n.latency_ms.median_ms, 3),
                    fixed(n.latency_ms.p10_ms, 3) + " - " + fixed(n.latency_ms.p90_ms, 3),
                    baseline || !std::isfinite(change) ? "-" : signed_fixed(100 * change, 1) + "%",
                    fixed(n.predicted_ms, 3), short_count(n.parameters), short_count(n.macs),
                    join(n.skips_normal, " + ", n.skips_reduce)});
  }
  return rows;
}

std::vector<std::string> comparisons(const RunReport& report) {
  std::vector<std::string> lines;
  const NetworkResult* base = baseline_of(report);
  for (const NetworkResult& n : report.networks) {
    if (!base) break;
    const double change = latency_change(report, n);
    if (!(n.lambda > 0) || !std::isfinite(change)) continue;
    const double points = 100 * (n.test_accuracy - base->test_accuracy);
    lines.push_back(join("With the ", n.metric, " term (", n.name, ", lambda ", n.lambda,
                         "): ", fixed(n.latency_ms.median_ms, 3), " ms measured against ",
                         fixed(base->latency_ms.median_ms, 3), " ms without it, ", percent(std::abs(change)),
                         change < 0 ? " lower" : " higher", "; test accuracy ", percent(n.test_accuracy, 2),
                         " against ", percent(base->test_accuracy, 2), ", ", fixed(std::abs(points), 2),
                         points < 0 ? " points lower." : " points higher."));
  }
  std::string front;
  for (const NetworkResult* n : accuracy_latency_front(report))
    front += join(front.empty() ? "" : ", ", n->name, " (", fixed(n->latency_ms.median_ms, 3), " ms, ",
                  percent(n->test_accuracy, 2), ")");
  lines.push_back("Measured front, no other network both faster and more accurate: " + front + ".");
  return lines;
}

std::vector<std::string> target_lines(const RunReport& report) {
  std::vector<std::string> lines;
  for (const NetworkResult& n : report.networks) {
    if (!(n.target_ms > 0)) continue;
    const std::string band =
        join("[", fixed(kTargetLow * n.target_ms, 3), ", ", fixed(n.target_ms, 3), "] ms");
    std::string line = join(n.name, ": measured ", fixed(n.latency_ms.median_ms, 3), " ms at the end, ",
                            meets_target(n) ? "within " : "MISSES ", band, "; ", fixed(n.decoded_ms, 3),
                            " ms when it was chosen");
    if (n.control_off > kControlTolerance)
      line +=
          join("; the machine was not as in the campaign: its control was off by ", percent(n.control_off));
    lines.push_back(line + ".");
  }
  return lines;
}

std::vector<std::string> disturbed_lines(const RunReport& report) {
  std::string names;
  double most = 0;
  for (const NetworkResult& n : report.networks) {
    if (n.control_off <= kControlTolerance) continue;
    names += join(names.empty() ? "" : ", ", n.name);
    most = std::max(most, n.control_off);
  }
  if (names.empty()) return {};
  return {join(
      "DISTURBED MACHINE: the control network never came within ", percent(kControlTolerance),
      " of its reference (off by up to ", percent(most), ") while these were measured at the end: ", names,
      ". Their latencies may be off by as much; measure again on a machine that does nothing else.")};
}

std::vector<std::string> predictor_lines(const PredictorResult& p) {
  std::vector<std::string> lines;
  if (p.n_test == 0) return lines;
  lines.push_back(join("Latency predictor: mean relative error ", percent(p.test_mape, 2), " on ", p.n_test,
                       " architectures that it had not seen (", p.n_train, " for training); ",
                       percent(p.within_5), " within 5%, ", percent(p.within_10),
                       " within 10%; rank correlation ", fixed(p.spearman, 4), "; ",
                       percent(p.cheapest_tenth, 2), " in the cheapest tenth."));
  if (std::isfinite(p.linear_mape))
    lines.push_back(join("Ridge regression on the same rows: mean relative error ", percent(p.linear_mape, 2),
                         ", rank correlation ", fixed(p.linear_spearman, 4), "."));
  if (std::isfinite(p.noise_mape))
    lines.push_back(join("Noise of measuring itself: ", percent(p.noise_mape, 2),
                         "; no predictor can be expected to be much better."));
  if (std::isfinite(p.mean_drift))
    lines.push_back(join("Control networks moved by ", percent(p.mean_drift, 2), " in the mean and ",
                         percent(p.max_drift, 2), " at most."));
  if (p.unsettled > 0)
    lines.push_back(join(
        2 * p.unsettled > p.stretches ? "DISTURBED MACHINE: in " : "Disturbed machine: in ", p.unsettled,
        " of ", p.stretches, " stretches of the latency table the controls never came within ",
        percent(kControlTolerance), " of their reference; measure again on a machine that does nothing else",
        2 * p.unsettled > p.stretches ? ", these latencies cannot be relied on." : "."));
  return lines;
}

std::string report_table(const RunReport& report) {
  std::string text = aligned_table(network_rows(report)) + '\n';
  for (const std::string& line : target_lines(report)) text += line + '\n';
  for (const std::string& line : disturbed_lines(report)) text += line + '\n';
  for (const std::string& line : comparisons(report)) text += line + '\n';
  for (const std::string& line : predictor_lines(report.predictor)) text += line + '\n';
  text += join("Time ", format_seconds(report.seconds), ", at most ",
               fixed(double(report.peak_bytes) / 1e9, 2), " GB of memory, on ", report.machine, ".\n");
  return text;
}

}  // namespace lanas
