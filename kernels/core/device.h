// device.h -- the two devices, a stream of work on one of them, and memory on them. The cuda device is one of
// three files, chosen by the build: device_cuda.cpp (a real one), device_emulated.cpp (simt.h's emulator) or
// device_none.cpp (a build without a toolkit: using it throws Error with one line that says so).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/core/check.h"

namespace lanas {

enum class Device { cpu, cuda };

const char* device_name(Device device);
// "cpu" or "cuda"; "auto" is cuda where one is usable, else cpu. Throws Error for any other word, and for
// cuda where there is none, saying what is missing.
Device parse_device(const std::string& name);

// Work goes to a stream in order. On the cpu it runs at once, on `threads` OpenMP threads (0: all cores).
// Copies of a stream are the same stream.
class Stream {
 public:
  explicit Stream(Device device = Device::cpu, int threads = 0);

  Device device() const { return device_; }
  int threads() const { return threads_; }
  void activate() const;     // makes this thread's OpenMP regions use threads()
  void synchronize() const;  // returns when all work given so far is done

  struct Native;  // what the cuda device keeps for a stream; null on the cpu
  Native* native() const { return native_.get(); }

 private:
  Device device_;
  int threads_;
  std::shared_ptr<Native> native_;
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
  Device device() const { return device_; }

 private:
  Device device_ = Device::cpu;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Device memory of this stream for the partial sums of one op: at most kStreamScratch bytes, whose address
// never changes and whose content the next op on the stream may overwrite. Cuda only.
constexpr size_t kStreamScratch = size_t{16} << 20;
void* stream_scratch(Stream& stream, size_t bytes);

// Copies between host memory and this stream's device, in the stream's order. After upload the host memory
// may change at once; download waits for the result.
void upload(Stream& stream, void* device, const void* host, size_t bytes);
void download(Stream& stream, void* host, const void* device, size_t bytes);

// The same with no stream at hand, for starting values and checkpoints: after all work given to the device,
// and done on return.
void upload(Device to, void* device, const void* host, size_t bytes);
void download(Device from, void* host, const void* device, size_t bytes);

constexpr size_t kAlignment = 256;  // bytes
constexpr size_t align_up(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// What a build's cuda device gives to the above. All but missing() and release() throw Error.
namespace backend {
std::string missing();  // one line saying what keeps the cuda device from being used; empty: nothing
bool preferred();       // whether "auto" takes it
std::shared_ptr<Stream::Native> make_stream();
void synchronize(Stream::Native& stream);
Memory& scratch(Stream::Native& stream);
void* allocate(size_t bytes);  // every byte 0xFF, which is a NaN; null when there is not enough
void release(void* memory) noexcept;
// Without a stream: as the functions above that take a Device.
void upload(Stream::Native* stream, void* device, const void* host, size_t bytes);
void download(Stream::Native* stream, void* host, const void* device, size_t bytes);
}  // namespace backend

}  // namespace lanas
