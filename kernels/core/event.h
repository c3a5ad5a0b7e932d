// event.h -- a moment in a stream's work, for timing what lies between two of them: a CUDA event on a real
// device; the host's clock on the cpu, whose work is done when the call returns, and under emulation.
#pragma once

#include <memory>

#include "kernels/core/device.h"

namespace lanas {

class Event {
 public:
  // The moment after all work given to the stream so far. Not within a recording.
  void record(Stream& stream);
  // Milliseconds from `before` to this moment, both recorded on one device; waits for it.
  double ms_since(const Event& before) const;

 private:
  double clock_ms_ = 0;
  std::shared_ptr<void> native_;
};

namespace backend {
void record_event(Stream::Native& stream, std::shared_ptr<void>& event);  // made at its first use
double milliseconds(const std::shared_ptr<void>& from, const std::shared_ptr<void>& to);
}  // namespace backend

}  // namespace lanas
