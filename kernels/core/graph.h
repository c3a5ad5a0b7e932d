// graph.h -- a run of device work, recorded once and replayed: a CUDA graph on a real device, a list of
// launches under emulation, the function itself on the cpu. Recorded are addresses and the values of kernel
// arguments, so whatever changes from replay to replay must stand in device memory.
#pragma once

#include <functional>
#include <memory>

#include "kernels/core/device.h"

namespace lanas {

class Graph {
 public:
  // Records what `work` gives to the stream. On cuda nothing runs yet, and work must not allocate, wait or
  // copy to or from the host: run it once before, for the libraries to set themselves up.
  void record(Stream& stream, std::function<void()> work);
  void replay(Stream& stream) const;
  explicit operator bool() const { return bool(replay_); }

 private:
  std::function<void(Stream&)> replay_;
};

// Work of a step goes to one stream, so its launches have one legal order and a graph has no forks: Error
// where this thread records and `stream` is not the one recorded. Called where work begins on a stream.
void check_recorded(const Stream& stream);

namespace backend {
std::function<void(Stream&)> record(Stream& stream, const std::function<void()>& work);
}

}  // namespace lanas
