#include "nas/machine.h"

#include <sys/utsname.h>

#include <cstdlib>
#include <ctime>
#include <fstream>

#include "kernels/core/parallel.h"

namespace lanas {
namespace {

// The text after "key :" of the first line of a /proc file that starts with key; "" where there is none.
std::string proc_value(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (!line.starts_with(key) || colon == line.npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == line.npos ? "" : line.substr(begin, line.find_last_not_of(" \t") + 1 - begin);
  }
  return "";
}

// Virtual machines call different processors "AMD EPYC"; family and model, which x86 has, tell them apart.
std::string processor() {
  const auto value = [](const char* key) { return proc_value("/proc/cpuinfo", key); };
  const std::string name = value("model name"), family = value("cpu family"), model = value("model\t");
  const std::string kind =
      family.empty() || model.empty() ? "" : " (family " + family + " model " + model + ")";
  return (name.empty() ? "unknown" : name) + kind;
}

}  // namespace

Machine describe_machine() {
  Machine machine;
  machine.cpu = processor();
  machine.cores = omp_get_num_procs();
  machine.isa = cpu_isa_name(cpu_isa());
  utsname names{};
  machine.system =
      uname(&names) == 0 ? std::string(names.sysname) + " " + names.release : std::string("unknown");
  return machine;
}

int64_t peak_memory_bytes() {
  return int64_t{std::atoll(proc_value("/proc/self/status", "VmHWM").c_str())} * 1024;  // "123456 kB"
}

std::string utc_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace lanas
