// text.h -- what tests ask of texts.
#pragma once

#include <string>

namespace lanas {

// How often `part` stands in text.
inline int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace lanas
