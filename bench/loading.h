// loading.h -- what prepares an epoch's first training batch on the device, for measuring: the order of the
// images (shuffle), their labels (gather) and the batch itself (crop, flip, normalise, cutout) from resident
// 8-bit images, as the search and the retraining do it (nas/batch_loader, nas/mini_batches).
#pragma once

#include "bench/profile.h"
#include "kernels/ops/augment.h"

namespace lanas::bench {

class Loading {
 public:
  // `count` random images of side `side`; a batch of them in single precision.
  Loading(Stream& stream, int count, int side, int batch, uint64_t seed);

  Work work();  // three items; this must outlive it

 private:
  void order();
  void labels();
  void images();

  Stream& stream_;
  int count_, side_, batch_;
  Memory images_, labels_, indices_, order_, scratch_, draw_, batch_images_, batch_labels_;
  AugmentConfig augment_{.padding = 4, .flip = true, .cutout = 16};
};

}  // namespace lanas::bench
