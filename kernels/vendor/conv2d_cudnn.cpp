// conv2d_cudnn.cpp -- see cuda.h. For every geometry cuDNN's heuristic ranks its algorithms once; the first
// that is deterministic and fits the scratch memory is kept, and noted in choices.h. Strict fp32 unless TF32
// is on.
#include <cudnn.h>

#include <array>
#include <cstdio>
#include <map>

#include "kernels/core/native.cuh"
#include "kernels/core/precision.h"
#include "kernels/vendor/choices.h"
#include "kernels/vendor/cuda.h"

#define CUDNN_CHECK(call)                                                                         \
  do {                                                                                            \
    if (const cudnnStatus_t status_ = (call); status_ != CUDNN_STATUS_SUCCESS) [[unlikely]]       \
      throw ::lanas::Error(                                                                       \
          ::lanas::join(__FILE__, ":", __LINE__, ": " #call ": ", cudnnGetErrorString(status_))); \
  } while (false)

namespace lanas::cuda {
namespace {

constexpr size_t kScratch = size_t{32} << 20;  // bytes
enum Pass { kForward, kData, kWeights };
using Geometry = std::array<int, 15>;

// One of cuDNN's descriptors, destroyed with this object.
template <class T, cudnnStatus_t (*kCreate)(T*), cudnnStatus_t (*kDestroy)(T)>
class Descriptor {
 public:
  Descriptor() { CUDNN_CHECK(kCreate(&descriptor_)); }
  ~Descriptor() {
    if (kDestroy(descriptor_) != CUDNN_STATUS_SUCCESS)
      std::fprintf(stderr, "cudnn: a descriptor could not be destroyed\n");
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator T() const { return descriptor_; }

 private:
  T descriptor_ = nullptr;
};
using TensorDescriptor =
    Descriptor<cudnnTensorDescriptor_t, cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor>;
using FilterDescriptor =
    Descriptor<cudnnFilterDescriptor_t, cudnnCreateFilterDescriptor, cudnnDestroyFilterDescriptor>;
using ConvDescriptor = Descriptor<cudnnConvolutionDescriptor_t, cudnnCreateConvolutionDescriptor,
                                  cudnnDestroyConvolutionDescriptor>;

struct Dnn {
  cudnnHandle_t handle = nullptr;
  std::map<Geometry, int> algorithms;

  explicit Dnn(cudaStream_t stream) {
    CUDNN_CHECK(cudnnCreate(&handle));
    CUDNN_CHECK(cudnnSetStream(handle, stream));
  }
  ~Dnn() {
    if (handle && cudnnDestroy(handle) != CUDNN_STATUS_SUCCESS)
      std::fprintf(stderr, "cudnn: a handle could not be destroyed\n");
  }
  Dnn(const Dnn&) = delete;
  Dnn& operator=(const Dnn&) = delete;
};

Dnn& dnn(Stream& stream) {
  Stream::Native& native = *stream.native();
  if (!native.cudnn) native.cudnn = std::make_shared<Dnn>(native.stream);
  return *static_cast<Dnn*>(native.cudnn.get());
}

// The descriptors of one call; x, w and y stand for the tensors or their gradients.
struct Convolution {
  TensorDescriptor x, y;
  FilterDescriptor w;
  ConvDescriptor conv;

  Convolution(Tensor y_view, Tensor x_view, Tensor w_view, ConvSettings s) {
    set(x, x_view);
    set(y, y_view);
    CUDNN_CHECK(cudnnSetFilter4dDescriptor(w, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NHWC, w_view.n, w_view.c,
                                           w_view.h, w_view.w));
    CUDNN_CHECK(cudnnSetConvolution2dDescriptor(conv, s.padding, s.padding, s.stride, s.stride, s.dilation,
                                                s.dilation, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    CUDNN_CHECK(cudnnSetConvolutionMathType(conv, tf32() ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH));
  }

 private:
  static void set(const TensorDescriptor& descriptor, Tensor t) {
    CUDNN_CHECK(cudnnSetTensor4dDescriptorEx(descriptor, CUDNN_DATA_FLOAT, t.n, t.c, t.h, t.w,
                                             t.h * t.w * t.stride, 1, t.w * t.stride, t.stride));
  }
};

template <class Performance>
int choose(const char* op, const Performance* ranked, int count) {
  for (int i = 0; i < count; ++i)
    if (ranked[i].status == CUDNN_STATUS_SUCCESS && ranked[i].determinism == CUDNN_DETERMINISTIC &&
        ranked[i].memory <= kScratch)
      return int(ranked[i].algo);
  throw Error(join(op, ": cuDNN has no deterministic algorithm that fits ", kScratch >> 20, " MiB"));
}

// The algorithm for these shapes: the heuristic is asked the first time, which must not be while capturing.
template <class Ask>
int algorithm(Dnn& d, Pass pass, Tensor y, Tensor x, Tensor w, ConvSettings s, Ask ask) {
  const Geometry key{pass, x.n, x.h,      x.w,       x.c,        x.stride, y.c,   y.stride,
                     w.h,  w.w, s.stride, s.padding, s.dilation, y.h,      tf32()};
  const auto found = d.algorithms.find(key);
  if (found != d.algorithms.end()) return found->second;
  const int chosen = ask();
  constexpr const char* kNames[] = {"forward", "backward data", "backward weights"};
  note_vendor_choice(join("cuDNN ", cudnnGetVersion(), " conv2d ", kNames[pass], ", x ", x.shape(), ", w ",
                          w.shape(), ", stride ", s.stride, ", dilation ", s.dilation,
                          tf32() ? ", TF32" : ", fp32", ": algorithm ", chosen));
  return d.algorithms[key] = chosen;
}

constexpr int kMost = 16;  // algorithms asked for

}  // namespace

size_t conv2d_scratch_bytes() { return kScratch; }

void conv2d_forward(Stream& stream, Tensor y, Tensor x, Tensor w, ConvSettings s, void* scratch) {
  Dnn& d = dnn(stream);
  const Convolution c(y, x, w, s);
  const int chosen = algorithm(d, kForward, y, x, w, s, [&] {
    cudnnConvolutionFwdAlgoPerf_t ranked[kMost];
    int count = 0;
    CUDNN_CHECK(
        cudnnGetConvolutionForwardAlgorithm_v7(d.handle, c.x, c.w, c.conv, c.y, kMost, &count, ranked));
    return choose("conv2d_forward", ranked, count);
  });
  const float one = 1, zero = 0;
  CUDNN_CHECK(cudnnConvolutionForward(d.handle, &one, c.x, x.data, c.w, w.data, c.conv,
                                      cudnnConvolutionFwdAlgo_t(chosen), scratch, kScratch, &zero, c.y,
                                      y.data));
}

void conv2d_backward_data(Stream& stream, Tensor dx, Tensor dy, Tensor w, ConvSettings s, float beta,
                          void* scratch) {
  Dnn& d = dnn(stream);
  const Convolution c(dy, dx, w, s);
  const int chosen = algorithm(d, kData, dy, dx, w, s, [&] {
    cudnnConvolutionBwdDataAlgoPerf_t ranked[kMost];
    int count = 0;
    CUDNN_CHECK(
        cudnnGetConvolutionBackwardDataAlgorithm_v7(d.handle, c.w, c.y, c.conv, c.x, kMost, &count, ranked));
    return choose("conv2d_backward_data", ranked, count);
  });
  const float one = 1;
  CUDNN_CHECK(cudnnConvolutionBackwardData(d.handle, &one, c.w, w.data, c.y, dy.data, c.conv,
                                           cudnnConvolutionBwdDataAlgo_t(chosen), scratch, kScratch, &beta,
                                           c.x, dx.data));
}

void conv2d_backward_weights(Stream& stream, Tensor dw, Tensor dy, Tensor x, ConvSettings s, float beta,
                             void* scratch) {
  Dnn& d = dnn(stream);
  const Convolution c(dy, x, dw, s);
  const int chosen = algorithm(d, kWeights, dy, x, dw, s, [&] {
    cudnnConvolutionBwdFilterAlgoPerf_t ranked[kMost];
    int count = 0;
    CUDNN_CHECK(cudnnGetConvolutionBackwardFilterAlgorithm_v7(d.handle, c.x, c.y, c.conv, c.w, kMost, &count,
                                                              ranked));
    return choose("conv2d_backward_weights", ranked, count);
  });
  const float one = 1;
  CUDNN_CHECK(cudnnConvolutionBackwardFilter(d.handle, &one, c.x, x.data, c.y, dy.data, c.conv,
                                             cudnnConvolutionBwdFilterAlgo_t(chosen), scratch, kScratch,
                                             &beta, c.w, dw.data));
}

}  // namespace lanas::cuda
