#include "nas/command_line.h"

#include <fstream>
#include <sstream>

#include "kernels/core/check.h"
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

std::vector<std::string> read_config(const std::string& path, const std::string& command) {
  std::ifstream file(path);
  std::string line, section;
  CHECK(file && (file.peek(), !file.bad()), path, ": cannot be read, expected a TOML file with the options");
  std::vector<std::string> words;
  for (int number = 1; std::getline(file, line); ++number) {
    line = trimmed(without_comment(line));
    if (line.empty()) continue;
    if (line.front() == '[' && line.back() == ']' && line.find('=') == line.npos) {
      section = trimmed(line.substr(1, line.size() - 2));
      continue;
    }
    const size_t equals = line.find('=');
    CHECK(equals != line.npos && equals > 0 && equals + 1 < line.size(), path, ":", number,
          ": expected key = value, found '", line.substr(0, 60), "'");
    if (!section.empty() && section != command) continue;
    const std::string key = unquoted(trimmed(line.substr(0, equals)));
    words.push_back("--" + key + "=" + toml_value(trimmed(line.substr(equals + 1))));
  }
  CHECK(file.eof(), path, ": cannot be read, expected a TOML file with the options");
  return words;
}

}  // namespace

std::string option_value(const std::vector<std::string>& arguments, const std::string& option) {
  std::string value;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == option && i + 1 < arguments.size()) value = arguments[i + 1];
    if (arguments[i].starts_with(option + "=")) value = arguments[i].substr(option.size() + 1);
  }
  return value;
}

std::vector<std::string> with_config_file(std::vector<std::string> arguments) {
  const std::string path = option_value(arguments, "--config");
  if (path.empty() || arguments[0].starts_with("-")) return arguments;
  std::vector<std::string> all = {arguments[0]};
  const std::vector<std::string> words = read_config(path, arguments[0]);
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
  const std::string folder = option_value(arguments, "--resume");
  if (folder.empty() || arguments[0] != "run") return arguments;
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
