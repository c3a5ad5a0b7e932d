#include "nas/command_line.h"

#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "kernels/core/check.h"
#include "nas/interrupt.h"
#include "nas/pipeline.h"
#include "predictor/csv.h"

namespace lanas {
namespace {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r"), last = text.find_last_not_of(" \t\r");
  return first == text.npos ? "" : text.substr(first, last - first + 1);
}

// Without a comment, which starts at a # outside quotes.
std::string without_comment(const std::string& line) {
  char quote = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (quote ? line[i] == quote : line[i] == '"' || line[i] == '\'')
      quote = quote ? 0 : line[i];
    else if (!quote && line[i] == '#')
      return line.substr(0, i);
  }
  return line;
}

std::string unquoted(const std::string& value) {
  const bool quoted = value.size() >= 2 && (value[0] == '"' || value[0] == '\'') && value.back() == value[0];
  return quoted ? value.substr(1, value.size() - 2) : value;
}

// The part of TOML that settings need: strings, numbers, booleans, and flat lists on one line, as one word.
std::string toml_value(const std::string& text) {
  if (text.size() < 2 || text.front() != '[' || text.back() != ']') return unquoted(text);
  std::string words, word;
  for (char ch : text.substr(1, text.size() - 2) + ",") {
    if (ch != ',') {
      word += ch;
      continue;
    }
    if (const std::string item = unquoted(trimmed(word)); !item.empty())
      words += (words.empty() ? "" : ",") + item;
    word.clear();
  }
  return words;
}

std::vector<std::string> read_config(const std::string& path, const std::string& command,
                                     const std::vector<std::string>& commands) {
  std::ifstream file(path);
  std::string line, section;
  CHECK(file && (file.peek(), !file.bad()), path, ": cannot be read, expected a TOML file with the options");
  std::vector<std::string> words;
  for (int number = 1; std::getline(file, line); ++number) {
    line = trimmed(without_comment(line));
    if (line.empty()) continue;
    if (line.front() == '[' && line.back() == ']' && line.find('=') == line.npos) {
      section = trimmed(line.substr(1, line.size() - 2));
      CHECK(std::ranges::count(commands, section) == 1, path, ":", number,
            ": expected a section of a command, found '", line.substr(0, 60), "'");
      continue;
    }
    const size_t equals = line.find('=');
    CHECK(equals != line.npos && equals > 0 && equals + 1 < line.size(), path, ":", number,
          ": expected key = value, found '", line.substr(0, 60), "'");
    if (!section.empty() && section != command) continue;
    const std::string key = unquoted(trimmed(line.substr(0, equals)));
    CHECK(key != "config", path, ":", number, ": a config file cannot name another");
    words.push_back("--" + key + "=" + toml_value(trimmed(line.substr(equals + 1))));
  }
  CHECK(file.eof(), path, ": cannot be read, expected a TOML file with the options");
  return words;
}

// Letters to insert, delete or replace until a is b.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

// The options of a command that hold this name or are a letter or two away from it: " (did you mean ...?)".
// Nothing for one or two letters, which too many hold.
std::string suggestion(const CLI::App& command, const std::string& name) {
  std::string like;
  if (name.size() < 3) return like;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& known : option->get_lnames())
      if (known.find(name) != known.npos ||
          edit_distance(known, name) <= std::min<size_t>(2, name.size() / 3))
        like += (like.empty() ? " (did you mean --" : ", --") + known;
  return like.empty() ? "" : like + "?)";
}

// The first word that no option took.
std::string extra_word(const CLI::App& app) {
  const std::vector<CLI::App*> commands = app.get_subcommands();
  const CLI::App& command = commands.empty() ? app : *commands.back();
  const std::vector<std::string> words = app.remaining(true);
  const auto option = std::find_if(words.begin(), words.end(), [](auto& w) { return w.starts_with("--"); });
  if (option == words.end()) return join(command.get_name(), ": unexpected '", words.front(), "'");
  const std::string name = option->substr(2, option->find('=') - 2);
  return join(command.get_name(), ": unknown option --", name, suggestion(command, name));
}

std::string subcommands(const CLI::App& app) {
  std::string names;
  const std::vector<const CLI::App*> all = app.get_subcommands([](const CLI::App*) { return true; });
  for (size_t i = 0; i < all.size(); ++i)
    names += (i == 0 ? "" : i + 1 == all.size() ? " or " : ", ") + all[i]->get_name();
  return names;
}

std::string parse_complaint(const CLI::App& app, const CLI::ParseError& error) {
  const std::string what = error.what(), failed = "Could not convert: ";
  if (what.starts_with(failed)) return what.substr(failed.size()) + ": expected a number";
  if (error.get_exit_code() == int(CLI::ExitCodes::RequiredError) && app.get_subcommands().empty())
    return join("expected ", subcommands(app), " first; ", app.get_name(), " --help explains them");
  if (error.get_exit_code() == int(CLI::ExitCodes::ExtrasError))
    return extra_word(app) + "; --help lists what is expected";
  return what + "; --help lists what is expected";
}

bool is_utf8(const char* text) {
  try {
    nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

}  // namespace

int run_program(const char* name, int argc, char** argv, void (*run)(int, char**)) {
  for (const int fd : {0, 1, 2})  // closed ones would become those of the first files that are opened
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) < 0) return 2;
  std::signal(SIGXFSZ, SIG_IGN);  // a file too large for the limits is an error of writing
  catch_stop_signals();
  try {
    for (int i = 1; i < argc; ++i)  // results and settings name them, as JSON
      CHECK(is_utf8(argv[i]), "argument ", i, ": expected UTF-8 text");
    run(argc, argv);
    CHECK(std::cout.flush() && std::fflush(stdout) == 0 && !std::ferror(stdout),
          "standard output cannot be written");
    return 0;
  } catch (const Interrupted& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 130;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s: out of memory: a smaller batch or network needs less\n", name);
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", name, e.what());
    return 2;
  }
}

void add_seed(CLI::App& app, uint64_t& seed, const char* help) {
  app.add_option("--seed", seed, help)->capture_default_str()->check([](const std::string& text) {
    const bool digits = !text.empty() && text.find_first_not_of("0123456789") == text.npos;
    const bool fits = text.size() < 19 || (text.size() == 19 && text <= "1152921504606846975");
    return digits && fits ? std::string()
                          : "expected a whole number from 0 to 2^60 - 1, found '" + text + "'";
  });
}

void parse_words(CLI::App& app, std::vector<std::string> words) {
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() != 0) throw Error(parse_complaint(app, e));
    app.exit(e);  // --help
  }
}

std::string option_value(const std::vector<std::string>& arguments, const std::string& option) {
  std::string value;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == option && i + 1 < arguments.size()) value = arguments[i + 1];
    if (arguments[i].starts_with(option + "=")) value = arguments[i].substr(option.size() + 1);
  }
  return value;
}

std::vector<std::string> with_config_file(std::vector<std::string> arguments,
                                          const std::vector<std::string>& commands) {
  const std::string path = option_value(arguments, "--config");
  if (path.empty() || arguments[0].starts_with("-")) return arguments;
  std::vector<std::string> all = {arguments[0]};
  const std::vector<std::string> words = read_config(path, arguments[0], commands);
  all.insert(all.end(), words.begin(), words.end());
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i] == "--config")
      ++i;
    else if (!arguments[i].starts_with("--config="))
      all.push_back(arguments[i]);
  }
  return all;
}

std::vector<std::string> with_resumed(std::vector<std::string> arguments) {
  const auto gives = [&](const std::string& option) {
    return std::ranges::any_of(arguments,
                               [&](auto& word) { return word == option || word.starts_with(option + "="); });
  };
  if (arguments.empty() || arguments[0] != "run" || !gives("--resume")) return arguments;
  const std::string folder = option_value(arguments, "--resume");
  CHECK(!folder.empty(), "--resume: expected the folder of a run, found an empty name");
  CHECK(!gives("--out"), "--resume ", folder, ": goes on there, expected no --out");
  std::vector<std::string> all = read_run_arguments(folder);
  all.insert(all.end(), arguments.begin() + 1, arguments.end());
  all.insert(all.end(), {"--out", folder});
  return all;
}

std::vector<double> parse_numbers(const std::string& option, const std::string& text) {
  std::vector<double> numbers;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    numbers.emplace_back();
    CHECK(parse_number(trimmed(part), numbers.back()), option,
          ": expected numbers separated by commas, found '", part, "'");
  }
  return numbers;
}

}  // namespace lanas
