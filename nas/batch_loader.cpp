#include "nas/batch_loader.h"

#include <algorithm>

namespace lanas {

BatchLoader::BatchLoader(Stream& stream, const ImageData& data, bool test) : side_(data.side) {
  const std::vector<uint8_t>& images = test ? data.test_images : data.train_images;
  const std::vector<uint8_t>& labels = test ? data.test_labels : data.train_labels;
  labels_.assign(labels.begin(), labels.end());
  images_ = Memory(stream.device(), images.size());
  upload(stream, images_.data(), images.data(), images.size());
  draw_ = Memory(stream.device(), sizeof(uint64_t));
  for (int c = 0; c < 3; ++c) {
    plain_.mean[c] = data.mean[c];
    plain_.std[c] = data.stddev[c];
  }
}

void BatchLoader::load(Stream& stream, Tensor images, Tensor labels, std::span<const int> indices,
                       const AugmentConfig& augment, uint64_t draw) {
  const size_t batch = size_t(images.n);
  CHECK(!indices.empty() && indices.size() <= batch && images.h == side_ && images.w == side_,
        "BatchLoader: ", indices.size(), " images of side ", side_, " do not fit ", images.shape());
  indices_now_.assign(indices.begin(), indices.end());
  indices_now_.resize(batch, indices.back());
  labels_now_.clear();
  for (int i : indices_now_) {
    CHECK(i >= 0 && i < count(), "BatchLoader: image ", i, " of ", count());
    labels_now_.push_back(labels_[size_t(i)]);
  }
  if (indices_.bytes() < batch * sizeof(int)) indices_ = Memory(stream.device(), batch * sizeof(int));
  upload(stream, indices_.data(), indices_now_.data(), batch * sizeof(int));
  upload(stream, labels.data, labels_now_.data(), batch * sizeof(int));
  upload(stream, draw_.data(), &draw, sizeof draw);
  augment_forward(stream, images, static_cast<const uint8_t*>(images_.data()),
                  static_cast<const int*>(indices_.data()), augment,
                  static_cast<const uint64_t*>(draw_.data()));
}

}  // namespace lanas
