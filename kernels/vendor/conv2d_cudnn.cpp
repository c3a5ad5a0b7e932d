// conv2d_cudnn.cpp -- see cuda.h. For every geometry cuDNN's heuristic ranks its algorithms once; the first
// that is deterministic and fits the workspace is kept, and noted in choices.h. Where it has none for strided
// pixels (stride 2, in 9.19), they are copied to packed ones. Strict fp32 unless TF32 is on.
#include <cudnn.h>

#include <array>
#include <cstdio>
#include <map>
#include <optional>
#include <string>

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

constexpr size_t kWorkspace = size_t{32} << 20;  // bytes; packed copies of x and y stand behind it
enum Pass { kForward, kData, kWeights };
struct Choice {
  int algorithm;
  bool packed;  // x and y have to be
};
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
  std::map<Geometry, Choice> choices;

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
std::optional<int> first_usable(const Performance* ranked, int count) {
  for (int i = 0; i < count; ++i)
    if (ranked[i].status == CUDNN_STATUS_SUCCESS && ranked[i].determinism == CUDNN_DETERMINISTIC &&
        ranked[i].memory <= kWorkspace)
      return int(ranked[i].algo);
  return {};
}

std::optional<int> ask(Dnn& d, Pass pass, const Convolution& c) {
  constexpr int kMost = 16;  // algorithms asked for
  int count = 0;
  if (pass == kForward) {
    cudnnConvolutionFwdAlgoPerf_t ranked[kMost];
    CUDNN_CHECK(
        cudnnGetConvolutionForwardAlgorithm_v7(d.handle, c.x, c.w, c.conv, c.y, kMost, &count, ranked));
    return first_usable(ranked, count);
  }
  if (pass == kData) {
    cudnnConvolutionBwdDataAlgoPerf_t ranked[kMost];
    CUDNN_CHECK(
        cudnnGetConvolutionBackwardDataAlgorithm_v7(d.handle, c.w, c.y, c.conv, c.x, kMost, &count, ranked));
    return first_usable(ranked, count);
  }
  cudnnConvolutionBwdFilterAlgoPerf_t ranked[kMost];
  CUDNN_CHECK(
      cudnnGetConvolutionBackwardFilterAlgorithm_v7(d.handle, c.x, c.y, c.conv, c.w, kMost, &count, ranked));
  return first_usable(ranked, count);
}

Tensor packed(Tensor t, void* memory) { return {static_cast<float*>(memory), t.shape()}; }

// The choice for these shapes: the heuristic is asked the first time, which must not be while capturing.
Choice choose(Dnn& d, Pass pass, Tensor y, Tensor x, Tensor w, ConvSettings s) {
  const Geometry key{pass, x.n, x.h,      x.w,       x.c,        x.stride, y.c,   y.stride,
                     w.h,  w.w, s.stride, s.padding, s.dilation, y.h,      tf32()};
  const auto found = d.choices.find(key);
  if (found != d.choices.end()) return found->second;
  constexpr const char* kNames[] = {"forward", "backward data", "backward weights"};
  const std::string what =
      join("conv2d ", kNames[pass], ", x ", x.shape(), x.packed() ? "" : " strided", ", w ", w.shape(),
           ", stride ", s.stride, ", dilation ", s.dilation, tf32() ? ", TF32" : ", fp32");
  std::optional<int> algorithm = ask(d, pass, Convolution(y, x, w, s));
  const bool pack = !algorithm && !(x.packed() && y.packed());
  if (pack) algorithm = ask(d, pass, Convolution(packed(y, nullptr), packed(x, nullptr), w, s));
  CHECK(algorithm, what, ": cuDNN has no deterministic algorithm that fits ", kWorkspace >> 20, " MiB");
  note_vendor_choice(
      join("cuDNN ", cudnnGetVersion(), " ", what, ": algorithm ", *algorithm, pack ? ", packed" : ""));
  return d.choices[key] = {*algorithm, pack};
}

void copy(Stream& stream, Tensor to, Tensor from) {
  const size_t row = size_t(from.c) * sizeof(float);
  CUDA_CHECK(cudaMemcpy2DAsync(to.data, size_t(to.stride) * sizeof(float), from.data,
                               size_t(from.stride) * sizeof(float), row, size_t(from.pixels()),
                               cudaMemcpyDeviceToDevice, stream.native()->stream));
}

void convolve(Dnn& d, Pass pass, int algorithm, Tensor y, Tensor x, Tensor w, ConvSettings s, float beta,
              void* workspace) {
  const Convolution c(y, x, w, s);
  const float one = 1;
  if (pass == kForward)
    CUDNN_CHECK(cudnnConvolutionForward(d.handle, &one, c.x, x.data, c.w, w.data, c.conv,
                                        cudnnConvolutionFwdAlgo_t(algorithm), workspace, kWorkspace, &beta,
                                        c.y, y.data));
  else if (pass == kData)
    CUDNN_CHECK(cudnnConvolutionBackwardData(d.handle, &one, c.w, w.data, c.y, y.data, c.conv,
                                             cudnnConvolutionBwdDataAlgo_t(algorithm), workspace, kWorkspace,
                                             &beta, c.x, x.data));
  else
    CUDNN_CHECK(cudnnConvolutionBackwardFilter(d.handle, &one, c.x, x.data, c.y, y.data, c.conv,
                                               cudnnConvolutionBwdFilterAlgo_t(algorithm), workspace,
                                               kWorkspace, &beta, c.w, w.data));
}

size_t copy_bytes(Shape s) { return align_up(size_t(s.size()) * sizeof(float)); }

// One pass; x, w and y stand for the tensors or their gradients.
void run(Stream& stream, Pass pass, Tensor y, Tensor x, Tensor w, ConvSettings s, float beta, void* scratch) {
  Dnn& d = dnn(stream);
  const Choice chosen = choose(d, pass, y, x, w, s);
  if (!chosen.packed) return convolve(d, pass, chosen.algorithm, y, x, w, s, beta, scratch);
  const Tensor whole_x = packed(x, static_cast<char*>(scratch) + kWorkspace),
               whole_y = packed(y, static_cast<char*>(scratch) + kWorkspace + copy_bytes(x.shape()));
  if (pass != kData || beta != 0) copy(stream, whole_x, x);
  if (pass != kForward || beta != 0) copy(stream, whole_y, y);
  convolve(d, pass, chosen.algorithm, whole_y, whole_x, w, s, beta, scratch);
  if (pass == kForward) copy(stream, y, whole_y);
  if (pass == kData) copy(stream, x, whole_x);
}

}  // namespace

size_t conv2d_scratch_bytes(Shape y, Shape x) { return kWorkspace + copy_bytes(x) + copy_bytes(y); }

void conv2d_forward(Stream& stream, Tensor y, Tensor x, Tensor w, ConvSettings s, void* scratch) {
  run(stream, kForward, y, x, w, s, 0, scratch);
}

void conv2d_backward_data(Stream& stream, Tensor dx, Tensor dy, Tensor w, ConvSettings s, float beta,
                          void* scratch) {
  run(stream, kData, dy, dx, w, s, beta, scratch);
}

void conv2d_backward_weights(Stream& stream, Tensor dw, Tensor dy, Tensor x, ConvSettings s, float beta,
                             void* scratch) {
  run(stream, kWeights, dy, x, dw, s, beta, scratch);
}

}  // namespace lanas::cuda
