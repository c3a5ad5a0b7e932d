// fused_mlp.cu -- see fused_mlp.h: the host loops and the launchers; the kernels stand in
// fused_mlp.cuh.
#include <algorithm>
#include <vector>

#include "kernels/core/limits.h"
#include "kernels/core/precision.h"
#include "kernels/ops/fused_mlp.cuh"
#include "kernels/ops/fused_mlp.h"

namespace lanas {

template <class T>
std::string FusedMlp<T>::widths() const {
  std::string text = std::to_string(inputs);
  for (int l = 0; l < hidden; ++l) text = join(text, '-', width[l]);
  return join(text, "-1");
}

template <class T>
bool FusedMlpGradient<T>::wants_weights() const {
  for (int k = 0; k < kMlpMembers; ++k)
    for (int l = 0; l <= kMlpHidden; ++l)
      if (weight[k][l].data || bias[k][l].data) return true;
  return skip_weight.data || skip_bias.data;
}

template struct FusedMlp<float>;
template struct FusedMlp<double>;
template struct FusedMlpGradient<float>;
template struct FusedMlpGradient<double>;

namespace host {
namespace {

template <class T>
T dot(const T* a, const T* b, int count) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// The hidden layers of network k for one row, after relu.
template <class T>
void hidden_layers(const FusedMlp<T>& op, int k, const T* x, std::vector<T> (&h)[kMlpHidden]) {
  for (int l = 0; l < op.hidden; ++l) {
    const int in = op.fan_in(l);
    h[l].resize(size_t(op.width[l]));
    for (int o = 0; o < op.width[l]; ++o) {
      const T z = op.bias[k][l][o] + dot(op.weight[k][l] + int64_t{o} * in, x, in);
      h[l][size_t(o)] = z > 0 ? z : T(0);
    }
    x = h[l].data();
  }
}

// Sums over rows, as backward collects them: like the gradients, in double, and written once at the end.
struct Sum {
  std::vector<double> values;
  template <class T>
  void write(const MlpGradient<T>& to) const {
    if (!to.data) return;
    for (size_t i = 0; i < values.size(); ++i)
      to.data[i] = to.beta == 0 ? T(values[i]) : T(values[i] + double(to.beta) * double(to.data[i]));
  }
};

template <class T>
void add_outer(Sum& sum, const T* column, int rows, const T* row, int columns) {
  sum.values.resize(size_t(rows) * size_t(columns));
  double* out = sum.values.data();
  for (int o = 0; o < rows; ++o, out += columns)
    for (int i = 0; i < columns; ++i) out[i] += double(column[o]) * double(row[i]);
}

// The way of one row's dz (the gradient of network k's result) to the sums and to dx.
template <class T>
void row_backward(const FusedMlp<T>& op, int k, T dy, const T* x, T* dx, Sum (&dw)[kMlpHidden + 1],
                  Sum (&db)[kMlpHidden + 1]) {
  std::vector<T> h[kMlpHidden];
  hidden_layers(op, k, x, h);
  std::vector<T> dz(1, dy);
  const T one = 1;
  for (int l = op.hidden; l >= 0; --l) {
    const int in = op.fan_in(l), out = int(dz.size());
    add_outer(dw[l], dz.data(), out, l == 0 ? x : h[l - 1].data(), in);
    add_outer(db[l], dz.data(), out, &one, 1);
    std::vector<T> below(static_cast<size_t>(in), T(0));
    for (int o = 0; o < out; ++o)
      for (int i = 0; i < in; ++i) below[size_t(i)] += dz[size_t(o)] * op.weight[k][l][int64_t{o} * in + i];
    if (l > 0)
      for (int i = 0; i < in; ++i)
        if (!(h[l - 1][size_t(i)] > 0)) below[size_t(i)] = 0;
    dz = std::move(below);
  }
  if (dx)
    for (int i = 0; i < op.inputs; ++i) dx[i] += dz[size_t(i)];
}

}  // namespace

template <class T>
void fused_mlp_forward(const FusedMlp<T>& op, View<T> y, View<T> x) {
  std::vector<T> h[kMlpHidden];
  for (int64_t r = 0; r < x.pixels(); ++r) {
    T sum = op.skip_weight ? *op.skip_bias + dot(op.skip_weight, x.pixel(r), op.inputs) : T(0);
    for (int k = 0; k < op.members; ++k) {
      hidden_layers(op, k, x.pixel(r), h);
      sum += *op.bias[k][op.hidden] +
             dot(op.weight[k][op.hidden], h[op.hidden - 1].data(), op.fan_in(op.hidden));
    }
    *y.pixel(r) = sum;
  }
}

template <class T>
void fused_mlp_backward(const FusedMlp<T>& op, const FusedMlpGradient<T>& gradient, View<T> dy, View<T> x) {
  Sum skip, skip_bias;
  const T one = 1;
  for (int64_t r = 0; r < x.pixels(); ++r) {
    if (gradient.dx)
      for (int i = 0; i < op.inputs; ++i) {
        T& dx = gradient.dx.pixel(r)[i];
        dx = (gradient.beta_dx == 0 ? T(0) : gradient.beta_dx * dx) +
             (op.skip_weight ? *dy.pixel(r) * op.skip_weight[i] : T(0));
      }
    add_outer(skip, dy.pixel(r), 1, x.pixel(r), op.inputs);
    add_outer(skip_bias, dy.pixel(r), 1, &one, 1);
  }
  skip.write(gradient.skip_weight);
  skip_bias.write(gradient.skip_bias);
  for (int k = 0; k < op.members; ++k) {
    Sum dw[kMlpHidden + 1], db[kMlpHidden + 1];
    for (int64_t r = 0; r < x.pixels(); ++r)
      row_backward(op, k, *dy.pixel(r), x.pixel(r), gradient.dx ? gradient.dx.pixel(r) : nullptr, dw, db);
    for (int l = 0; l <= op.hidden; ++l) {
      dw[l].write(gradient.weight[k][l]);
      db[l].write(gradient.bias[k][l]);
    }
  }
}

template void fused_mlp_forward(const FusedMlp<float>&, View<float>, View<float>);
template void fused_mlp_forward(const FusedMlp<double>&, View<double>, View<double>);
template void fused_mlp_backward(const FusedMlp<float>&, const FusedMlpGradient<float>&, View<float>,
                                 View<float>);
template void fused_mlp_backward(const FusedMlp<double>&, const FusedMlpGradient<double>&, View<double>,
                                 View<double>);

}  // namespace host

namespace {

size_t shared_bytes(const FusedMlp<float>& op) { return size_t(shared_layout(op).total) * sizeof(float); }

void check(const char* name, const FusedMlp<float>& op, Tensor y, Tensor x) {
  CHECK(op.hidden >= 1 && op.hidden <= kMlpHidden && op.members >= 1 && op.members <= kMlpMembers, name, ": ",
        op.members, " networks of ", op.hidden, " hidden layers, at most ", kMlpMembers, " of 1 to ",
        kMlpHidden);
  CHECK(op.inputs == x.c && y.c == 1 && y.pixels() == x.pixels() && x.pixels() > 0, name, ": y ", y.shape(),
        " does not match x ", x.shape(), " and widths ", op.widths());
  CHECK(!op.skip_weight == !op.skip_bias, name, ": a linear map needs both weights and bias");
}

// For weights and activations: the kernels have a flag of their own beside them.
size_t shared_limit() { return backend::shared_memory_limit() - 16; }

void check_fits(const char* name, const FusedMlp<float>& op) {
  CHECK(op.tickets, name, ": needs tickets on the cuda device");
  const size_t limit = shared_limit();
  CHECK(shared_bytes(op) <= limit, name, ": widths ", op.widths(), " need ", (shared_bytes(op) + 1023) / 1024,
        " KiB of shared memory, a block of this device has ", limit / 1024);
}

// Whether every weight can be loaded 16 bytes at a time.
bool loads_packs(const FusedMlp<float>& op) {
  for (int k = 0; k < op.members; ++k)
    for (int l = 0; l < op.hidden; ++l)
      if (op.fan_in(l) % 4 != 0 || reinterpret_cast<uintptr_t>(op.weight[k][l]) % 16 != 0) return false;
  return true;
}

void launch_rows(Stream& stream, const FusedMlp<float>& op, Tensor y, Tensor x, Tensor dy, Tensor dx,
                 float beta_dx, bool weights, float* scratch) {
  const dim3 grid(grid_blocks(x.pixels(), kRows, kMostBlocks), unsigned(op.members));
  const auto run = [&](auto kernel) {
    launch(kernel, grid, kThreads, shared_bytes(op), stream, op, shared_layout(op), y, x, dy, dx, beta_dx,
           weights, scratch);
  };
  if (tf32())
    run(loads_packs(op) ? mlp_rows_kernel<true, 4> : mlp_rows_kernel<true, 1>);
  else
    run(loads_packs(op) ? mlp_rows_kernel<false, 4> : mlp_rows_kernel<false, 1>);
}

// Parts of the largest layer; see the kernel.
unsigned weight_parts(const FusedMlp<float>& op) {
  int most = tiles(op.fan_in(op.hidden), 32) + 2 + tiles(op.inputs, 32);
  for (int l = 0; l < op.hidden; ++l)
    most = std::max(most, tiles(tiles(op.width[l], kProductRows) * tiles(op.fan_in(l), kProductColumns),
                                int(kTileWarps)) +
                              tiles(op.width[l], 32));
  return unsigned(most);
}

}  // namespace

bool fused_mlp_fits(const FusedMlp<float>& op, Device device) {
  return op.hidden >= 1 && op.hidden <= kMlpHidden && op.members <= kMlpMembers &&
         (device == Device::cpu || shared_bytes(op) <= shared_limit());
}

size_t fused_mlp_scratch_bytes(const FusedMlp<float>& op, int64_t rows, Device device) {
  if (device == Device::cpu) return 0;
  int64_t floats = 1 + int64_t{op.inputs};  // see Partials
  for (int l = 0; l < op.hidden; ++l) floats += 2 * op.width[l];
  return size_t(op.members * rows * floats) * sizeof(float);
}

void fused_mlp_forward(Stream& stream, const FusedMlp<float>& op, Tensor y, Tensor x, float* scratch) {
  check("fused_mlp_forward", op, y, x);
  if (stream.device() == Device::cpu) return host::fused_mlp_forward(op, y, x);
  check_fits("fused_mlp_forward", op);
  launch_rows(stream, op, y, x, {}, {}, 0, false, scratch);
}

void fused_mlp_backward(Stream& stream, const FusedMlp<float>& op, const FusedMlpGradient<float>& gradient,
                        Tensor dy, Tensor x, float* scratch) {
  check("fused_mlp_backward", op, dy, x);
  CHECK(!gradient.dx || gradient.dx.shape() == x.shape(), "fused_mlp_backward: dx ", gradient.dx.shape(),
        " does not match x ", x.shape());
  if (stream.device() == Device::cpu) return host::fused_mlp_backward(op, gradient, dy, x);
  check_fits("fused_mlp_backward", op);
  const bool weights = gradient.wants_weights();
  if (!weights && !gradient.dx) return;
  launch_rows(stream, op, {}, x, dy, gradient.dx, gradient.beta_dx, weights, scratch);
  if (!weights) return;
  const dim3 grid(weight_parts(op), unsigned(op.hidden) + 1, unsigned(op.members));
  launch(tf32() ? mlp_weights_kernel<true> : mlp_weights_kernel<false>, grid, kTileThreads, 0, stream, op,
         gradient, dy, x, scratch);
}

}  // namespace lanas
