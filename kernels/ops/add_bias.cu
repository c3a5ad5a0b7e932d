// add_bias.cu -- see add_bias.h.
#include "kernels/core/packs.cuh"
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

namespace {

template <int kPack>
__global__ void add_bias_kernel(Tensor x, const float* bias) {
  for_packs<kPack>(
      x, [=](int64_t pixel, int c) { accumulate<kPack>(x.pixel(pixel) + c, load<kPack>(bias + c), 1); });
}

}  // namespace

void add_bias(Stream& stream, Tensor x, const float* bias) {
  if (stream.device() == Device::cpu) return host::add_bias(x, bias);
  with_pack(pack_width(x, row_view(bias, x.c)), [&](auto pack) {
    launch(add_bias_kernel<pack()>, pack_blocks(x, pack), kPackThreads, 0, stream, x, bias);
  });
}

}  // namespace lanas
