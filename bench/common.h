// common.h -- what every subcommand of bench_latency has: its options, the machine in its JSON, and tables
// that go to the terminal with few digits and to CSV with all of them.
#pragma once

#include <CLI/CLI.hpp>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/core/device.h"
#include "nas/network.h"
#include "predictor/csv.h"

namespace lanas::bench {

using Json = nlohmann::json;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();  // "-" in tables, null in JSON

struct Common {
  std::string device = "auto", json, csv;
  int threads = 1;
  uint64_t seed = 0;
  bool quiet = false, tf32 = false;

  Stream stream() const;                                   // and checks the options above
  bool text() const { return json != "-" && csv != "-"; }  // whether the terminal gets the readable form
};
void add_common(CLI::App& app, Common& common, bool table);

// --channels, --layers, --image, --classes and --batch of a derived network.
void add_network(CLI::App& app, NetworkConfig& network);
void check_network(const NetworkConfig& network);

// A cell of a table: as read and as calculated with.
struct Cell {
  std::string shown, exact;
  Cell(std::string text) : shown(text), exact(std::move(text)) {}
  Cell(const char* text) : Cell(std::string(text)) {}
  Cell(int64_t value) : Cell(std::to_string(value)) {}
  Cell(int value) : Cell(int64_t{value}) {}
  Cell(double value, int digits);  // digits after the point; NaN is "-" and empty
};
struct TextTable {
  std::vector<std::string> columns;
  std::vector<std::vector<Cell>> rows;
};
std::string aligned(const TextTable& table);   // the first column to the left, the others to the right
std::string csv_text(const TextTable& table);  // RFC 4180

// Writes to a file, or to standard output where `where` is "-"; nothing where it is empty.
void emit(const std::string& where, const std::string& text);
void emit(const std::string& where, const Json& json);
// The readable form, the JSON and the CSV, each to where it was asked for. `notes`: lines after the table.
void output(const Common& common, const Json& json, const TextTable& table, const std::string& notes = "");

Json number(double value);  // null where not finite
// {"cpu", "cores", "isa", "system", "date", "device", "threads"}
Json machine_json(const Stream& stream);
// JSON of a file; Error "path: ..." where it cannot be read or is none.
Json read_json(const std::string& path);

// Error naming the option unless the value lies in [low, high].
void check_range(const char* option, int64_t value, int64_t low, int64_t high);

// A subcommand: add() declares its options, run() is called once they are read.
template <class Command>
void add_command(CLI::App& app) {
  auto command = std::make_shared<Command>();
  command->add(app)->callback([command] { command->run(); });
}
void add_sample(CLI::App& app);
void add_fit(CLI::App& app);
void add_network_command(CLI::App& app);
void add_predict(CLI::App& app);
void add_step(CLI::App& app);
void add_kernels(CLI::App& app);
void add_transfer(CLI::App& app);

}  // namespace lanas::bench
