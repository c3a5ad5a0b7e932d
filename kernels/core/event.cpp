#include "kernels/core/event.h"

#include "kernels/core/timing.h"

namespace lanas {

void Event::record(Stream& stream) {
  if (stream.native())
    backend::record_event(*stream.native(), native_);
  else
    clock_ms_ = now_ms();
}

double Event::ms_since(const Event& before) const {
  CHECK(!native_ == !before.native_, "event: one is of the cpu, the other of cuda");
  return native_ ? backend::milliseconds(before.native_, native_) : clock_ms_ - before.clock_ms_;
}

}  // namespace lanas
