// precision.cpp -- see precision.h.
#include "kernels/core/precision.h"

#include <atomic>

namespace lanas {
namespace {
std::atomic<bool> allowed{false};
}  // namespace

bool tf32() { return allowed.load(); }
void set_tf32(bool on) { allowed.store(on); }

}  // namespace lanas
