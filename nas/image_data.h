// image_data.h -- the images a network is searched and trained on: Fashion-MNIST or CIFAR-10 from a folder.
// Images are bytes, [count, side, side, 3]. Fashion-MNIST (IDX files, gzipped or not) is padded with zeros
// from 28 to 32 and its grey replicated to three channels; its mean and deviation are those of the padded
// training images. CIFAR-10 is read from its binary version and uses the usual constants.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/device.h"

namespace lanas {

constexpr const char* kDefaultDataFolder = "/usr/share/datasets/fashion-mnist";

struct ImageData {
  std::string name;  // fashion-mnist, cifar-10, or idx-CHECKSUM of other IDX files
  int side = 0, classes = 0;
  std::vector<uint8_t> train_images, train_labels, test_images, test_labels;
  float mean[3] = {}, stddev[3] = {};  // per channel, of pixels scaled to [0, 1]
  uint32_t checksum = 0;  // CRC-32 of training images and labels: which set a checkpoint belongs to

  int train_count() const { return int(train_labels.size()); }
  int test_count() const { return int(test_labels.size()); }
  size_t image_bytes() const { return size_t(side) * size_t(side) * 3; }
  // The [side, side, 3] bytes of one image.
  const uint8_t* train_image(int index) const { return train_images.data() + size_t(index) * image_bytes(); }
  const uint8_t* test_image(int index) const { return test_images.data() + size_t(index) * image_bytes(); }
};

// The kind is told by the files: train-images-idx3-ubyte[.gz] and its three companions, or data_batch_1.bin
// .. data_batch_5.bin and test_batch.bin, in `folder` or in its cifar-10-batches-bin. Counts come from the
// files. Missing, cut, oversize or damaged files throw a one-line Error with the file and what was expected.
ImageData load_image_data(const std::string& folder = kDefaultDataFolder);

// `count` of the numbers 0 .. total-1 in random order (0: all), cut into parts of the given fractions, for
// instance {0.5, 0.5} for weights and alpha: disjoint, a pure function of the arguments. The fractions are
// positive and sum to at most 1. For every count, the chosen numbers are the first of one and the same order.
std::vector<std::vector<int>> split(uint64_t seed, int total, int count,
                                    const std::vector<double>& fractions);

// Batches of equal size over a set of image indices; what is left of an epoch beyond whole batches is
// dropped. Every order is a pure function of (seed, epoch), so that a resumed training continues the same
// sequence.
class MiniBatches {
 public:
  MiniBatches(Stream& stream, std::vector<int> indices, int batch, uint64_t seed);

  int batch() const { return batch_; }
  int per_epoch() const { return int(indices_.size()) / batch_; }
  // Both: the indices of one batch, in the memory of the stream's device; valid until the next call.
  // step: 0 .. per_epoch() - 1. An epoch's order is made on the device (kernels/ops/shuffle).
  const int* epoch_batch(Stream& stream, int epoch, int step);
  // A fresh random batch without repetition, a pure function of (seed, draw).
  const int* random_batch(Stream& stream, uint64_t draw);

 private:
  std::vector<int> indices_, drawn_;
  Memory given_, order_, random_, scratch_;  // on the device: indices_, an epoch's order, a random batch
  int batch_, epoch_ = -1;
  uint64_t seed_;
};

}  // namespace lanas
