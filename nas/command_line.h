// command_line.h -- the words of the command line: --config FILE.toml and `run --resume FOLDER` stand for
// other words, and what is wrong with one is told in one line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace lanas {

// The main function of a program: runs it and tells in one line what stopped it. Exit codes: 0 done, 2 wrong
// input or a failure (standard output that cannot be written is one), 130 stopped by a signal.
int run_program(const char* name, int argc, char** argv, void (*run)(int argc, char** argv));

// --seed: a whole number below 2^60, as seeds of different purposes are told apart by their last bits.
void add_seed(CLI::App& app, uint64_t& seed, const char* help);

// The value of an option, the last one where it is given several times, or "".
std::string option_value(const std::vector<std::string>& arguments, const std::string& option);

// `--config FILE`: each key of the TOML file, or of its section named as the command, becomes an option
// before those given, which count where both say something. Error naming the file where it cannot be read, or
// the line that is no "key = value" or the section of none of the commands.
std::vector<std::string> with_config_file(std::vector<std::string> arguments,
                                          const std::vector<std::string>& commands);

// `run --resume FOLDER` is the command the run was started with, plus what is given now (which counts where
// both say something), in that folder.
std::vector<std::string> with_resumed(std::vector<std::string> arguments);

// Parses the words, which runs the subcommand among them, or prints the help they ask for. Error in one line
// where they are wrong: of an unknown option it names those like it.
void parse_words(CLI::App& app, std::vector<std::string> words);

// "0,0.1" as numbers; Error naming the option where a part is none.
std::vector<double> parse_numbers(const std::string& option, const std::string& text);

}  // namespace lanas
