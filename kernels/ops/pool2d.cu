// pool2d.cu -- max and average pooling: checks, and launches of the kernels of pool2d.cuh; see pool2d.h. The
// host loops stand in pool2d_cpu.cpp, which both libraries of kernels take: they are compiled once.
#include "kernels/ops/pool2d.cuh"
#include "kernels/ops/pool2d.h"

namespace lanas {
namespace {
void check_pool(const char* op, Tensor y, Tensor x, int kernel, int stride, int padding) {
  CHECK(kernel > 0 && kernel <= kMaxPoolKernel && stride > 0 && padding >= 0 && 2 * padding <= kernel, op,
        ": kernel ", kernel, ", stride ", stride, ", padding ", padding);
  CHECK(x.h + 2 * padding >= kernel && x.w + 2 * padding >= kernel, op, ": kernel ", kernel,
        " is larger than the padded input ", x.shape());
  const Shape expected{x.n, pooled_size(x.h, kernel, stride, padding),
                       pooled_size(x.w, kernel, stride, padding), x.c};
  CHECK(y.shape() == expected, op, ": output ", y.shape(), " does not match ", expected, " from input ",
        x.shape());
}

// Throws Error; returns the first gradient, which on a cuda device must be alone and without factors.
Tensor check_gradients(const char* op, std::span<const GradientView<float>> dys, Tensor x, int kernel,
                       int stride, int padding, Device device) {
  CHECK(!dys.empty(), op, ": no gradient for x ", x.shape());
  for (const GradientView<float>& dy : dys) {
    check_pool(op, dy.g, x, kernel, stride, padding);
    check_gradient_view(op, dy);
  }
  CHECK(device == Device::cpu || (dys.size() == 1 && !dys[0].factors), op, ": ", dys.size(),
        " gradients or factors on a cuda device");
  return dys[0].g;
}
}  // namespace

void max_pool_forward(Stream& stream, Tensor y, Tensor x, int kernel, int stride, int padding) {
  check_pool("max_pool_forward", y, x, kernel, stride, padding);
  stream.activate();
  if (stream.device() == Device::cpu) return host::max_pool_forward<float>(y, x, kernel, stride, padding);
  with_pack(pack_width(y, x), [&](auto pack) {
    with_window(kernel, stride, padding, [&](auto window) {
      launch(max_forward_kernel<pack(), decltype(window)::kConstant>, pack_blocks(y, pack), kPackThreads, 0,
             stream, y, x, window);
    });
  });
}

void max_pool_backward(Stream& stream, Tensor dx, std::span<const GradientView<float>> dys, Tensor x,
                       int kernel, int stride, int padding, float beta) {
  const Tensor dy = check_gradients("max_pool_backward", dys, x, kernel, stride, padding, stream.device());
  CHECK(dx.shape() == x.shape(), "max_pool_backward: dx ", dx.shape(), " does not match x ", x.shape());
  stream.activate();
  if (stream.device() == Device::cpu)
    return host::max_pool_backward<float>(dx, dys, x, kernel, stride, padding, beta);
  launch_max_backward<false>(stream, dx, dy, {}, x, kernel, stride, padding, beta);
}

void avg_pool_forward(Stream& stream, Tensor y, Tensor x, int kernel, int stride, int padding) {
  check_pool("avg_pool_forward", y, x, kernel, stride, padding);
  stream.activate();
  if (stream.device() == Device::cpu) return host::avg_pool_forward<float>(y, x, kernel, stride, padding);
  with_pack(pack_width(y, x), [&](auto pack) {
    with_window(kernel, stride, padding, [&](auto window) {
      launch(avg_forward_kernel<pack(), decltype(window)::kConstant>, pack_blocks(y, pack), kPackThreads, 0,
             stream, y, x, window);
    });
  });
}

void avg_pool_backward(Stream& stream, Tensor dx, std::span<const GradientView<float>> dys, int kernel,
                       int stride, int padding, float beta) {
  const Tensor dy = check_gradients("avg_pool_backward", dys, dx, kernel, stride, padding, stream.device());
  stream.activate();
  if (stream.device() == Device::cpu)
    return host::avg_pool_backward<float>(dx, dys, kernel, stride, padding, beta);
  with_pack(pack_width(dx, dy), [&](auto pack) {
    with_window(kernel, stride, padding, [&](auto window) {
      launch(avg_backward_kernel<pack(), decltype(window)::kConstant>, pack_blocks(dx, pack), kPackThreads, 0,
             stream, dx, dy, window, beta);
    });
  });
}

}  // namespace lanas
