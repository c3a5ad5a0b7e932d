#include "nas/evaluate.h"

#include <algorithm>
#include <cmath>

#include "kernels/ops/cross_entropy.h"

namespace lanas {
namespace {

// -log softmax(logits)[label], the sum of all images.
double cross_entropy_sum(const std::vector<float>& logits, const std::vector<int>& labels) {
  const size_t classes = logits.size() / labels.size();
  double sum = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    const float* row = logits.data() + i * classes;
    const double largest = *std::max_element(row, row + classes);
    double total = 0;
    for (size_t c = 0; c < classes; ++c) total += std::exp(row[c] - largest);
    sum += largest + std::log(total) - row[labels[i]];
  }
  return sum;
}

}  // namespace

Accuracy evaluate(Stream& stream, Evaluated network, BatchLoader& loader, std::span<const int> indices) {
  CHECK(!indices.empty(), "evaluate: no images");
  const Tensor images = network.tape.data(network.images), labels = network.tape.data(network.labels);
  const size_t batch = size_t(images.n);
  Memory correct_memory(stream.device(), sizeof(int));
  int64_t correct = 0;
  double loss = 0;
  for (size_t first = 0; first < indices.size(); first += batch) {
    const size_t count = std::min(batch, indices.size() - first);
    loader.load(stream, images, labels, indices.subspan(first, count), loader.plain(), 0);
    network.plan.forward(stream);
    auto* device_correct = static_cast<int*>(correct_memory.data());
    count_correct(stream, device_correct, network.plan.value(network.logits),
                  reinterpret_cast<const int*>(labels.data), int(count));
    int batch_correct = 0;
    download(stream, &batch_correct, device_correct, sizeof batch_correct);
    correct += batch_correct;
    const Tensor logits = network.plan.value(network.logits);
    std::vector<float> rows(count * size_t(logits.c));
    std::vector<int> truth(count);
    download(stream, rows.data(), logits.data, rows.size() * sizeof(float));
    download(stream, truth.data(), labels.data, truth.size() * sizeof(int));
    loss += cross_entropy_sum(rows, truth);
  }
  const double images_seen = double(indices.size());
  return {double(correct) / images_seen, loss / images_seen, int64_t(indices.size())};
}

}  // namespace lanas
