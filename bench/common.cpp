#include "bench/common.h"

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "autograd/checkpoint.h"
#include "kernels/core/limits.h"
#include "kernels/core/precision.h"
#include "kernels/vendor/choices.h"
#include "nas/command_line.h"
#include "nas/machine.h"

namespace lanas::bench {

void add_common(CLI::App& app, Common& common, bool table) {
  app.add_option("--device", common.device, "auto, cpu or cuda")->capture_default_str();
  app.add_flag("--tf32", common.tf32, "cuda: matrix products may round to TF32");
  app.add_option("--threads", common.threads, "worker threads; 0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  add_seed(app, common.seed, "of all that is drawn at random");
  app.add_option("--json", common.json, "write the result as JSON to FILE, or - for standard output");
  if (table) app.add_option("--csv", common.csv, "write the table as CSV to FILE, or - for standard output");
  app.add_flag("--quiet", common.quiet, "no progress lines");
  app.set_config("--config", "", "read options from a TOML file");
}

Stream Common::stream() const {
  CHECK(json != "-" || csv != "-", "--json - and --csv -: standard output holds only one of them");
  set_tf32(tf32);
  return Stream(parse_device(device), threads);
}

void add_network(CLI::App& app, NetworkConfig& network) {
  app.add_option("--channels", network.channels, "channels of the first cells")->capture_default_str();
  app.add_option("--layers", network.layers, "cells")->capture_default_str();
  app.add_option("--image", network.image, "image side; 224 is the ImageNet form")->capture_default_str();
  app.add_option("--classes", network.classes, "classes")->capture_default_str();
  app.add_option("--batch", network.batch, "images per pass")->capture_default_str();
}

void check_range(const char* option, int64_t value, int64_t low, int64_t high) {
  CHECK(low <= value && value <= high, option, ": expected ", low, " to ", high, ", found ", value);
}

void check_network(const NetworkConfig& network) {
  check_range("--channels", network.channels, 1, 4096);
  check_range("--layers", network.layers, 1, 1000);
  check_range("--image", network.image, 4, 4096);
  check_range("--classes", network.classes, 1, 1'000'000);
  check_range("--batch", network.batch, 1, 65536);
}

Cell::Cell(double value, int digits) {
  if (!std::isfinite(value)) {
    shown = "-";
    return;
  }
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  shown = text;
  exact = csv_number(value);
}

std::string aligned(const TextTable& table) {
  std::vector<size_t> widths;
  for (const std::string& column : table.columns) widths.push_back(column.size());
  for (const auto& row : table.rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].shown.size());
  std::string text;
  auto line = [&](auto&& cell) {
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string pad(widths[i] - cell(i).size(), ' ');
      text += i == 0 ? cell(i) + pad : "  " + pad + cell(i);
    }
    text += "\n";
  };
  line([&](size_t i) -> const std::string& { return table.columns[i]; });
  for (const auto& row : table.rows) line([&](size_t i) -> const std::string& { return row[i].shown; });
  return text;
}

std::string csv_text(const TextTable& table) {
  auto quoted = [](const std::string& cell) {
    if (cell.find_first_of(",\"") == cell.npos) return cell;
    std::string text = "\"";
    for (char c : cell) text += c == '"' ? "\"\"" : std::string(1, c);
    return text + "\"";
  };
  std::string text;
  for (size_t i = 0; i < table.columns.size(); ++i) text += (i ? "," : "") + quoted(table.columns[i]);
  text += "\n";
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) text += (i ? "," : "") + quoted(row[i].exact);
    text += "\n";
  }
  return text;
}

void emit(const std::string& where, const std::string& text) {
  if (where.empty()) return;
  if (where == "-")
    std::cout << text << std::flush;
  else
    replace_file(where, text);
}

void emit(const std::string& where, const Json& json) {
  if (!where.empty()) emit(where, json.dump(2) + "\n");
}

void output(const Common& common, const Json& json, const TextTable& table, const std::string& notes) {
  if (common.text()) std::cout << aligned(table) << notes << std::flush;
  emit(common.json, json);
  if (!common.csv.empty()) emit(common.csv, csv_text(table));
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json machine_json(const Stream& stream) {
  const Machine machine = describe_machine();
  Json json = {{"cpu", machine.cpu},         {"cores", machine.cores},
               {"isa", machine.isa},         {"system", machine.system},
               {"date", utc_time()},         {"device", device_name(stream.device())},
               {"threads", stream.threads()}};
  if (stream.device() == Device::cuda) {
    json["gpu"] = backend::device_description();
    json["tf32"] = tf32();
    json["vendor_choices"] = vendor_choices();
  }
  return json;
}

Json read_json(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in, path, ": cannot be read");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  Json json = Json::parse(text, nullptr, false);
  CHECK(!json.is_discarded(), path, ": is not JSON");
  return json;
}

}  // namespace lanas::bench
