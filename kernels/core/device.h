// device.h -- the two devices, a stream of work on one of them, and memory on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/check.h"

namespace lanas {

enum class Device { cpu, cuda };

const char* device_name(Device device);
// "cpu" or "cuda"; "auto" is cuda where one is usable, else cpu. Throws Error for any other word.
Device parse_device(const std::string& name);

// Work goes to a stream in order. On the cpu it runs at once, on `threads` OpenMP threads (0: all cores).
class Stream {
 public:
  explicit Stream(Device device = Device::cpu, int threads = 0);

  Device device() const { return device_; }
  int threads() const { return threads_; }
  void activate() const;  // makes this thread's OpenMP regions use threads()
  void synchronize() const {}

 private:
  Device device_;
  int threads_;
};

// One block of device memory, 256-byte aligned, filled with NaN so that a read before a write shows.
class Memory {
 public:
  Memory() = default;
  Memory(Device device, size_t bytes);
  ~Memory();
  Memory(Memory&& other) noexcept { *this = static_cast<Memory&&>(other); }
  Memory& operator=(Memory&& other) noexcept;

  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  Device device_ = Device::cpu;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Copies between host memory and this stream's device, in the stream's order; download waits for the result.
void upload(Stream& stream, void* device, const void* host, size_t bytes);
void download(Stream& stream, void* host, const void* device, size_t bytes);

constexpr size_t kAlignment = 256;  // bytes
constexpr size_t align_up(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace lanas
