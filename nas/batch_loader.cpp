#include "nas/batch_loader.h"

namespace lanas {

BatchLoader::BatchLoader(Stream& stream, const ImageData& data, bool test)
    : side_(data.side), count_(test ? data.test_count() : data.train_count()) {
  const std::vector<uint8_t>& images = test ? data.test_images : data.train_images;
  const std::vector<uint8_t>& labels = test ? data.test_labels : data.train_labels;
  images_ = Memory(stream.device(), images.size());
  upload(stream, images_.data(), images.data(), images.size());
  const std::vector<int> numbers(labels.begin(), labels.end());
  const size_t bytes = numbers.size() * sizeof(int);  // not labels_.bytes(), which is rounded up
  labels_ = Memory(stream.device(), bytes);
  upload(stream, labels_.data(), numbers.data(), bytes);
  draw_ = Memory(stream.device(), sizeof(uint64_t));
  for (int c = 0; c < 3; ++c) {
    plain_.mean[c] = data.mean[c];
    plain_.std[c] = data.stddev[c];
  }
}

void BatchLoader::load(Stream& stream, Tensor images, Tensor labels, const int* indices,
                       const AugmentConfig& augment, uint64_t draw) {
  CHECK(images.h == side_ && images.w == side_, "BatchLoader: images of side ", side_, " do not fit ",
        images.shape());
  gather_labels(stream, reinterpret_cast<int*>(labels.data), static_cast<const int*>(labels_.data()), count_,
                indices, images.n);
  upload(stream, draw_.data(), &draw, sizeof draw);
  augment_forward(stream, images, static_cast<const uint8_t*>(images_.data()), indices, augment,
                  static_cast<const uint64_t*>(draw_.data()));
}

void BatchLoader::load(Stream& stream, Tensor images, Tensor labels, std::span<const int> indices,
                       const AugmentConfig& augment, uint64_t draw) {
  const size_t batch = size_t(images.n);
  CHECK(!indices.empty() && indices.size() <= batch, "BatchLoader: ", indices.size(), " images do not fit ",
        images.shape());
  for (int i : indices) CHECK(i >= 0 && i < count_, "BatchLoader: image ", i, " of ", count_);
  indices_now_.assign(indices.begin(), indices.end());
  indices_now_.resize(batch, indices.back());
  if (indices_.bytes() < batch * sizeof(int)) indices_ = Memory(stream.device(), batch * sizeof(int));
  upload(stream, indices_.data(), indices_now_.data(), batch * sizeof(int));
  load(stream, images, labels, static_cast<const int*>(indices_.data()), augment, draw);
}

}  // namespace lanas
