// separable_conv.cu -- y = pointwise(depthwise(relu(normalise(x)))), see separable_conv.h.
//   z = relu(gamma (x - mean) inv_std + beta);  d[o,c] = sum_t w[t,c] z[stride*o + dilation*t - padding, c]
//   y[o,j] = sum_c p[j,c] d[o,c];  dd = dy p;  dp = dy^T d;  dw[t] = sum_o dd[o] z[..];  dz = gather of w dd
// The host loops are the definition; on the cpu the public functions go to the vectors of
// separable_conv_cpu.h, on the device to the kernels behind separable_conv_units.h. A unit alone is a list
// of one.
#include <cmath>
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/ops/batch_norm.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/separable_conv.h"
#include "kernels/ops/separable_conv_cpu.h"
#include "kernels/ops/separable_conv_units.h"

namespace lanas {
namespace host {
namespace {

// z = relu(normalise(x)), packed.
template <class T>
std::vector<T> activate(const SeparableConv<T>& op, View<T> x) {
  std::vector<T> z(size_t(x.size()));
  parallel_for(x.pixels(), [&, norm = op.norm, relu = op.relu](int64_t p) {
    const T* from = x.pixel(p);
    T* to = z.data() + p * x.c;
    for (int c = 0; c < x.c; ++c) {
      T v = from[c];
      if (norm) v = (v - norm.mean[c]) * norm.inv_std[c];
      if (norm.gamma) v = v * norm.gamma[c] + norm.beta[c];
      to[c] = relu && !(v > 0) ? T(0) : v;
    }
  });
  return z;
}

// Calls use(tap, iy, ix) for the taps of output pixel (oy, ox) that lie inside the image.
template <class T, class Use>
LANAS_INLINE void for_taps(const SeparableConv<T>& op, Shape x, int oy, int ox, Use&& use) {
  const int k = op.kernel(), pad = op.padding();
  for (int ky = 0; ky < k; ++ky)
    for (int kx = 0; kx < k; ++kx) {
      const int iy = oy * op.stride + op.offset + ky * op.dilation - pad;
      const int ix = ox * op.stride + op.offset + kx * op.dilation - pad;
      if (0 <= iy && iy < x.h && 0 <= ix && ix < x.w) use(ky * k + kx, iy, ix);
    }
}

// d = depthwise(z), packed [n,ho,wo,cin].
template <class T>
std::vector<T> depthwise(const SeparableConv<T>& op, View<T> z) {
  const Shape out = op.output_shape(z.shape());
  std::vector<T> d(size_t(out.pixels()) * z.c);
  parallel_for(out.pixels(), [&](int64_t p) {
    const int ox = int(p % out.w), oy = int(p / out.w % out.h), n = int(p / out.w / out.h);
    T* to = d.data() + p * z.c;
    for_taps(op, z.shape(), oy, ox, [&](int tap, int iy, int ix) {
      const T* from = z.at(n, iy, ix);
      const T* weight = op.has_depthwise() ? op.depthwise.pixel(tap) : nullptr;
      for (int c = 0; c < z.c; ++c) to[c] += weight ? weight[c] * from[c] : from[c];
    });
  });
  return d;
}

// dy, packed.
template <class T>
std::vector<T> put_together(const GradientView<T>& dy) {
  std::vector<T> to(size_t(dy.g.size()));
  parallel_for(dy.g.pixels(), [&](int64_t p) {
    for (int c = 0; c < dy.g.c; ++c) to[size_t(p * dy.g.c + c)] = dy.at(p, c);
  });
  return to;
}

// dd = dy p, packed [n,ho,wo,cin].
template <class T>
std::vector<T> pointwise_input_gradient(const SeparableConv<T>& op, View<T> dy) {
  const int cin = op.pointwise.c;
  std::vector<T> dd(size_t(dy.pixels()) * cin);
  parallel_for(dy.pixels(), [&](int64_t p) {
    T* to = dd.data() + p * cin;
    for (int j = 0; j < dy.c; ++j) {
      const T g = dy.pixel(p)[j];
      const T* weight = op.pointwise.pixel(j);
      for (int c = 0; c < cin; ++c) to[c] += g * weight[c];
    }
  });
  return dd;
}

// dp[j,c] = beta dp + sum_p dy[p,j] d[p,c]: one row of dp per iteration, so the order of the sum is fixed.
template <class T>
void pointwise_weight_gradient(View<T> dp, T beta, View<T> dy, View<T> d) {
  parallel_for(dy.c, [&](int64_t j) {
    std::vector<double> sum(size_t(d.c), 0.0);
    for (int64_t p = 0; p < dy.pixels(); ++p)
      for (int c = 0; c < d.c; ++c) sum[size_t(c)] += double(dy.pixel(p)[j]) * double(d.pixel(p)[c]);
    for (int c = 0; c < d.c; ++c) {
      T& to = dp.pixel(j)[c];
      to = T(sum[size_t(c)]) + (beta == 0 ? T(0) : beta * to);
    }
  });
}

template <class T>
void depthwise_weight_gradient(const SeparableConv<T>& op, View<T> dw, T beta, View<T> dd, View<T> z) {
  const int taps = op.kernel() * op.kernel();
  std::vector<double> sum(size_t(taps) * z.c, 0.0);
  for (int64_t p = 0; p < dd.pixels(); ++p) {
    const int ox = int(p % dd.w), oy = int(p / dd.w % dd.h), n = int(p / dd.w / dd.h);
    for_taps(op, z.shape(), oy, ox, [&](int tap, int iy, int ix) {
      for (int c = 0; c < z.c; ++c)
        sum[size_t(tap) * z.c + c] += double(dd.pixel(p)[c]) * double(z.at(n, iy, ix)[c]);
    });
  }
  for (int tap = 0; tap < taps; ++tap)
    for (int c = 0; c < z.c; ++c) {
      T& to = dw.pixel(tap)[c];
      to = T(sum[size_t(tap) * z.c + c]) + (beta == 0 ? T(0) : beta * to);
    }
}

// dz behind the ReLU, packed as z: z > 0 exactly where the ReLU let its input through.
template <class T>
std::vector<T> depthwise_input_gradient(const SeparableConv<T>& op, View<T> dd, View<T> z) {
  std::vector<T> dz(size_t(z.size()));
  parallel_for(z.n, [&](int64_t n) {
    for (int oy = 0; oy < dd.h; ++oy)
      for (int ox = 0; ox < dd.w; ++ox)
        for_taps(op, z.shape(), oy, ox, [&](int tap, int iy, int ix) {
          const T* weight = op.has_depthwise() ? op.depthwise.pixel(tap) : nullptr;
          T* to = dz.data() + (z.at(int(n), iy, ix) - z.data);
          const T* from = dd.at(int(n), oy, ox);
          for (int c = 0; c < z.c; ++c) to[c] += weight ? weight[c] * from[c] : from[c];
        });
    if (!op.relu) return;
    const int64_t size = z.size() / z.n;
    for (int64_t i = n * size; i < (n + 1) * size; ++i)
      if (!(z.data[i] > 0)) dz[size_t(i)] = 0;
  });
  return dz;
}

// dx from dz: the identity, or the whole backward of a batch norm, or its factors.
template <class T>
void input_gradient(const SeparableConv<T>& op, const SeparableConvGradient<T>& gradient, View<T> dz,
                    View<T> x) {
  const NormView<T>& norm = op.norm;
  const NormGradient<T>& affine = gradient.norm;
  const View<T> dx = gradient.dx;
  parallel_for(x.c, [&](int64_t c) {
    double sum = 0, sum_xhat = 0;
    const auto xhat = [&](int64_t p) {
      return norm ? (x.pixel(p)[c] - norm.mean[c]) * norm.inv_std[c] : T(0);
    };
    for (int64_t p = 0; p < x.pixels(); ++p) {
      sum += double(dz.pixel(p)[c]);
      sum_xhat += double(dz.pixel(p)[c]) * double(xhat(p));
    }
    const auto write = [&](T* to, double value, T beta) {
      if (to) to[c] = T(value) + (beta == 0 ? T(0) : beta * to[c]);
    };
    write(affine.dgamma, sum_xhat, affine.beta_dgamma);
    write(affine.dbeta, sum, affine.beta_dbeta);
    if (!dx) return;
    const T mean = T(sum / double(x.pixels())), mean_xhat = T(sum_xhat / double(x.pixels()));
    if (T* factors = gradient.dx_factors) {
      const T a = (norm.gamma ? norm.gamma[c] : T(1)) * norm.inv_std[c], b = -a * norm.inv_std[c] * mean_xhat;
      factors[c] = a, factors[x.c + c] = b, factors[2 * x.c + c] = -a * mean - b * norm.mean[c];
    }
    for (int64_t p = 0; p < x.pixels(); ++p) {
      T value = dz.pixel(p)[c];
      if (norm && !gradient.dx_factors)
        value = (norm.gamma ? norm.gamma[c] : T(1)) * norm.inv_std[c] * (value - mean - xhat(p) * mean_xhat);
      T& to = dx.pixel(p)[c];
      to = value + (gradient.beta_dx == 0 ? T(0) : gradient.beta_dx * to);
    }
  });
}

}  // namespace

template <class T>
void separable_conv_inference(const SeparableConv<T>& op, View<T> y, View<T> x, const T* bias,
                              View<T> added) {
  std::vector<T> z = activate(op, x);
  std::vector<T> d = depthwise(op, View<T>(z.data(), x.shape()));
  parallel_for(y.pixels(), [&](int64_t p) {
    for (int j = 0; j < y.c; ++j) {
      T sum = bias ? bias[j] : T(0);
      for (int c = 0; c < x.c; ++c)
        sum += op.pointwise.data[op.transposed ? c * y.c + j : j * x.c + c] * d[size_t(p * x.c + c)];
      y.pixel(p)[j] = sum + (added ? added.pixel(p)[j] : T(0));
    }
  });
}

template <class T>
void separable_conv_forward(const SeparableConv<T>& op, View<T> y, View<T> x, T* y_mean, T* y_inv_std,
                            T eps) {
  separable_conv_inference(op, y, x, static_cast<const T*>(nullptr), View<T>());
  if (!y_mean) return;
  parallel_for(y.c, [&](int64_t j) {
    const double count = double(y.pixels());
    double sum = 0, square = 0;
    for (int64_t p = 0; p < y.pixels(); ++p) sum += double(y.pixel(p)[j]);
    for (int64_t p = 0; p < y.pixels(); ++p) {
      const double centred = double(y.pixel(p)[j]) - sum / count;
      square += centred * centred;
    }
    y_mean[j] = T(sum / count);
    y_inv_std[j] = T(1 / std::sqrt(square / count + double(eps)));
  });
}

template <class T>
void separable_conv_backward(const SeparableConv<T>& op, const SeparableConvGradient<T>& gradient,
                             GradientView<T> dy_view, View<T> x) {
  std::vector<T> whole = put_together(dy_view);
  const View<T> dy(whole.data(), dy_view.shape());
  std::vector<T> z = activate(op, x), dd = pointwise_input_gradient(op, dy);
  const View<T> z_view(z.data(), x.shape()), dd_view(dd.data(), {dy.n, dy.h, dy.w, x.c});
  if (gradient.d_pointwise) {
    std::vector<T> d = depthwise(op, z_view);
    pointwise_weight_gradient(gradient.d_pointwise, gradient.beta_d_pointwise, dy,
                              View<T>(d.data(), dd_view.shape()));
  }
  if (gradient.d_depthwise)
    depthwise_weight_gradient(op, gradient.d_depthwise, gradient.beta_d_depthwise, dd_view, z_view);
  if (!gradient.dx && !gradient.norm.dgamma && !gradient.norm.dbeta) return;
  std::vector<T> dz = depthwise_input_gradient(op, dd_view, z_view);
  input_gradient(op, gradient, View<T>(dz.data(), x.shape()), x);
}

#define LANAS_INSTANTIATE(T)                                                                      \
  template void separable_conv_forward(const SeparableConv<T>&, View<T>, View<T>, T*, T*, T);     \
  template void separable_conv_backward(const SeparableConv<T>&, const SeparableConvGradient<T>&, \
                                        GradientView<T>, View<T>);                                \
  template void separable_conv_inference(const SeparableConv<T>&, View<T>, View<T>, const T*, View<T>);
LANAS_INSTANTIATE(float)
LANAS_INSTANTIATE(double)
#undef LANAS_INSTANTIATE

}  // namespace host

void check_unit_shapes(const char* name, const SeparableConv<float>& op, Shape y, Shape x) {
  CHECK(op.stride == 1 || op.stride == 2, name, ": stride ", op.stride, " is neither 1 nor 2");
  CHECK(op.dilation >= 1, name, ": dilation ", op.dilation, " is below 1");
  CHECK(op.offset == 0 || (op.offset == 1 && op.stride == 2 && !op.has_depthwise()), name, ": offset ",
        op.offset, " needs stride 2 and no depthwise part, got stride ", op.stride);
  CHECK(op.pointwise.shape() == (Shape{op.pointwise.n, 1, 1, x.c}) && op.pointwise.packed(), name,
        ": pointwise weights ", op.pointwise.shape(), " do not match x ", x);
  if (op.has_depthwise())
    CHECK(op.depthwise.shape() == (Shape{1, op.kernel(), op.kernel(), x.c}) && op.depthwise.packed() &&
              op.kernel() % 2 == 1,
          name, ": depthwise weights ", op.depthwise.shape(), " are not [1,k,k,", x.c, "] with k odd");
  CHECK(y == op.output_shape(x), name, ": output ", y, " is not ", op.output_shape(x), " for x ", x);
}

namespace {

void check_gradient(const char* name, const SeparableConv<float>& op,
                    const SeparableConvGradient<float>& gradient, const GradientView<float>& dy, Tensor x) {
  check_unit_shapes(name, op, dy.shape(), x.shape());
  CHECK(!op.transposed, name, ": transposed weights are for inference alone");
  check_gradient_view(name, dy);
  CHECK(!gradient.dx_factors || (op.norm && gradient.dx && gradient.beta_dx == 0), name,
        ": factors of dx without a norm of x and a dx to overwrite");
  CHECK(!gradient.dx || gradient.dx.shape() == x.shape(), name, ": dx ", gradient.dx.shape(),
        " does not match x ", x.shape());
  CHECK(!gradient.d_depthwise || gradient.d_depthwise.shape() == op.depthwise.shape(), name, ": d_depthwise ",
        gradient.d_depthwise.shape(), " does not match ", op.depthwise.shape());
  CHECK(!gradient.d_pointwise || gradient.d_pointwise.shape() == op.pointwise.shape(), name, ": d_pointwise ",
        gradient.d_pointwise.shape(), " does not match ", op.pointwise.shape());
  CHECK((!gradient.norm.dgamma && !gradient.norm.dbeta) || op.norm, name, ": dgamma, dbeta without op.norm");
}

}  // namespace

void separable_conv_forward(Stream& stream, const SeparableConv<float>& op, Tensor y, Tensor x, float* y_mean,
                            float* y_inv_std, float eps, float* scratch) {
  const SeparableConvOutput<float> output{y, y_mean, y_inv_std};
  const SeparableInput input{x};
  separable_convs_forward(stream, {&op, 1}, {&output, 1}, {&input, 1}, eps, scratch);
}

void separable_conv_backward(Stream& stream, const SeparableConv<float>& op,
                             const SeparableConvGradient<float>& gradient, GradientView<float> dy, Tensor x,
                             float* scratch) {
  const SeparableInput input{x};
  separable_convs_backward(stream, {&op, 1}, {&gradient, 1}, {&dy, 1}, {&input, 1}, scratch);
}

size_t separable_conv_forward_scratch_bytes(const Stream& stream, const SeparableConv<float>& op, Shape x) {
  const SeparableInput input{Tensor(nullptr, x)};
  return separable_convs_forward_scratch_bytes(stream, {&op, 1}, {&input, 1});
}

size_t separable_conv_backward_scratch_bytes(const Stream& stream, const SeparableConv<float>& op, Shape x) {
  const SeparableInput input{Tensor(nullptr, x)};
  return separable_convs_backward_scratch_bytes(stream, {&op, 1}, {&input, 1});
}

namespace {

// use(input, first, count) for every input with its units.
template <class Use>
void for_inputs(std::span<const SeparableInput> inputs, Use use) {
  size_t first = 0;
  for (const SeparableInput& input : inputs) {
    use(input, first, size_t(input.units));
    first += size_t(input.units);
  }
}

// use(x, first, count) for the units that the cpu runs together.
template <class Use>
void for_groups(std::span<const SeparableConv<float>> ops, std::span<const SeparableInput> inputs, Use use) {
  for_inputs(inputs, [&](const SeparableInput& input, size_t first, size_t count) {
    const size_t each = ops[first].has_depthwise() ? count : 1;
    for (size_t u = first; u < first + count; u += each) use(input.x, u, each);
  });
}

void check_inputs(const char* name, std::span<const SeparableConv<float>> ops, size_t results,
                  std::span<const SeparableInput> inputs) {
  CHECK(!ops.empty() && ops.size() == results, name, ": ", results, " results for ", ops.size(), " units");
  size_t units = 0;
  for_inputs(inputs, [&](const SeparableInput&, size_t first, size_t count) {
    CHECK(count >= 1 && first + count <= ops.size(), name, ": inputs of more than ", ops.size(), " units");
    units += count;
    if (count == 1) return;
    const SeparableConv<float>& head = ops[first];
    for (const SeparableConv<float>& op : ops.subspan(first, count)) {
      CHECK(op.stride == head.stride && op.pointwise.n == head.pointwise.n, name, ": stride ", op.stride,
            " and ", op.pointwise.n, " channels do not match ", head.stride, " and ", head.pointwise.n,
            " of the first unit");
      CHECK(op.has_depthwise() == head.has_depthwise() && (op.relu || !op.has_depthwise()) && !op.norm, name,
            ": units that share an input have depthwise parts and ReLU, or none, and no norm");
    }
  });
  CHECK(units == ops.size(), name, ": inputs of ", units, " units, there are ", ops.size());
}

}  // namespace

void separable_convs_forward(Stream& stream, std::span<const SeparableConv<float>> ops,
                             std::span<const SeparableConvOutput<float>> outputs,
                             std::span<const SeparableInput> inputs, float eps, float* scratch) {
  const char* name = ops.size() == 1 ? "separable_conv_forward" : "separable_convs_forward";
  check_inputs(name, ops, outputs.size(), inputs);
  for_inputs(inputs, [&](const SeparableInput& input, size_t first, size_t count) {
    for (size_t u = first; u < first + count; ++u) {
      const SeparableConvOutput<float>& out = outputs[u];
      check_unit_shapes(name, ops[u], out.y.shape(), input.x.shape());
      CHECK(!ops[u].transposed, name, ": transposed weights are for inference alone");
      CHECK(!out.mean == !out.inv_std && !out.mean == !outputs[0].mean, name,
            ": means and inv_stds of all units go together");
      CHECK(!out.running_mean == !out.running_var && (out.mean || !out.running_mean), name,
            ": running moments without moments");
    }
  });
  stream.activate();
  if (stream.device() == Device::cuda) return launch_units(stream, ops, outputs, inputs, nullptr, 0, eps);
  for_groups(ops, inputs, [&](Tensor x, size_t first, size_t count) {
    cpu::separable_conv_forward(ops.subspan(first, count), outputs.subspan(first, count), x, eps, scratch);
  });
  for (const SeparableConvOutput<float>& out : outputs)
    if (out.running_mean)
      host::batch_norm_update_running<float>(out.running_mean, out.running_var, out.mean, out.inv_std,
                                             out.y.c, out.y.pixels(), eps);
}

void separable_convs_backward(Stream& stream, std::span<const SeparableConv<float>> ops,
                              std::span<const SeparableConvGradient<float>> gradients,
                              std::span<const GradientView<float>> dys,
                              std::span<const SeparableInput> inputs, float* scratch) {
  const char* name = ops.size() == 1 ? "separable_conv_backward" : "separable_convs_backward";
  check_inputs(name, ops, gradients.size(), inputs);
  CHECK(dys.size() == ops.size(), name, ": ", dys.size(), " gradients for ", ops.size(), " units");
  for_inputs(inputs, [&](const SeparableInput& input, size_t first, size_t count) {
    for (size_t u = first; u < first + count; ++u) {
      check_gradient(name, ops[u], gradients[u], dys[u], input.x);
      CHECK(gradients[u].dx.data == gradients[first].dx.data, name,
            ": units that share an input share its gradient");
    }
  });
  stream.activate();
  if (stream.device() == Device::cuda)
    return launch_units_backward(stream, ops, gradients, dys, inputs, scratch);
  for_inputs(inputs, [&](const SeparableInput& input, size_t begin, size_t count) {
    if (ops[begin].has_depthwise())
      return cpu::separable_conv_backward(ops.subspan(begin, count), gradients.subspan(begin, count),
                                          dys.subspan(begin, count), input.x, scratch);
    for (size_t u = begin; u < begin + count; ++u) {
      SeparableConvGradient<float> gradient = gradients[u];
      if (u > begin) gradient.beta_dx = 1;
      cpu::separable_conv_backward(ops.subspan(u, 1), {&gradient, 1}, dys.subspan(u, 1), input.x, scratch);
    }
  });
}

size_t separable_convs_forward_scratch_bytes(const Stream& stream, std::span<const SeparableConv<float>> ops,
                                             std::span<const SeparableInput> inputs) {
  if (stream.device() == Device::cuda) return 0;
  size_t bytes = 0;
  for_groups(ops, inputs, [&](Tensor x, size_t first, size_t count) {
    bytes = std::max(bytes, cpu::separable_conv_forward_scratch_bytes(ops.subspan(first, count), x.shape(),
                                                                      stream.threads()));
  });
  return bytes;
}

size_t separable_convs_backward_scratch_bytes(const Stream& stream, std::span<const SeparableConv<float>> ops,
                                              std::span<const SeparableInput> inputs) {
  if (stream.device() == Device::cuda) return units_backward_scratch_bytes(ops, inputs);
  size_t bytes = 0;
  for_groups(ops, inputs, [&](Tensor x, size_t first, size_t count) {
    bytes = std::max(bytes, cpu::separable_conv_backward_scratch_bytes(ops.subspan(first, count), x.shape(),
                                                                       stream.threads()));
  });
  return bytes;
}

}  // namespace lanas
