#include "kernels/core/device.h"

#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

namespace lanas {

const char* device_name(Device device) { return device == Device::cpu ? "cpu" : "cuda"; }

Device parse_device(const std::string& name) {
  if (name == "cpu" || name == "auto") return Device::cpu;
  CHECK(name == "cuda", "--device: expected auto, cpu or cuda, found '", name, "'");
  throw Error("--device cuda: this build has no CUDA device; use --device cpu");
}

Stream::Stream(Device device, int threads)
    : device_(device), threads_(threads > 0 ? threads : omp_get_num_procs()) {
  CHECK(threads >= 0 && threads <= 1024, "--threads: expected 0 (all cores) to 1024, found ", threads);
}

void Stream::activate() const { omp_set_num_threads(threads_); }

void upload(Stream&, void* device, const void* host, size_t bytes) { std::memcpy(device, host, bytes); }
void download(Stream&, void* host, const void* device, size_t bytes) { std::memcpy(host, device, bytes); }

Memory::Memory(Device device, size_t bytes) : device_(device), bytes_(align_up(bytes)) {
  if (bytes_ == 0) return;
  data_ = std::aligned_alloc(kAlignment, bytes_);
  CHECK(data_, "out of memory: ", bytes_ >> 20, " MiB on ", device_name(device_),
        " could not be had; a smaller batch or fewer channels need less");
  std::fill_n(floats(), bytes_ / sizeof(float), std::numeric_limits<float>::quiet_NaN());
}

Memory::~Memory() { std::free(data_); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace lanas
