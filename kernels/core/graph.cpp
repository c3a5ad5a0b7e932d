#include "kernels/core/graph.h"

#include <utility>

namespace lanas {
namespace {
thread_local const Stream::Native* recorded = nullptr;  // the stream that this thread records
}  // namespace

void check_recorded(const Stream& stream) {
  CHECK(!recorded || stream.native() == recorded, "graph: work for another stream, on the ",
        device_name(stream.device()), ", while a stream is recorded");
}

void Graph::record(Stream& stream, std::function<void()> work) {
  if (stream.device() == Device::cpu) {
    replay_ = [work = std::move(work)](Stream&) { work(); };
    return;
  }
  replay_ = backend::record(stream, [&] {
    struct Scope {
      const Stream::Native* before;
      ~Scope() { recorded = before; }
    } const scope{std::exchange(recorded, stream.native())};
    work();
  });
}

void Graph::replay(Stream& stream) const {
  CHECK(replay_, "graph: replayed before it was recorded");
  replay_(stream);
}

}  // namespace lanas
