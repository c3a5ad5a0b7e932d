// child_process.h -- runs another program as a filter: text in, text out.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace lanas {

// What the program (found through PATH, started without a shell) writes to standard output when `input` is
// its standard input. Nothing where it is not installed. Error with the first line of its standard error
// where it fails.
std::optional<std::string> run_filter(const std::vector<std::string>& arguments, const std::string& input);

}  // namespace lanas
