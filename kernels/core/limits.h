// limits.h -- what the cuda device at hand is and what a block may have there.
#pragma once

#include <cstddef>
#include <string>

namespace lanas::backend {

// The first two throw where there is no cuda device.
size_t shared_memory_limit();      // bytes of dynamic shared memory a block, with the opt-in
std::string device_description();  // for instance "NVIDIA H100 80GB HBM3"
std::string device_warning();      // what a user must know of it, one line; mostly empty

}  // namespace lanas::backend
