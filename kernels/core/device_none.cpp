// device_none.cpp -- the cuda device of a build without a CUDA toolkit: it says that it is not there.
#include "kernels/core/device.h"
#include "kernels/core/event.h"
#include "kernels/core/graph.h"
#include "kernels/core/limits.h"

namespace lanas {

struct Stream::Native {};

namespace backend {
namespace {
[[noreturn]] void fail() { throw Error("cuda: " + missing()); }
}  // namespace

std::string missing() {
  return "this build has no CUDA; configure with -DLANAS_CUDA=ON where its toolkit is installed";
}
bool preferred() { return false; }
std::shared_ptr<Stream::Native> make_stream() { fail(); }
void synchronize(Stream::Native&) { fail(); }
Memory& scratch(Stream::Native&) { fail(); }
void* allocate(size_t) { fail(); }
void release(void*) noexcept {}
void upload(Stream::Native*, void*, const void*, size_t) { fail(); }
void download(Stream::Native*, void*, const void*, size_t) { fail(); }
size_t shared_memory_limit() { fail(); }
std::string device_warning() { return ""; }
std::string device_description() { fail(); }
std::function<void(Stream&)> record(Stream&, const std::function<void()>&) { fail(); }
void record_event(Stream::Native&, std::shared_ptr<void>&) { fail(); }
double milliseconds(const std::shared_ptr<void>&, const std::shared_ptr<void>&) { fail(); }

}  // namespace backend
}  // namespace lanas
