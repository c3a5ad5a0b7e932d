// What the emulator does at a launch: checks its sizes, or records it.
#include "kernels/core/simt.h"

namespace lanas::simt {
namespace {
thread_local LaunchList* current_list = nullptr;
}

void check_config(const Config& c) {
  const auto size = [](dim3 d) { return join(d.x, "x", d.y, "x", d.z); };
  const uint64_t threads = uint64_t{c.block.x} * c.block.y * c.block.z;
  CHECK(threads >= 1 && threads <= kMaxBlockThreads && c.block.z <= 64 && c.block.x <= 1024 &&
            c.block.y <= 1024,
        c.file, ":", c.line, ": launch: a block of ", size(c.block), " threads, 1 to ", kMaxBlockThreads,
        " are possible (z at most 64)");
  CHECK(c.grid.x >= 1 && c.grid.y >= 1 && c.grid.z >= 1 && c.grid.x <= 0x7fffffffu && c.grid.y <= 65535 &&
            c.grid.z <= 65535,
        c.file, ":", c.line, ": launch: a grid of ", size(c.grid),
        " blocks, x is 1 to 2147483647, y and z 1 to 65535");
  CHECK(c.shared_bytes <= kMaxDynamicShared, c.file, ":", c.line, ": launch: ", c.shared_bytes,
        " bytes of dynamic shared memory, the limit is ", kMaxDynamicShared);
  CHECK(uint64_t{c.grid.x} * c.grid.y * c.grid.z <= 0xffffffffull, c.file, ":", c.line,
        ": launch: a grid of ", size(c.grid), " blocks is more than the emulator numbers");
}

LaunchList* LaunchList::recording() { return current_list; }

LaunchList::~LaunchList() {
  if (current_list == this) current_list = nullptr;
}

void LaunchList::begin() {
  CHECK(!current_list, "launch_list: this thread already records a list");
  work_.clear();
  current_list = this;
}

void LaunchList::end() {
  CHECK(current_list == this, "launch_list: end() without begin()");
  current_list = nullptr;
}

void LaunchList::replay() const {
  LaunchList* list = recording();
  CHECK(list != this, "launch_list: replayed while it records");
  for (const auto& work : work_) {
    if (list)
      list->add(work);
    else
      work();
  }
}

}  // namespace lanas::simt
