// blocks.h -- how the host loops of the per-channel ops walk a tensor: in blocks of whole pixels that stay in
// L1. A block of a packed view is used where it stands, one of a strided view is gathered into a small
// buffer, so the arithmetic always runs along one flat row of pixels x channels. Per-channel parameters are
// repeated to a `period` of lanes (a multiple of c): element i of a block uses lane i % period, whole vectors
// even at c = 4. Float partial sums are kept per lane and flushed to double per chunk of pixels, in a fixed
// order.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/core/tensor.h"

namespace lanas::host {

// Scratch memory of this thread: a stack of buffers that are kept for the next call, so that a repeated step
// allocates nothing. Not initialised.
class ScratchStack {
 public:
  __attribute__((noinline)) void* push(size_t bytes) {
    if (depth_ == buffers_.size()) buffers_.emplace_back();
    Buffer& buffer = buffers_[depth_++];
    if (buffer.bytes < bytes) {
      buffer.data.reset(static_cast<char*>(::operator new (bytes, std::align_val_t{64})));
      buffer.bytes = bytes;
    }
    return buffer.data.get();
  }
  void pop() { --depth_; }
  __attribute__((noinline)) static ScratchStack& local() {
    static thread_local ScratchStack stack;
    return stack;
  }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  struct Buffer {
    std::unique_ptr<char, Free> data;
    size_t bytes = 0;
  };
  std::vector<Buffer> buffers_;
  size_t depth_ = 0;
};

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : stack_(ScratchStack::local()), data_(static_cast<T*>(stack_.push(size_t(count) * sizeof(T)))) {}
  ~Scratch() { stack_.pop(); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  ScratchStack& stack_;
  T* data_;
};

// How a tensor of `pixels` pixels of c channels is cut. Depends on the shape only, never on the threads.
struct Blocks {
  int c, period;   // lanes; a multiple of c, and of 16 where that stays small
  int pixels;      // of a block: about 512 elements
  int64_t total;   // pixels of the tensor
  int64_t blocks;  // blocks of the tensor
  int64_t chunks;  // groups of 32 blocks: the unit of partial sums

  Blocks(int channels, int64_t all_pixels) : c(channels), total(all_pixels) {
    period = std::lcm(c, 16);
    if (period > 512) period = c;
    if (period < 128) period *= (128 + period - 1) / period;
    const int periods = std::max(1, 512 / period);
    pixels = period / c * periods;
    blocks = (total + pixels - 1) / pixels;
    chunks = (blocks + kChunk - 1) / kChunk;
  }
  int elements() const { return pixels * c; }
  int64_t first(int64_t block) const { return block * pixels; }
  int count(int64_t block) const { return int(std::min<int64_t>(pixels, total - first(block))); }  // pixels
  int64_t chunk_begin(int64_t chunk) const { return chunk * kChunk; }
  int64_t chunk_end(int64_t chunk) const { return std::min(blocks, (chunk + 1) * kChunk); }

  static constexpr int kChunk = 32;
};

namespace detail {
template <int kC, class T>
LANAS_INLINE void copy_pixels(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t count,
                              int c) {
  for (int64_t p = 0; p < count; ++p)
    std::memcpy(to + p * to_stride, from + p * from_stride, sizeof(T) * size_t(kC > 0 ? kC : c));
}
// Whole steps of kStep channels, a constant that the compiler makes moves of instead of calls.
template <int kStep, class T>
LANAS_INLINE void copy_steps(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t count,
                             int c) {
  for (int64_t p = 0; p < count; ++p, to += to_stride, from += from_stride)
    for (int i = 0; i < c; i += kStep) std::memcpy(to + i, from + i, sizeof(T) * kStep);
}
}  // namespace detail

// count pixels of c channels from one pixel stride to another.
template <class T>
LANAS_INLINE void copy_pixels(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t count,
                              int c) {
  if (to_stride == c && from_stride == c) {
    const int64_t total = count * c;
#pragma omp simd
    for (int64_t i = 0; i < total; ++i) to[i] = from[i];
    return;
  }
  switch (c) {
    case 1:
      return detail::copy_pixels<1>(to, to_stride, from, from_stride, count, c);
    case 4:
      return detail::copy_pixels<4>(to, to_stride, from, from_stride, count, c);
    case 8:
      return detail::copy_pixels<8>(to, to_stride, from, from_stride, count, c);
    case 12:  // with 24 and 48: what partial channels leave of 16, 32 and 64
      return detail::copy_pixels<12>(to, to_stride, from, from_stride, count, c);
    case 16:
      return detail::copy_pixels<16>(to, to_stride, from, from_stride, count, c);
    case 24:
      return detail::copy_pixels<24>(to, to_stride, from, from_stride, count, c);
    default:
      if (c % 16 == 0) return detail::copy_steps<16>(to, to_stride, from, from_stride, count, c);
      if (c % 4 == 0) return detail::copy_steps<4>(to, to_stride, from, from_stride, count, c);
      return detail::copy_pixels<0>(to, to_stride, from, from_stride, count, c);
  }
}

// Asks for `count` pixels of x from p on, without the lines between them that belong to other channels alone.
template <bool kWrite, class T>
LANAS_INLINE void prefetch_pixels(const View<T>& x, int64_t p, int64_t count) {
  constexpr int64_t kLine = 64;
  const bool apart = int64_t{x.stride - x.c} * int64_t{sizeof(T)} >= kLine;
  const int64_t runs = apart ? count : 1, step = int64_t{x.stride} * int64_t{sizeof(T)};
  const int64_t bytes = apart ? int64_t{x.c} * int64_t{sizeof(T)} : count * step;
  const char* from = reinterpret_cast<const char*>(x.pixel(p));
  for (int64_t r = 0; r < runs; ++r, from += step)
    for (int64_t i = 0; i < bytes; i += kLine) prefetch<kWrite>(from + i);
}

// Asks for the block after [p, p + count): where many tensors take turns block by block, or
// several places of a block are read at once, the hardware's own prefetch does not follow.
template <class T>
LANAS_INLINE void prefetch_next(const View<T>& x, int64_t p, int count) {
  if (p + 2 * count <= x.pixels()) prefetch_pixels<false>(x, p + count, count);
}

// Pixels [p, p + count) of x as one packed run: in place, or gathered into buffer.
template <class T>
LANAS_INLINE const T* read_block(const View<T>& x, int64_t p, int count, T* buffer) {
  if (x.packed()) return x.pixel(p);
  copy_pixels<T>(buffer, x.c, x.pixel(p), x.stride, count, x.c);
  return buffer;
}
// Where to write pixels [p, p + count) of y as one packed run; holds the old values if `keep`. End with
// write_block.
template <class T>
LANAS_INLINE T* open_block(const View<T>& y, int64_t p, int count, T* buffer, bool keep) {
  if (y.packed()) return y.pixel(p);
  if (keep) copy_pixels<T>(buffer, y.c, y.pixel(p), y.stride, count, y.c);
  return buffer;
}
template <class T>
LANAS_INLINE void write_block(const View<T>& y, int64_t p, int count, const T* buffer) {
  if (!y.packed()) copy_pixels<T>(y.pixel(p), y.stride, buffer, y.c, count, y.c);
}

// body(i, j) for every element i of a run of `count` elements, j = i % period being its lane. The iterations
// of one period are independent.
template <class Body>
LANAS_INLINE void for_lanes(int count, int period, Body body) {
  for (int i = 0; i < count; i += period) {
    const int lanes = std::min(period, count - i);
#pragma omp simd
    for (int j = 0; j < lanes; ++j) body(i + j, j);
  }
}
template <class Body>
LANAS_INLINE void for_flat(int count, Body body) {
#pragma omp simd
  for (int i = 0; i < count; ++i) body(i);
}

constexpr int kGroup = 4;  // tensors that are read side by side

// body(n) with a number of terms, at most kGroup, as a constant.
template <class Body>
LANAS_INLINE void with_terms(int terms, Body body) {
  if (terms == 1) return body(std::integral_constant<int, 1>());
  if (terms == 2) return body(std::integral_constant<int, 2>());
  if (terms == 3) return body(std::integral_constant<int, 3>());
  body(std::integral_constant<int, 4>());
}

// y = shift + sum scale_k x_k, without shift y += sum scale_k x_k, over `terms` terms of a block; lanes of
// shift [period] and scale [terms][period].
template <class T>
LANAS_INLINE void add_terms(int terms, T* y, const T* const* x, const T* scale, const T* shift, int count,
                            int period) {
  with_terms(
      terms, [&](auto n) __attribute__((always_inline)) {
        const T *x0 = x[0], *x1 = x[n > 1 ? 1 : 0], *x2 = x[n > 2 ? 2 : 0], *x3 = x[n > 3 ? 3 : 0];
        const auto sum = [=](int i, int j) {
          T value = scale[j] * x0[i];
          if constexpr (n > 1) value += scale[period + j] * x1[i];
          if constexpr (n > 2) value += scale[2 * period + j] * x2[i];
          if constexpr (n > 3) value += scale[3 * period + j] * x3[i];
          return value;
        };
        if (shift)
          for_lanes(count, period, [=](int i, int j) { y[i] = shift[j] + sum(i, j); });
        else
          for_lanes(count, period, [=](int i, int j) { y[i] += sum(i, j); });
      });
}

// body(p, count) for every block of pixels [p, p + count) of a chunk. An op of many tensors goes through them
// chunk by chunk: block by block, the processor's own prefetch would have to start anew every 2 KB.
template <class Body>
LANAS_INLINE void for_chunk(const Blocks& blocks, int64_t chunk, Body body) {
  for (int64_t b = blocks.chunk_begin(chunk); b < blocks.chunk_end(chunk); ++b)
    body(blocks.first(b), blocks.count(b));
}

// body(p, count, buffer) for every block of pixels [p, p + count), in parallel; buffer holds kBuffers blocks.
template <class T, int kBuffers, class Body>
void for_blocks(const Blocks& blocks, Body body) {
  parallel_for(blocks.chunks, [=](int64_t chunk) {
    Scratch<T> buffer(int64_t{kBuffers} * blocks.elements());
    for (int64_t b = blocks.chunk_begin(chunk); b < blocks.chunk_end(chunk); ++b)
      body(blocks.first(b), blocks.count(b), buffer.get());
  });
}

// value(channel) repeated over the lanes.
template <class T, class Value>
void fill_lanes(T* lanes, int period, int c, Value value) {
  for (int j = 0; j < c; ++j) lanes[j] = T(value(j));
  for (int j = c; j < period; ++j) lanes[j] = lanes[j - c];
}
// Adds the lanes of each channel to sums, in lane order, and clears them.
template <class T>
LANAS_INLINE void flush_lanes(double* sums, T* lanes, int period, int c) {
  for (int i = 0; i < period; i += c)
    for (int j = 0; j < c; ++j) sums[j] += double(lanes[i + j]);
  std::fill_n(lanes, period, T(0));
}
// out[j] = sum over the rows of partial [rows, columns], in row order.
inline void add_rows(double* out, const double* partial, int64_t rows, int64_t columns) {
  std::fill_n(out, columns, 0.0);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < columns; ++j) out[j] += partial[r * columns + j];
}

}  // namespace lanas::host
