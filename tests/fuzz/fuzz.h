// fuzz.h -- what the libFuzzer targets share: a reader may refuse any bytes, by an Error of one line.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/core/check.h"

namespace lanas::fuzz {

[[noreturn]] inline void found(const char* what, const std::string& detail) {
  std::fprintf(stderr, "fuzz: %s: %s\n", what, detail.c_str());
  std::abort();
}

template <class Read>
void refuses_or_reads(const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    const std::string text = error.what();
    if (text.empty() || text.find('\n') != text.npos) found("an error of more or less than one line", text);
  }
}

}  // namespace lanas::fuzz
