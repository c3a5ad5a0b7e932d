// onnx.h -- a trained network as an ONNX model (opset 13), in its deployed form: batch norms folded into the
// convolutions. Input "images" [N, 3, side, side], pixels in [0, 1]; they are normalised in the model. Output
// "logits" [N, classes].
#pragma once

#include <string>

#include "nas/retrain.h"

namespace lanas {

// The bytes of the model file.
std::string onnx_model(const TrainedNetwork& network);

}  // namespace lanas
