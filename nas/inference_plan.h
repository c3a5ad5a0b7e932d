// inference_plan.h -- forward passes of a derived network in its deployed form (InferenceNetwork) over a
// batch. On the cpu a batch of at least as many images as there are threads goes through in chunks of a few,
// so that activations stay in the caches, and each thread takes whole chunks through the whole network in
// memory of its own; weights are shared. Smaller batches, and all of them on cuda, go through in one piece,
// with the threads inside of every op. The answer for an image is the same bits in each of these ways, but
// for the last rounding of the final layer where one or two images go alone, and of the stem in one piece on
// several threads: there oneDNN adds up in another order.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "autograd/plan.h"
#include "nas/network.h"

namespace lanas {

// Memory for one inference plan at a time, which grows to the largest.
using InferenceMemory = std::vector<std::shared_ptr<Workspace>>;

class InferencePlan {
 public:
  // Images that a thread takes through the network at once, at most: activations stay between L2 and L3, and
  // the weights are laid out for the vectors once for all of them (docs/what_was_tried.md).
  static constexpr int kChunk = 2;

  // Adds the network's weights to `folded`, as InferenceNetwork does. stream: whose device and threads.
  // memory: none: its own.
  InferencePlan(const NetworkConfig& config, const Genotype& genotype, ParameterStore& folded,
                const Stream& stream, InferenceMemory* memory = nullptr);

  // Fills `folded`, once allocated, from a trained Network's stores.
  void fold(const ParameterStore& weights, const ParameterStore& buffers);

  Tensor images() const;  // [batch, image, image, 3], for the caller to fill
  Tensor logits();        // [batch,1,1,classes], as the last forward left them
  // between, where given, is called after every op, unless the batch goes through in chunks.
  void forward(Stream& stream, const std::function<void()>& between = {});

  int chunk() const { return chunk_; }                         // images of one pass
  int workers() const { return int(parts_.size()); }           // threads that each take chunks
  int64_t macs() const { return parts_.front().plan.macs(); }  // of one image
  size_t bytes() const;  // activations of all workers and images and logits of the batch

 private:
  struct Part {  // what a worker runs
    Part(const NetworkConfig& config, const Genotype& genotype, ParameterStore& folded,
         std::shared_ptr<Workspace> workspace);
    InferenceNetwork network;
    Plan plan;
  };

  bool whole() const { return chunk_ == batch_; }
  void run_chunk(Part& part, Stream& stream, int index);

  int batch_, chunk_;
  InferenceMemory own_memory_;
  std::deque<Part> parts_;  // a plan refers to its network's tape: they stay where they are
  Memory images_, logits_;  // of the batch, where it does not go through in one piece
};

}  // namespace lanas
