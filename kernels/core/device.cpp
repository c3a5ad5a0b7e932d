#include "kernels/core/device.h"

#include <omp.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/core/graph.h"

namespace lanas {
namespace {

// Large blocks lie in huge pages where the system has them: a step walks through hundreds of MiB, and neither
// address translation nor the hardware's prefetch likes to cross a page every 4 KiB.
void* allocate_host(size_t bytes) {
  constexpr size_t kHugePage = size_t{2} << 20;
  if (bytes < 2 * kHugePage) return std::aligned_alloc(kAlignment, bytes);
  const size_t whole = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* data = std::aligned_alloc(kHugePage, whole);
#ifdef MADV_HUGEPAGE
  if (data) madvise(data, whole, MADV_HUGEPAGE);  // advice: without effect where it cannot be followed
#endif
  return data;
}

}  // namespace

const char* device_name(Device device) { return device == Device::cpu ? "cpu" : "cuda"; }

Device parse_device(const std::string& name) {
  if (name == "cpu") return Device::cpu;
  if (name == "auto") return backend::preferred() ? Device::cuda : Device::cpu;
  CHECK(name == "cuda", "--device: expected auto, cpu or cuda, found '", name, "'");
  const std::string missing = backend::missing();
  CHECK(missing.empty(), "--device cuda: ", missing, "; use --device cpu");
  return Device::cuda;
}

namespace {

// Asking the system takes as long as a small op.
int processors() {
  static const int count = omp_get_num_procs();
  return count;
}

}  // namespace

Stream::Stream(Device device, int threads) : device_(device), threads_(threads > 0 ? threads : processors()) {
  CHECK(threads >= 0 && threads <= 1024, "--threads: expected 0 (all cores) to 1024, found ", threads);
  if (device == Device::cuda) native_ = backend::make_stream();
}

void Stream::activate() const {
  check_recorded(*this);
  omp_set_num_threads(std::min(threads_, processors()));  // scratch is planned for that many
}

void Stream::synchronize() const {
  if (native_) backend::synchronize(*native_);
}

void* stream_scratch(Stream& stream, size_t bytes) {
  CHECK(stream.native(), "stream_scratch: the stream is on the ", device_name(stream.device()));
  check_recorded(stream);
  CHECK(bytes <= kStreamScratch, "stream_scratch: ", bytes, " bytes, at most ", kStreamScratch);
  Memory& memory = backend::scratch(*stream.native());
  if (!memory.data()) memory = Memory(Device::cuda, kStreamScratch);
  return memory.data();
}

void upload(Stream& stream, void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  if (stream.device() == Device::cpu)
    std::memcpy(device, host, bytes);
  else
    backend::upload(stream.native(), device, host, bytes);
}

void download(Stream& stream, void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  if (stream.device() == Device::cpu)
    std::memcpy(host, device, bytes);
  else
    backend::download(stream.native(), host, device, bytes);
}

void upload(Device to, void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  if (to == Device::cpu)
    std::memcpy(device, host, bytes);
  else
    backend::upload(nullptr, device, host, bytes);
}

void download(Device from, void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  if (from == Device::cpu)
    std::memcpy(host, device, bytes);
  else
    backend::download(nullptr, host, device, bytes);
}

Memory::Memory(Device device, size_t bytes) : device_(device), bytes_(align_up(bytes)) {
  if (bytes_ == 0) return;
  data_ = device == Device::cpu ? allocate_host(bytes_) : backend::allocate(bytes_);
  CHECK(data_, "out of memory: ", bytes_ >> 20, " MiB on ", device_name(device_),
        " could not be had; a smaller batch or fewer channels need less");
  if (device == Device::cpu)
    std::fill_n(floats(), bytes_ / sizeof(float), std::numeric_limits<float>::quiet_NaN());
}

Memory::~Memory() {
  if (device_ == Device::cpu)
    std::free(data_);
  else if (data_)
    backend::release(data_);
}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace lanas
