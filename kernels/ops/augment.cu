// augment.cu -- see augment.h.
#include <algorithm>

#include "kernels/core/packs.cuh"
#include "kernels/core/parallel.h"
#include "kernels/core/random.cuh"
#include "kernels/ops/augment.h"

namespace lanas {

namespace {

constexpr uint64_t kTag = uint64_t{0xA6} << 56;  // keeps these draws apart from other ops' under one seed

// One row's draws: the crop's corner against the unpadded image, the flip, and the cutout [y0, y1) x [x0,
// x1).
struct Draw {
  int shift_y = 0, shift_x = 0;
  bool flip = false;
  int y0 = 0, y1 = 0, x0 = 0, x1 = 0;
};

LANAS_HOST_DEVICE inline int below(uint32_t word, int n) { return int((uint64_t{word} * uint64_t(n)) >> 32); }

LANAS_HOST_DEVICE inline Draw draw_row(const AugmentConfig& config, uint64_t step, int row, int h, int w) {
  const Random4 a = philox(config.seed, step, kTag | uint64_t(row) * 2);
  const Random4 b = philox(config.seed, step, kTag | (uint64_t(row) * 2 + 1));
  Draw d;
  d.shift_y = below(a.v[0], 2 * config.padding + 1) - config.padding;
  d.shift_x = below(a.v[1], 2 * config.padding + 1) - config.padding;
  d.flip = config.flip && (a.v[2] & 1);
  if (config.cutout > 0) {
    const int y = below(b.v[0], h) - config.cutout / 2, x = below(b.v[1], w) - config.cutout / 2;
    d.y0 = y > 0 ? y : 0;
    d.x0 = x > 0 ? x : 0;
    d.y1 = y + config.cutout < h ? y + config.cutout : h;
    d.x1 = x + config.cutout < w ? x + config.cutout : w;
  }
  return d;
}

}  // namespace

namespace host {

template <class T>
void augment_forward(View<T> y, const uint8_t* images, const int* indices, const AugmentConfig& config,
                     uint64_t step) {
  T scale[3], shift[3];  // normalise(v) = scale v + shift
  for (int c = 0; c < 3; ++c) {
    scale[c] = T(1 / (255 * double(config.std[c])));
    shift[c] = T(-double(config.mean[c]) / double(config.std[c]));
  }
  parallel_for(y.n, [&](int64_t n) {
    const Draw d = draw_row(config, step, int(n), y.h, y.w);
    const uint8_t* image = images + int64_t{indices[n]} * y.h * y.w * 3;
    for (int oy = 0; oy < y.h; ++oy) {
      const int iy = oy + d.shift_y;
      for (int ox = 0; ox < y.w; ++ox) {
        T* out = y.at(int(n), oy, ox);
        if (oy >= d.y0 && oy < d.y1 && ox >= d.x0 && ox < d.x1) {
          for (int c = 0; c < 3; ++c) out[c] = 0;
          continue;
        }
        const int ix = (d.flip ? y.w - 1 - ox : ox) + d.shift_x;
        const bool inside = iy >= 0 && iy < y.h && ix >= 0 && ix < y.w;
        const uint8_t* in = image + (int64_t{iy} * y.w + ix) * 3;
        for (int c = 0; c < 3; ++c) out[c] = (inside ? scale[c] * T(in[c]) : T(0)) + shift[c];
      }
    }
  });
}

template void augment_forward(View<float>, const uint8_t*, const int*, const AugmentConfig&, uint64_t);
template void augment_forward(View<double>, const uint8_t*, const int*, const AugmentConfig&, uint64_t);

}  // namespace host

namespace {

struct Normalise {
  float scale[3], shift[3];  // normalise(v) = scale v + shift
};

// A thread per pixel; every thread draws its row's numbers anew, which is cheaper than sharing them.
__global__ void augment_kernel(Tensor y, const uint8_t* images, const int* indices, AugmentConfig config,
                               Normalise normalise, const uint64_t* step) {
  for (const int64_t pixel : grid_stride(y.pixels())) {
    const int ox = int(pixel % y.w), oy = int(pixel / y.w % y.h), n = int(pixel / (int64_t{y.w} * y.h));
    const Draw d = draw_row(config, *step, n, y.h, y.w);
    const int iy = oy + d.shift_y, ix = (d.flip ? y.w - 1 - ox : ox) + d.shift_x;
    const bool inside = iy >= 0 && iy < y.h && ix >= 0 && ix < y.w;
    const bool cut = oy >= d.y0 && oy < d.y1 && ox >= d.x0 && ox < d.x1;
    const uint8_t* in = images + ((int64_t{indices[n]} * y.h + iy) * y.w + ix) * 3;
    float* out = y.pixel(pixel);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const float value = inside && !cut ? normalise.scale[c] * float(in[c]) : 0.0f;
      out[c] = cut ? 0.0f : value + normalise.shift[c];
    }
  }
}

__global__ void gather_labels_kernel(int* labels, const int* all, const int* indices, int batch) {
  for (const int64_t r : grid_stride(batch)) labels[r] = all[indices[r]];
}

}  // namespace

void augment_forward(Stream& stream, Tensor y, const uint8_t* images, const int* indices,
                     const AugmentConfig& config, const uint64_t* step) {
  CHECK(y.c == 3, "augment_forward: y ", y.shape(), " does not have 3 channels");
  CHECK(config.padding >= 0 && config.cutout >= 0, "augment_forward: padding ", config.padding, ", cutout ",
        config.cutout);
  for (const float std : config.std) CHECK(std > 0, "augment_forward: std ", std, " is not positive");
  if (stream.device() == Device::cpu) {
    for (int n = 0; n < y.n; ++n)
      CHECK(indices[n] >= 0, "augment_forward: index ", indices[n], " of row ", n, " is negative");
    return host::augment_forward(y, images, indices, config, *step);
  }
  Normalise normalise;
  for (int c = 0; c < 3; ++c) {
    normalise.scale[c] = float(1 / (255 * double(config.std[c])));
    normalise.shift[c] = float(-double(config.mean[c]) / double(config.std[c]));
  }
  launch(augment_kernel, grid_blocks(y.pixels(), 128), 128, 0, stream, y, images, indices, config, normalise,
         step);
}

void gather_labels(Stream& stream, int* labels, const int* all, int count, const int* indices, int batch) {
  if (stream.device() == Device::cuda)
    return launch(gather_labels_kernel, grid_blocks(batch, 128), 128, 0, stream, labels, all, indices, batch);
  for (int r = 0; r < batch; ++r) {
    CHECK(indices[r] >= 0 && indices[r] < count, "gather_labels: image ", indices[r], " of ", count);
    labels[r] = all[indices[r]];
  }
}

}  // namespace lanas
