// choices.cpp -- see choices.h.
#include "kernels/vendor/choices.h"

#include <algorithm>
#include <mutex>

namespace lanas {
namespace {

struct Notes {
  std::mutex mutex;
  std::vector<std::string> lines;
};
Notes& notes() {
  static Notes all;
  return all;
}

}  // namespace

void note_vendor_choice(const std::string& choice) {
  Notes& all = notes();
  const std::lock_guard lock(all.mutex);
  if (std::find(all.lines.begin(), all.lines.end(), choice) == all.lines.end()) all.lines.push_back(choice);
}

std::vector<std::string> vendor_choices() {
  Notes& all = notes();
  const std::lock_guard lock(all.mutex);
  return all.lines;
}

}  // namespace lanas
