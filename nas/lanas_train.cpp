// lanas_train.cpp -- the command line; its subcommands stand in commands_*.cpp. Exit codes: 0 done, 2 wrong
// input or a failure told in one line, 130 stopped by a signal after a checkpoint.
#include "nas/command_line.h"
#include "nas/commands.h"

namespace lanas {
namespace {

void run(int argc, char** argv) {
  CLI::App app{
      "LaNAS: finds the network cell that is most accurate for a latency you choose, and measures it.",
      "lanas_train"};
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  const std::vector<std::string> arguments = with_resumed(with_config_file(
      {argv + 1, argv + argc}, {"run", "search", "retrain", "evaluate", "predict", "export", "show"}));
  const std::string preset_name =
      option_value(arguments, "--preset");  // other options override the preset's values
  const RunConfig defaults = preset(preset_name.empty() ? "quick" : preset_name);
  add_run(app, defaults, arguments);
  add_search(app, defaults);
  add_retrain(app, defaults);
  add_network_commands(app);
  add_show(app);
  parse_words(app, arguments);
}

}  // namespace
}  // namespace lanas

int main(int argc, char** argv) { return lanas::run_program("lanas_train", argc, argv, lanas::run); }
