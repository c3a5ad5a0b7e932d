// commands.h -- the subcommands of lanas_train: the options that they share, and how each adds itself to the
// command line. Every add_... declares a subcommand whose work runs once its options are read.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nas/pipeline.h"

namespace lanas {

// Options every subcommand has.
struct Common {
  std::string device = "auto", json, config;
  int threads = 0;
  uint64_t seed = 0;
  bool quiet = false, tf32 = false;

  // The device of --device, with TF32 set as --tf32 says; tells on stderr where cuda is not a real one.
  Device chosen() const;
};

void add_common(CLI::App& app, Common& common);

// Writes a result to a file, to standard output where `where` is "-", nowhere where it is empty.
void emit(const std::string& where, const nlohmann::json& json);
// Error naming the folder where it cannot be made.
void make_folder(const std::string& path);

// Options of a search and of the network that is retrained and measured; they write into `c` and `mode`.
void add_checkpoint_seconds(CLI::App& app, RunConfig& c);
void add_search_options(CLI::App& app, RunConfig& c, std::string& mode);
void add_network_options(CLI::App& app, RunConfig& c);

template <class Command>
void add_command(CLI::App& app, std::shared_ptr<Command> command) {
  command->add(app)->callback([command] { command->run(); });
}
// `defaults` is the preset; `arguments` the whole command line, which a run keeps for --resume.
void add_run(CLI::App& app, const RunConfig& defaults, const std::vector<std::string>& arguments);
void add_search(CLI::App& app, const RunConfig& defaults);
void add_retrain(CLI::App& app, const RunConfig& defaults);
void add_network_commands(CLI::App& app);  // evaluate, predict, export
void add_show(CLI::App& app);

}  // namespace lanas
