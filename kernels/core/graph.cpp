#include "kernels/core/graph.h"

namespace lanas {

void Graph::record(Stream& stream, std::function<void()> work) {
  if (stream.device() == Device::cuda)
    replay_ = backend::record(stream, work);
  else
    replay_ = [work = std::move(work)](Stream&) { work(); };
}

void Graph::replay(Stream& stream) const {
  CHECK(replay_, "graph: replayed before it was recorded");
  replay_(stream);
}

}  // namespace lanas
