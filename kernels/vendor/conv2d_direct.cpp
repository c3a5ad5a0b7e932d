// conv2d_direct.cpp -- see conv2d_direct.h. For some rows of the output at a time.
#include "kernels/vendor/conv2d_direct.h"

#include <algorithm>

#include "kernels/ops/separable_conv_plan.h"
#include "kernels/ops/separable_conv_product.h"

namespace lanas::cpu {
namespace {

struct Chunk {
  float *padded, *dw;  // rows of x with zeros around; [kh][kw * cin][cout]
};

struct Direct {
  Shape y, x, w;
  int stride, padding;
  int taps;          // floats that a pixel reads of one row
  int rows, pitch;   // padded rows of a tile, floats from one to the next
  int tiles, items;  // of an image, of all
  int chunks;
  float* table;  // [kh][kw * cin][cout]
  char* base;
  size_t chunk_bytes;

  Direct(Shape y_shape, Shape x_shape, Shape w_shape, int by, int around, Carver& carver)
      : y(y_shape), x(x_shape), w(w_shape), stride(by), padding(around), taps(w.w * w.c) {
    rows = (kTileRows - 1) * stride + w.h;
    pitch = round_up((x.w + 2 * padding) * x.c, kMaxLanes);
    tiles = (y.h + kTileRows - 1) / kTileRows, items = y.n * tiles;
    chunks = std::min(items, kMaxChunks);
    table = carver.take<float>(size_t(w.size()));
    Carver one(nullptr);
    carve(one);
    chunk_bytes = one.used();
    base = carver.take<char>(chunk_bytes * size_t(chunks));
  }
  Chunk carve(Carver& carver) const {
    return {carver.take<float>(size_t(rows) * size_t(pitch)), carver.take<float>(size_t(w.size()))};
  }
  Chunk chunk(int index) const {
    Carver carver(base + chunk_bytes * size_t(index));
    return carve(carver);
  }

  // Calls tile(its chunk, image, first output row, rows) for every tile, the padded rows that it reads in
  // place.
  template <int W, class Tile>
  void for_each_tile(const Tensor& from, Tile&& tile) const {
    parallel_for(chunks, [&](int64_t index) {
      const Chunk mine = chunk(int(index));
      for (int64_t i = items * index / chunks; i < items * (index + 1) / chunks; ++i) {
        const int n = int(i / tiles), oy = int(i % tiles) * kTileRows, count = std::min(kTileRows, y.h - oy);
        for (int r = 0; r < (count - 1) * stride + w.h; ++r) {
          float* row = mine.padded + ptrdiff_t(r) * pitch;
          const int iy = oy * stride - padding + r;
          if (iy < 0 || iy >= x.h) {
            std::fill_n(row, pitch, 0.0f);
            continue;
          }
          float* const first = row + padding * x.c;
          std::fill(row, first, 0.0f);
          copy_pixels<W>(first, x.c, from.at(n, iy, 0), from.stride, x.w, x.c);
          std::fill(first + x.w * x.c, row + pitch, 0.0f);
        }
        tile(mine, n, oy, count);
      }
    });
  }
  // What kernel row ky reads for the rows of a tile.
  Rows inputs(const Chunk& mine, int ky, int count) const {
    return {mine.padded + ptrdiff_t(ky) * pitch, ptrdiff_t(stride) * pitch, count, stride * x.c};
  }
};

// One row of y, V vectors of its channels from w's first on, P pixels at a time, all kernel rows at once; in:
// the padded row of the first kernel row. Returns the pixels done.
template <int W, int P, int V>
LANAS_INLINE int forward_row(const Direct& d, float* out, int out_stride, const float* in, int pixels,
                             const float* w) {
  const int step = d.stride * d.x.c;
  int p = 0;
  for (; p + P <= pixels; p += P, in += P * step, out += P * out_stride) {
    Vec<W> acc[P][V] = {};
    const float *x[P], *wi = w;
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r) x[r] = opaque(in + r * step);
    for (int ky = 0; ky < d.w.h; ++ky)
      for (int i = ky * d.pitch; i < ky * d.pitch + d.taps; ++i, wi += d.y.c) {
        Vec<W> b[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) b[v] = in_register(load<W>(wi + v * W));
#pragma GCC unroll 8
        for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[r][v] += x[r][i] * b[v];
      }
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store<W>(out + r * out_stride + v * W, acc[r][v]);
  }
  return p;
}

template <int W>
void forward(const Direct& d, const Tensor& y, const Tensor& x) {
  d.for_each_tile<W>(x, [&](const Chunk& mine, int n, int oy, int count) {
    isolated<W>([&, n, oy, count]() LANAS_LAMBDA {
      for_blocks<W>(y.c, 3, [&](auto lanes, auto vectors, int j) LANAS_LAMBDA {
        constexpr int L = decltype(lanes)::value, V = decltype(vectors)::value;
        for (int r = 0; r < count; ++r) {
          float* const out = y.at(n, oy + r, 0) + j;
          const float* const in = mine.padded + ptrdiff_t(r * d.stride) * d.pitch;
          const int done = forward_row<L, kPixels<W, V>, V>(d, out, y.stride, in, y.w, d.table + j);
          forward_row<L, 1, V>(d, out + done * y.stride, y.stride, in + done * d.stride * x.c, y.w - done,
                               d.table + j);
        }
      });
    });
  });
}

template <int W>
void backward_weights(const Direct& d, const Tensor& dy, const Tensor& x) {
  for (int i = 0; i < d.chunks; ++i) std::fill_n(d.chunk(i).dw, d.w.size(), 0.0f);
  d.for_each_tile<W>(x, [&](const Chunk& mine, int n, int oy, int count) {
    const Rows out = rows_of(dy, n, oy, 1, count);
    for (int ky = 0; ky < d.w.h; ++ky)
      product_gradient<W>(mine.dw + ky * d.taps * dy.c, dy.c, d.taps, d.inputs(mine, ky, count), out, dy.w);
  });
}

// Calls f with the lanes of this processor as an integral constant.
template <class F>
void with_lanes(F&& f) {
  const int lanes = lanes_of(cpu_isa());
  if (lanes == 16) return f(Count<16>());
  if (lanes == 8) return f(Count<8>());
  f(Count<4>());
}

}  // namespace

size_t conv2d_direct_scratch_bytes(Shape y, Shape x, Shape w, int stride, int padding) {
  Carver carver(nullptr);
  Direct(y, x, w, stride, padding, carver);
  return carver.used();
}

void conv2d_direct_forward(Tensor y, Tensor x, Tensor w, int stride, int padding, void* scratch) {
  Carver carver(scratch);
  const Direct d(y.shape(), x.shape(), w.shape(), stride, padding, carver);
  const int depth = d.w.h * d.taps;
  for (int i = 0; i < depth; ++i)
    for (int o = 0; o < y.c; ++o) d.table[i * y.c + o] = w.data[o * depth + i];
  with_lanes([&](auto lanes) { forward<decltype(lanes)::value>(d, y, x); });
}

void conv2d_direct_backward_weights(Tensor dw, Tensor dy, Tensor x, int stride, int padding, float beta,
                                    void* scratch) {
  Carver carver(scratch);
  const Direct d(dy.shape(), x.shape(), dw.shape(), stride, padding, carver);
  with_lanes([&](auto lanes) { backward_weights<decltype(lanes)::value>(d, dy, x); });
  const int depth = d.w.h * d.taps;
  for (int o = 0; o < dy.c; ++o)
    for (int i = 0; i < depth; ++i) {
      double sum = 0;
      for (int chunk = 0; chunk < d.chunks; ++chunk) sum += double(d.chunk(chunk).dw[i * dy.c + o]);
      float& to = dw.data[o * depth + i];
      to = beta == 0 ? float(sum) : float(sum + double(beta) * double(to));
    }
}

}  // namespace lanas::cpu
