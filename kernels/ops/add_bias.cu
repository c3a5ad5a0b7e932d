// add_bias.cu -- see add_bias.h.
#include "kernels/core/parallel.h"
#include "kernels/ops/add_bias.h"

namespace lanas {
namespace host {

template <class T>
void add_bias(View<T> x, const T* bias) {
  const int64_t rows = int64_t{x.n} * x.h;
  parallel_for(rows, [=](int64_t row) {
    for (int64_t p = row * x.w; p < (row + 1) * x.w; ++p) {
      T* __restrict pixel = x.pixel(p);
      for (int c = 0; c < x.c; ++c) pixel[c] += bias[c];
    }
  });
}

template void add_bias(View<float>, const float*);
template void add_bias(View<double>, const double*);

}  // namespace host

void add_bias(Stream& stream, Tensor x, const float* bias) {
  if (stream.device() == Device::cpu) return host::add_bias(x, bias);
  throw Error("add_bias: no cuda kernel in this build");
}

}  // namespace lanas
