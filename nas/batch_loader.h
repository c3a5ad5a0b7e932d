// batch_loader.h -- images resident on the device, and batches of them: augmented for training, plain for
// evaluation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/augment.h"
#include "nas/image_data.h"

namespace lanas {

class BatchLoader {
 public:
  // The training or the test images of `data`, copied to the stream's device.
  BatchLoader(Stream& stream, const ImageData& data, bool test);

  int count() const { return count_; }
  // Fills images [batch, side, side, 3] and labels (int32, batch of them) with the images of `batch` indices
  // in the device's memory; `draw` numbers the batch for the random crops and flips.
  void load(Stream& stream, Tensor images, Tensor labels, const int* indices, const AugmentConfig& augment,
            uint64_t draw);
  // The same with indices of the host. Fewer indices than the batch: the last one is repeated.
  void load(Stream& stream, Tensor images, Tensor labels, std::span<const int> indices,
            const AugmentConfig& augment, uint64_t draw);
  // Normalisation only.
  AugmentConfig plain() const { return plain_; }

 private:
  std::vector<int> indices_now_;
  AugmentConfig plain_;
  int side_, count_;
  Memory images_, labels_, indices_, draw_;
};

}  // namespace lanas
