// machine.h -- the machine that numbers were measured on, read from /proc and uname; memory and time.
#pragma once

#include <cstdint>
#include <string>

namespace lanas {

struct Machine {
  std::string cpu;     // its name, on x86 as "AMD EPYC (family 25 model 17)"; "unknown" where there is none
  int cores = 0;       // that this process may use
  std::string isa;     // instruction set that the kernels use: base, avx2 or avx512
  std::string system;  // operating system and kernel release, for instance "Linux 6.1.0-18-amd64"
};
Machine describe_machine();

// The largest resident memory of this process so far (VmHWM); 0 where the system does not tell.
int64_t peak_memory_bytes();

// The time now as "2024-02-29T23:59:59Z" (UTC); the first ten characters are the date.
std::string utc_time();

}  // namespace lanas
