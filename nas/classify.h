// classify.h -- a trained network at work: which classes it gives to the test images, and to images from
// files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nas/retrain.h"

namespace lanas {

// counts[truth * classes + answer].
struct Confusion {
  int classes = 0;
  std::vector<int64_t> counts;
  int64_t images() const;
  double accuracy() const;         // a fraction
  double recall(int truth) const;  // of the images of a class, the fraction given to it; 0 without images
};

// On the test images: a run calls it once per network, at its end. Error where the images are not of the data
// that the network was trained on.
Confusion test_confusion(Stream& stream, TrainedNetwork& network, const ImageData& data);

// Logits [classes] of one image of bytes [side, side, 3] with the network's side.
std::vector<float> classify(Stream& stream, TrainedNetwork& network, const std::vector<uint8_t>& image);

// "ankle boot" of Fashion-MNIST's class 9; the number where a data set has no names here.
std::string class_name(const std::string& data_name, int label);

}  // namespace lanas
