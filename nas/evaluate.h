// evaluate.h -- accuracy and loss of a network over a set of images, by a forward-only plan.
#pragma once

#include <span>

#include "autograd/plan.h"
#include "nas/batch_loader.h"

namespace lanas {

struct Accuracy {
  double accuracy = 0;  // fraction of images classified right
  double loss = 0;      // mean cross entropy of the logits: no smoothing, no auxiliary head
  int64_t images = 0;
};

// What a network lends to evaluation. `plan` gives logits and does not train.
struct Evaluated {
  Plan& plan;
  const Tape& tape;
  Var images, labels, logits;
};

Accuracy evaluate(Stream& stream, Evaluated network, BatchLoader& loader, std::span<const int> indices);

}  // namespace lanas
