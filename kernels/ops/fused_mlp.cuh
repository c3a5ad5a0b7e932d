// fused_mlp.cuh -- the kernels of fused_mlp.cu. A block of the rows kernel holds one network's
// weights in shared memory and takes tiles of 16 rows; the block that finishes a tile last adds the networks
// in their order, so no sum depends on the order in which blocks run. The kernel of the weights gives each
// warp a tile of a gradient and adds over all rows in their order.
#pragma once

#include "kernels/core/reduce.cuh"
#include "kernels/core/warp_product.cuh"
#include "kernels/ops/fused_mlp.h"

namespace lanas {
namespace {

constexpr int kRows = kProductRows;                                     // of a tile
constexpr unsigned kThreads = 512, kWarps = kThreads / 32;              // of the rows kernel
constexpr unsigned kTileThreads = 256, kTileWarps = kTileThreads / 32;  // of the weights kernel
static_assert(int(kWarps) == kRows, "a warp per row of a tile");
constexpr unsigned kMostBlocks = kMlpTicketBytes / sizeof(int);

// Widths are rounded up to 8 and padded with zeros. 4 floats more to a row put the 32 lanes of a product,
// which read 8 rows by 4 columns, on 32 banks.
__host__ __device__ constexpr int padded(int width) { return (width + 7) / 8 * 8; }
__host__ __device__ constexpr int row_floats(int width) { return padded(width) + 4; }

// Where a network stands in shared memory, in floats.
struct Layout {
  int weight[kMlpHidden] = {}, bias[kMlpHidden] = {}, h[kMlpHidden] = {};
  int last_weight = 0;
  int64_t total = 0;
};
inline Layout shared_layout(const FusedMlp<float>& op) {
  Layout s;
  for (int l = 0; l < op.hidden; ++l) {
    const int width = padded(op.width[l]);
    s.weight[l] = int(s.total), s.total += int64_t{width} * row_floats(op.fan_in(l));
    s.bias[l] = int(s.total), s.total += width;
    s.h[l] = int(s.total), s.total += kRows * row_floats(width);
  }
  s.last_weight = int(s.total);
  s.total += padded(op.width[op.hidden - 1]);
  return s;
}

// Scratch, in floats: each network's part of y and of dx, then per network and layer h and dz [rows][width].
struct Partials {
  float *y, *dx, *layers;
  int64_t rows;
  int widths;  // all hidden widths of one network together
  __host__ __device__ Partials(const FusedMlp<float>& op, int64_t row_count, float* scratch)
      : y(scratch),
        dx(y + op.members * row_count),
        layers(dx + op.members * row_count * op.inputs),
        rows(row_count),
        widths(0) {
    for (int l = 0; l < op.hidden; ++l) widths += op.width[l];
  }
  __device__ float* h(const FusedMlp<float>& op, int k, int l) const {
    float* at = layers + int64_t{2} * k * rows * widths;
    for (int i = 0; i < l; ++i) at += rows * op.width[i];
    return at;
  }
  __device__ float* dz(const FusedMlp<float>& op, int k, int l) const { return h(op, k, l) + rows * widths; }
};

template <int kPack>
__device__ __forceinline__ void load_network(const FusedMlp<float>& op, int k, const Layout& s,
                                             float* shared) {
  const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
  for (int l = 0; l < op.hidden; ++l) {
    const int in = op.fan_in(l), width = op.width[l];
    for (int o = warp; o < padded(width); o += int(kWarps)) {
      float* row = shared + s.weight[l] + o * row_floats(in);
      for (int i = lane * kPack; i < padded(in); i += 32 * kPack) {
        Pack<kPack> pack{};
        if (o < width && i < in) pack = load<kPack>(op.weight[k][l] + int64_t{o} * in + i);
        store<kPack>(row + i, pack);
      }
    }
    for (int o = int(threadIdx.x); o < padded(width); o += int(kThreads))
      shared[s.bias[l] + o] = o < width ? op.bias[k][l][o] : 0.0f;
  }
  const int in = op.fan_in(op.hidden);
  for (int i = int(threadIdx.x); i < padded(in); i += int(kThreads))
    shared[s.last_weight + i] = i < in ? op.weight[k][op.hidden][i] : 0.0f;
}

// The hidden layers of the tile's rows, into shared memory. Rows past the end repeat the last one.
template <bool kTf32>
__device__ __forceinline__ void tile_forward(const FusedMlp<float>& op, const Layout& s, float* shared,
                                             Tensor x, int64_t row0) {
  const int last = int(x.pixels() - 1 - row0);
  for (int l = 0; l < op.hidden; ++l) {
    const int in = op.fan_in(l), ld = row_floats(in);
    const float *w = shared + s.weight[l], *below = l == 0 ? nullptr : shared + s.h[l - 1];
    float* h = shared + s.h[l];
    for (int o = int(threadIdx.x / 32) * kProductColumns; o < op.width[l];
         o += int(kWarps) * kProductColumns) {
      float c[4] = {};
      for (int i = 0; i < in; i += kProductDepth) {
        const auto weight = [=](int n, int j) { return w[(o + n) * ld + i + j]; };
        if (l == 0)
          warp_product<kTf32>(
              c, [=](int m, int j) { return i + j < in ? x.pixel(row0 + min(m, last))[i + j] : 0.0f; },
              weight);
        else
          warp_product<kTf32>(
              c, [=](int m, int j) { return below[m * ld + i + j]; }, weight);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = o + product_column(i);
        h[product_row(i) * row_floats(op.width[l]) + column] = fmaxf(c[i] + shared[s.bias[l] + column], 0.0f);
      }
    }
    __syncthreads();
  }
}

// Puts a tile of h or dz, in shared memory, where the weights kernel reads it.
__device__ __forceinline__ void keep(float* to, const float* from, int width, int64_t row0, int64_t rows) {
  const int64_t row = row0 + threadIdx.x / 32;  // a warp per row
  if (row >= rows) return;
  for (int c = int(threadIdx.x % 32); c < width; c += 32)
    to[row * width + c] = from[int(threadIdx.x / 32) * row_floats(width) + c];
}

// From dy to dx of the tile's rows. dz of a layer takes the place of its h.
template <bool kTf32>
__device__ __forceinline__ void tile_backward(const FusedMlp<float>& op, int k, const Layout& s,
                                              float* shared, Tensor dy, int64_t row0, bool weights,
                                              bool input, const Partials& out) {
  const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
  const int64_t rows = out.rows;
  const int top = op.hidden - 1;
  if (weights)
    for (int l = 0; l <= top; ++l) keep(out.h(op, k, l), shared + s.h[l], op.width[l], row0, rows);
  __syncthreads();
  const float gradient = row0 + warp < rows ? *dy.pixel(row0 + warp) : 0.0f;
  float* dz = shared + s.h[top] + warp * row_floats(op.width[top]);
  for (int c = lane; c < padded(op.width[top]); c += 32)
    dz[c] = dz[c] > 0 ? gradient * shared[s.last_weight + c] : 0.0f;
  __syncthreads();
  for (int l = top; l >= 0; --l) {
    const int width = op.width[l], in = op.fan_in(l), ld = row_floats(width), ld_w = row_floats(in);
    const float *above = shared + s.h[l], *w = shared + s.weight[l];
    if (weights) keep(out.dz(op, k, l), above, width, row0, rows);
    if (l == 0 && !input) break;
    for (int i = warp * kProductColumns; i < in; i += int(kWarps) * kProductColumns) {
      float c[4] = {};
      for (int o = 0; o < width; o += kProductDepth)
        warp_product<kTf32>(
            c, [=](int m, int j) { return above[m * ld + o + j]; },
            [=](int n, int j) { return w[(o + j) * ld_w + i + n]; });
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = product_row(e), column = i + product_column(e);
        if (l > 0) {
          float& h = shared[s.h[l - 1] + row * ld_w + column];
          h = h > 0 ? c[e] : 0.0f;
        } else if (row0 + row < rows && column < in) {
          out.dx[(k * rows + row0 + row) * in + column] = c[e];
        }
      }
    }
    __syncthreads();
  }
}

// Whether this block is the last of `all` to come here with this ticket. What the others wrote before is
// visible to it, through volatile reads.
__device__ __forceinline__ bool last_block(unsigned* ticket, unsigned all) {
  int* last = static_shared<int, 1>();
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    *last = atomicAdd(ticket, 1u) == all - 1;
    if (*last) *ticket = 0;
  }
  __syncthreads();
  __threadfence();
  return *last != 0;
}

// The sums over the networks, and the linear map, for one row; a warp per row.
__device__ __forceinline__ void finish_row(const FusedMlp<float>& op, const Partials& in, int64_t row,
                                           Tensor y, Tensor x) {
  const int lane = int(threadIdx.x % 32);
  float sum = 0;
  if (op.skip_weight)
    for (int i = lane; i < op.inputs; i += 32) sum += op.skip_weight[i] * x.pixel(row)[i];
  sum = warp_sum(sum);
  if (op.skip_weight) sum += *op.skip_bias;
  const volatile float* partial = in.y;
  for (int k = 0; k < op.members; ++k) sum += partial[k * in.rows + row];
  if (lane == 0) *y.pixel(row) = sum;
}
__device__ __forceinline__ void finish_gradient(const FusedMlp<float>& op, const Partials& in, int64_t row,
                                                Tensor dx, float beta, float dy) {
  const volatile float* partial = in.dx;
  for (int i = int(threadIdx.x % 32); i < op.inputs; i += 32) {
    float sum = op.skip_weight ? dy * op.skip_weight[i] : 0.0f;
    for (int k = 0; k < op.members; ++k) sum += partial[(k * in.rows + row) * op.inputs + i];
    float& to = dx.pixel(row)[i];
    to = beta == 0 ? sum : sum + beta * to;
  }
}

// Grid (tile groups, networks). Forward: y, dy empty. Backward: dy, and dx where it is wanted.
template <bool kTf32, int kPack>
__global__ void __launch_bounds__(kThreads, 1)
    mlp_rows_kernel(FusedMlp<float> op, Layout s, Tensor y, Tensor x, Tensor dy, Tensor dx, float beta_dx,
                    bool weights, float* scratch) {
  float* shared = dynamic_shared<float>();
  const int k = int(blockIdx.y), warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
  const int64_t rows = x.pixels(), step = int64_t{kRows} * gridDim.x;
  const Partials partials(op, rows, scratch);
  load_network<kPack>(op, k, s, shared);
  for (int64_t row0 = int64_t{kRows} * blockIdx.x; row0 < rows; row0 += step) {
    __syncthreads();  // the network is loaded, the tile before is done
    tile_forward<kTf32>(op, s, shared, x, row0);
    if (dy) {
      tile_backward<kTf32>(op, k, s, shared, dy, row0, weights, bool(dx), partials);
      continue;
    }
    const int top = op.hidden - 1;
    const float* h = shared + s.h[top] + warp * row_floats(op.width[top]);
    float sum = 0;
    for (int c = lane; c < op.width[top]; c += 32) sum += h[c] * shared[s.last_weight + c];
    sum = warp_sum(sum);
    if (lane == 0 && row0 + warp < rows) partials.y[k * rows + row0 + warp] = sum + *op.bias[k][op.hidden];
  }
  if (!last_block(op.tickets + blockIdx.x, gridDim.y)) return;
  for (int64_t row = int64_t{kRows} * blockIdx.x + warp; row < rows; row += step) {
    if (y) finish_row(op, partials, row, y, x);
    if (dx) finish_gradient(op, partials, row, dx, beta_dx, *dy.pixel(row));
  }
}

__device__ __forceinline__ void put(const MlpGradient<float>& to, int64_t i, double value) {
  to.data[i] = to.beta == 0 ? float(value) : float(value + double(to.beta) * double(to.data[i]));
}

// to[c] = sum over rows of scale[r] v[r][c], or of scale[r] where v is null, or of v[r][c] where scale is
// empty: 32 columns of a block, in double.
__device__ __forceinline__ void column_gradient(MlpGradient<float> to, const float* v, int64_t ld, int width,
                                                Tensor scale, int64_t rows, int block) {
  if (!to.data) return;
  const int column = block * 32 + int(threadIdx.x % 32);
  double sum = 0;
  if (column < width)
    for (int64_t r = threadIdx.x / 32; r < rows; r += kTileWarps)
      sum += (v ? double(v[r * ld + column]) : 1.0) * (scale ? double(*scale.pixel(r)) : 1.0);
  sum = column_sum(sum, 32, static_shared<double, kTileThreads>());
  if (threadIdx.x < 32 && column < width) put(to, column, sum);
}

__host__ __device__ constexpr int tiles(int count, int per) { return (count + per - 1) / per; }

// Grid (parts, layers, networks): a part is 8 tiles of a weight's gradient, or 32 columns of a vector's.
template <bool kTf32>
__global__ void __launch_bounds__(kTileThreads)
    mlp_weights_kernel(FusedMlp<float> op, FusedMlpGradient<float> gradient, Tensor dy, Tensor x,
                       float* scratch) {
  const int l = int(blockIdx.y), k = int(blockIdx.z), in = op.fan_in(l);
  const int64_t rows = x.pixels();
  const Partials partials(op, rows, scratch);
  const float* v = l == 0 ? x.data : partials.h(op, k, l - 1);
  const int64_t ld = l == 0 ? x.stride : in;
  int part = int(blockIdx.x);
  if (l == op.hidden) {  // the output, and with the first network the linear map
    const int columns = tiles(in, 32), skip_columns = tiles(op.inputs, 32);
    if (part < columns) return column_gradient(gradient.weight[k][l], v, ld, in, dy, rows, part);
    part -= columns;
    if (part == 0) return column_gradient(gradient.bias[k][l], nullptr, 0, 1, dy, rows, 0);
    if (k > 0) return;
    if (part == 1) return column_gradient(gradient.skip_bias, nullptr, 0, 1, dy, rows, 0);
    part -= 2;
    if (part < skip_columns)
      column_gradient(gradient.skip_weight, x.data, x.stride, op.inputs, dy, rows, part);
    return;
  }
  const int width = op.width[l], columns = tiles(in, kProductColumns);
  const int products = tiles(width, kProductRows) * columns, blocks = tiles(products, int(kTileWarps));
  const float* dz = partials.dz(op, k, l);
  if (part >= blocks) {
    if (part - blocks < tiles(width, 32))
      column_gradient(gradient.bias[k][l], dz, width, width, {}, rows, part - blocks);
    return;
  }
  const int tile = part * int(kTileWarps) + int(threadIdx.x / 32);
  const MlpGradient<float> to = gradient.weight[k][l];
  if (tile >= products || !to.data) return;
  const int o = tile / columns * kProductRows, i = tile % columns * kProductColumns;
  float c[4] = {};
  for (int64_t r = 0; r < rows; r += kProductDepth)
    warp_product<kTf32>(
        c, [=](int m, int j) { return r + j < rows && o + m < width ? dz[(r + j) * width + o + m] : 0.0f; },
        [=](int n, int j) { return r + j < rows && i + n < in ? v[(r + j) * ld + i + n] : 0.0f; });
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int row = o + product_row(e), column = i + product_column(e);
    if (row < width && column < in) put(to, int64_t{row} * in + column, double(c[e]));
  }
}

}  // namespace
}  // namespace lanas
