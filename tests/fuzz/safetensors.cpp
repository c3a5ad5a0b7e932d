// safetensors.cpp -- fuzzing the reader of tensors (autograd/checkpoint.h), through a file in memory: what it
// takes has as many values as its shapes say, and survives being written and read again.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "autograd/checkpoint.h"
#include "tests/fuzz/fuzz.h"

using namespace lanas;

namespace {

int memory_file() {
  static const int file = memfd_create("tensors", 0);
  if (file < 0) fuzz::found("memfd_create", std::strerror(errno));
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const int file = memory_file();
  if (ftruncate(file, 0) != 0 || pwrite(file, bytes, size, 0) != ssize_t(size))
    fuzz::found("a write", "failed");
  fuzz::refuses_or_reads([&] {
    const TensorFile tensors = read_tensors("/proc/self/fd/" + std::to_string(file));
    for (const auto& [name, entry] : tensors.tensors)
      if (int64_t(entry.values.size()) != entry.shape.size()) fuzz::found("values of another shape", name);
  });
  return 0;
}
