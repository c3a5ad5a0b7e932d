// device_emulated.cpp -- the cuda device of library kernels_emulated: kernels run on the emulator, in order
// and at once; memory is host memory that only device work can touch.
#include <cstring>

#include "kernels/core/device.h"
#include "kernels/core/event.h"
#include "kernels/core/graph.h"
#include "kernels/core/limits.h"
#include "kernels/core/simt.h"
#include "kernels/core/simt_counts.h"
#include "kernels/core/simt_memory.h"
#include "kernels/core/timing.h"

namespace lanas {

struct Stream::Native {
  Memory scratch;
};

namespace {
thread_local simt::Counts done;
}

const simt::Counts& simt::counts() { return done; }

namespace backend {
namespace {

void copy(const char* name, void* to, const void* from, size_t bytes) {
  CHECK(!simt::LaunchList::recording(), name, ": a copy to or from the host cannot be recorded");
  const simt::Access access;
  std::memcpy(to, from, bytes);
}

}  // namespace

std::string missing() { return ""; }
bool preferred() { return false; }
std::shared_ptr<Stream::Native> make_stream() { return std::make_shared<Stream::Native>(); }
void synchronize(Stream::Native&) {}
Memory& scratch(Stream::Native& stream) { return stream.scratch; }
size_t shared_memory_limit() { return simt::kMaxDynamicShared; }
std::string device_warning() { return "the cuda device is emulated on the cpu here: its times mean nothing"; }
std::string device_description() { return "emulated cuda device"; }
void* allocate(size_t bytes) { return simt::allocate_device(bytes); }
void release(void* memory) noexcept { simt::free_device(memory); }
void upload(Stream::Native*, void* device, const void* host, size_t bytes) {
  copy("upload", device, host, bytes);
}
void download(Stream::Native*, void* host, const void* device, size_t bytes) {
  copy("download", host, device, bytes);
  ++done.downloads;
}

std::function<void(Stream&)> record(Stream&, const std::function<void()>& work) {
  auto list = std::make_shared<simt::LaunchList>();
  list->begin();
  work();  // if it throws, the list ends with this scope
  list->end();
  ++done.recorded;
  return [list](Stream&) {
    list->replay();
    ++done.replayed;
  };
}

void record_event(Stream::Native&, std::shared_ptr<void>& event) {
  CHECK(!simt::LaunchList::recording(), "event: cannot be recorded into a graph");
  event = std::make_shared<double>(now_ms());
}

double milliseconds(const std::shared_ptr<void>& from, const std::shared_ptr<void>& to) {
  return *std::static_pointer_cast<double>(to) - *std::static_pointer_cast<double>(from);
}

}  // namespace backend
}  // namespace lanas
