// simt_memory.h -- the emulated device's memory. Host code must not touch device memory; here it cannot: the
// memory is open only while a kernel, a copy or a library call runs, and a touch at any other time ends the
// process (by SIGSEGV, or under AddressSanitizer with its report of a poisoned address).
#pragma once

#include <cstddef>
#include <functional>

namespace lanas::simt {

// 256-byte aligned, every byte 0xFF; null when there is not enough.
void* allocate_device(size_t bytes);
void free_device(void* memory) noexcept;

// Emulated device memory can be read and written while one of these lives.
class Access {
 public:
  Access();
  ~Access();
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
};

// Device work, with access to device memory: runs now, or goes to the list that this thread records.
void run_or_record(std::function<void()> work);

}  // namespace lanas::simt
