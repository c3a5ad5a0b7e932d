#include "nas/evaluate.h"

#include <algorithm>

#include "kernels/ops/cross_entropy.h"

namespace lanas {

Accuracy evaluate(Stream& stream, Evaluated network, BatchLoader& loader, std::span<const int> indices) {
  CHECK(!indices.empty(), "evaluate: no images");
  const Tensor images = network.tape.data(network.images), labels = network.tape.data(network.labels);
  const size_t batch = size_t(images.n);
  Memory correct_memory(stream.device(), sizeof(int));
  int64_t correct = 0, whole_batches = 0;
  double loss = 0;
  for (size_t first = 0; first < indices.size(); first += batch) {
    const size_t count = std::min(batch, indices.size() - first);
    loader.load(stream, images, labels, indices.subspan(first, count), loader.plain(), 0);
    network.plan.forward(stream);
    auto* device_correct = static_cast<int*>(correct_memory.data());
    count_correct(stream, device_correct, network.plan.value(network.logits),
                  reinterpret_cast<const int*>(labels.data), int(count));
    int batch_correct = 0;
    float batch_loss = 0;
    download(stream, &batch_correct, device_correct, sizeof batch_correct);
    download(stream, &batch_loss, network.plan.value(network.loss).data, sizeof batch_loss);
    correct += batch_correct;
    if (count == batch) {
      loss += batch_loss;
      ++whole_batches;
    }
  }
  return {double(correct) / double(indices.size()), whole_batches ? loss / double(whole_batches) : 0,
          int64_t(indices.size())};
}

}  // namespace lanas
