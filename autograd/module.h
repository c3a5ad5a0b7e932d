// module.h -- layers with parameters: names, shapes and starting values of weights, and the running moments
// of batch norms, for anything that builds a network on a tape. Names are paths such as
// cells.3.edges.5.dil_conv_3x3.pointwise.
#pragma once

#include <string>

#include "autograd/ops.h"

namespace lanas {

// Where a network is built: its tape, its weights, its buffers (running moments).
struct Builder {
  Tape& tape;
  ParameterStore& weights;
  ParameterStore& buffers;

  // Weights start as PyTorch's defaults do: uniform in +-1/sqrt(fan_in).
  Var conv_weight(const std::string& name, int cout, int kernel, int cin);
  Var depthwise_weight(const std::string& name, int kernel, int c);
  Var linear_weight(const std::string& name, int out, int in);
  Var linear_bias(const std::string& name, int out, int in);
  // name.running_mean (0) and name.running_var (1); name.gamma (1) and name.beta (0).
  RunningMoments running(const std::string& name, int c);
  Norm affine(const std::string& name, int c);  // a Norm with its affine part only
};

// Batch norm of x, with affine part, materialised.
Var batch_norm(Builder& b, const std::string& name, Var x, Var out = {});

// [ReLU, depthwise kxk, pointwise, BN]; `names` are those of depthwise, pointwise and batch norm. kernel 1:
// without depthwise part (ReLUConvBN). The norm is left to the readers; affine adds gamma and beta to it.
struct UnitNames {
  std::string depthwise, pointwise, batch_norm;
};
struct UnitGeometry {
  int cout, kernel = 1, stride = 1, dilation = 1;
};
Normalised conv_unit(Builder& b, const UnitNames& names, Normalised x, UnitGeometry g, bool affine);
// Its parameters alone, without affine part, of an input of cin channels.
SeparableUnit unit_parameters(Builder& b, const UnitNames& names, int cin, UnitGeometry g);

// FactorizedReduce: ReLU, two 1x1 stride-2 convolutions to cout/2 channels each (the second reads x shifted
// by one row and one column), concatenated, BN. Weights name.conv1, name.conv2, batch norm name.bn.
Normalised factorized_reduce(Builder& b, const std::string& name, Var x, int cout, bool affine);
// Its two units, still to be recorded, which write the result; without affine part.
struct FactorizedReduce {
  std::vector<SeparableUnit> units;
  Normalised y;
};
FactorizedReduce factorized_units(Builder& b, const std::string& name, Var x, int cout);

// Global average pooling and a linear layer: name.weight, name.bias. Returns [n,1,1,classes].
Var classifier(Builder& b, const std::string& name, Var x, int classes);

}  // namespace lanas
