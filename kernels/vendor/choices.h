// choices.h -- what the vendor twins have chosen in this process, one line each, for logs and results: a run
// can be repeated to the same bits only where the same algorithms are chosen.
#pragma once

#include <string>
#include <vector>

namespace lanas {

void note_vendor_choice(const std::string& choice);  // the same line counts once
std::vector<std::string> vendor_choices();           // in the order in which they were made

}  // namespace lanas
