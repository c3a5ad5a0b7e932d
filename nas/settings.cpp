#include "nas/settings.h"

#include <algorithm>

namespace lanas {

using Json = nlohmann::json;

Json to_json(const SupernetConfig& c) {
  return {
      {"channels", c.channels}, {"layers", c.layers},   {"classes", c.classes},          {"image", c.image},
      {"batch", c.batch},       {"partial", c.partial}, {"edge_weights", c.edge_weights}};
}

Json to_json(const NetworkConfig& c) {
  return {{"channels", c.channels},
          {"layers", c.layers},
          {"classes", c.classes},
          {"image", c.image},
          {"batch", c.batch},
          {"auxiliary", c.auxiliary},
          {"auxiliary_weight", c.auxiliary_weight},
          {"label_smoothing", c.label_smoothing},
          {"drop_path", c.drop_path}};
}

Json to_json(const LatencyLossConfig& c) {
  return {{"mode", latency_mode_name(c.mode)}, {"samples", c.samples},
          {"temperature", c.temperature},      {"lambda", c.lambda},
          {"reference_ms", c.reference_ms},    {"target_ms", c.target_ms},
          {"lambda_lr", c.lambda_lr}};
}

Json to_json(const SearchConfig& c) {
  return {{"supernet", to_json(c.supernet)},
          {"epochs", c.epochs},
          {"frozen_epochs", c.frozen_epochs},
          {"lr", c.lr},
          {"lr_min", c.lr_min},
          {"momentum", c.momentum},
          {"weight_decay", c.weight_decay},
          {"clip", c.clip},
          {"alpha_lr", c.alpha_lr},
          {"alpha_beta1", c.alpha_beta1},
          {"alpha_beta2", c.alpha_beta2},
          {"alpha_weight_decay", c.alpha_weight_decay},
          {"crop_padding", c.crop_padding},
          {"flip", c.flip},
          {"images", c.images},
          {"validation_images", c.validation_images},
          {"second_order", c.second_order},
          {"stable_epochs", c.stable_epochs},
          {"metric", metric_name(c.metric)},
          {"latency", to_json(c.latency)},
          {"max_skips", c.caps.max_skips},
          {"max_pools", c.caps.max_pools},
          {"seed", c.seed}};
}

Json to_json(const RetrainConfig& c) {
  return {{"network", to_json(c.network)},
          {"epochs", c.epochs},
          {"lr", c.lr},
          {"lr_min", c.lr_min},
          {"momentum", c.momentum},
          {"weight_decay", c.weight_decay},
          {"clip", c.clip},
          {"drop_path", c.drop_path},
          {"crop_padding", c.crop_padding},
          {"cutout", c.cutout},
          {"flip", c.flip},
          {"images", c.images},
          {"validation_fraction", c.validation_fraction},
          {"seed", c.seed}};
}

Json to_json(const SearchEpoch& e) {
  return {{"epoch", e.epoch},
          {"train_loss", e.train_loss},
          {"train_accuracy", e.train_accuracy},
          {"valid_loss", e.valid_loss},
          {"valid_accuracy", e.valid_accuracy},
          {"soft_ms", e.soft_ms},
          {"hard_ms", e.hard_ms},
          {"alpha_entropy", e.alpha_entropy},
          {"skips_normal", e.skips_normal},
          {"skips_reduce", e.skips_reduce},
          {"seconds", e.seconds},
          {"lambda", e.lambda},
          {"measured_ms", e.measured_ms},
          {"genotype", write_genotype(e.genotype)}};
}

Json to_json(const RetrainEpoch& e) {
  return {{"epoch", e.epoch},
          {"train_loss", e.train_loss},
          {"train_accuracy", e.train_accuracy},
          {"valid_loss", e.valid_loss},
          {"valid_accuracy", e.valid_accuracy},
          {"seconds", e.seconds}};
}

SearchEpoch search_epoch_from_json(const Json& j) {
  SearchEpoch e{j.at("epoch"),          j.at("train_loss"),
                j.at("train_accuracy"), j.at("valid_loss"),
                j.at("valid_accuracy"), j.at("soft_ms"),
                j.at("hard_ms"),        j.at("alpha_entropy"),
                j.at("skips_normal"),   j.at("skips_reduce"),
                j.at("seconds"),        {},
                j.value("lambda", 0.0), j.value("measured_ms", 0.0)};
  e.genotype = read_genotype(j.at("genotype").get<std::string>());
  return e;
}

RetrainEpoch retrain_epoch_from_json(const Json& j) {
  return {j.at("epoch"),      j.at("train_loss"),     j.at("train_accuracy"),
          j.at("valid_loss"), j.at("valid_accuracy"), j.at("seconds")};
}

namespace {

// Of a long text, the part around the first difference from another.
std::string excerpt(const std::string& text, const std::string& other) {
  constexpr size_t kLong = 80, kBefore = 20;
  if (text.size() <= kLong) return text;
  const auto differs = std::mismatch(text.begin(), text.end(), other.begin(), other.end()).first;
  const size_t at = size_t(differs - text.begin()), first = at > kBefore ? at - kBefore : 0;
  return (first > 0 ? "..." : "") + text.substr(first, kLong) + (first + kLong < text.size() ? "..." : "");
}

}  // namespace

void check_same_settings(const Json& found, const Json& expected, const std::string& path) {
  const Json difference = Json::diff(expected, found);
  if (difference.empty()) return;
  const std::string where = difference[0].value("path", "");
  const Json::json_pointer pointer(where);
  auto text = [&](const Json& j) { return j.contains(pointer) ? j[pointer].dump() : std::string("nothing"); };
  const std::string there = text(found), here = text(expected);
  throw Error(join(path, ": belongs to other settings: ", where.empty() ? "/" : where, " is ",
                   excerpt(there, here), " there, expected ", excerpt(here, there)));
}

}  // namespace lanas
