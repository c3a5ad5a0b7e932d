// One range of addresses is reserved for all blocks, so that opening and closing it is one system call. Under
// AddressSanitizer blocks come from the heap instead, where an access past a block is found too.
#include "kernels/core/simt_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "kernels/core/check.h"
#include "kernels/core/simt.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace lanas::simt {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t round_to_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

class DeviceMemory {
 public:
  void* allocate(size_t bytes) {
    const std::lock_guard lock(mutex_);
    char* block = take(bytes);
    if (!block) return nullptr;
    blocks_[block] = bytes;
    protect(true);
    std::memset(block, 0xFF, bytes);
    protect(depth_ > 0);
    return block;
  }
  void free(void* memory) {
    const std::lock_guard lock(mutex_);
    const auto found = blocks_.find(static_cast<char*>(memory));
    if (found == blocks_.end()) return;
    give(found->first, found->second);
    blocks_.erase(found);
  }
  void open() {
    const std::lock_guard lock(mutex_);
    if (depth_++ == 0) protect(true);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--depth_ == 0) protect(false);
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static char* take(size_t bytes) { return static_cast<char*>(std::aligned_alloc(256, bytes)); }
  static void give(char* block, size_t bytes) {
    ASAN_UNPOISON_MEMORY_REGION(block, bytes);
    std::free(block);
  }
  void protect(bool open) const {
    for (const auto& [block, bytes] : blocks_)
      open ? __asan_unpoison_memory_region(block, bytes) : __asan_poison_memory_region(block, bytes);
  }
#else
  static constexpr size_t kReserved = size_t{64} << 30;  // bytes of addresses, not of memory

  // The first gap between blocks, which stand in order of their addresses.
  char* take(size_t bytes) {
    if (!base_) {
      void* range = mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (range == MAP_FAILED) return nullptr;
      base_ = static_cast<char*>(range);
    }
    char* from = base_;
    for (const auto& [block, taken] : blocks_) {
      if (from + bytes <= block) break;
      from = block + round_to_pages(taken);
    }
    if (from + bytes > base_ + kReserved) return nullptr;
    if (from + bytes > end_) end_ = from + round_to_pages(bytes);
    return from;
  }
  static void give(char* block, size_t bytes) { madvise(block, round_to_pages(bytes), MADV_DONTNEED); }
  void protect(bool open) const {
    if (!end_) return;
    const int status = mprotect(base_, size_t(end_ - base_), open ? PROT_READ | PROT_WRITE : PROT_NONE);
    CHECK(status == 0, "simt: device memory of ", size_t(end_ - base_) >> 20, " MiB cannot be opened");
  }
  char *base_ = nullptr, *end_ = nullptr;
#endif

  std::mutex mutex_;
  std::map<char*, size_t> blocks_;
  int depth_ = 0;
};

DeviceMemory& memory() {
  static DeviceMemory* all = new DeviceMemory;  // outlives every static that owns device memory
  return *all;
}

}  // namespace

void* allocate_device(size_t bytes) { return memory().allocate(bytes); }
void free_device(void* block) noexcept { memory().free(block); }
Access::Access() { memory().open(); }
Access::~Access() { memory().close(); }

void run_or_record(std::function<void()> work) {
  auto open_and_run = [work = std::move(work)] {
    const Access access;
    work();
  };
  if (LaunchList* list = LaunchList::recording())
    list->add(std::move(open_and_run));
  else
    open_and_run();
}

}  // namespace lanas::simt
