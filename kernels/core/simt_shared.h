// simt_shared.h -- one shared-memory array of an emulated block.
// It is a heap block of exactly its size, so that AddressSanitizer finds an access past it. In other builds
// bytes of a known value follow it, and a write there is found when the block of threads ends.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

namespace lanas::simt {

class SharedBlock {
 public:
  SharedBlock(const void* key, size_t bytes)
      : key_(key), bytes_(bytes), data_(static_cast<unsigned char*>(::operator new(bytes + kGuard, kAlign))) {
    std::memset(data_ + bytes_, 0xA5, kGuard);
  }
  SharedBlock(SharedBlock&& other) noexcept
      : key_(other.key_), bytes_(other.bytes_), data_(std::exchange(other.data_, nullptr)) {}
  SharedBlock& operator=(SharedBlock&&) = delete;
  ~SharedBlock() {
    if (data_) ::operator delete(data_, kAlign);
  }

  const void* key() const { return key_; }
  size_t bytes() const { return bytes_; }
  void* data() const { return data_; }
  void poison() { std::memset(data_, 0xFF, bytes_); }  // NaN as float, double and bfloat16; -1 as int
  bool overrun() const {
    for (size_t i = 0; i < kGuard; ++i)
      if (data_[bytes_ + i] != 0xA5) return true;
    return false;
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kGuard = 0;
#else
  static constexpr size_t kGuard = 64;
#endif
  static constexpr std::align_val_t kAlign{128};
  const void* key_;
  size_t bytes_;
  unsigned char* data_;
};

}  // namespace lanas::simt
