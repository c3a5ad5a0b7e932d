#include "nas/classify.h"

#include <algorithm>
#include <numeric>

#include "autograd/plan.h"
#include "nas/batch_loader.h"
#include "nas/interrupt.h"

namespace lanas {
namespace {

// The network in its evaluation form, with a plan that gives logits.
struct Evaluation {
  Evaluation(TrainedNetwork& trained, int batch)
      : network(plain(trained.config, batch), trained.genotype, trained.weights, trained.buffers),
        plan(network.tape, {.outputs = {network.logits}},
             std::make_shared<Workspace>(trained.weights.device())) {}

  static NetworkConfig plain(NetworkConfig config, int batch) {
    config.auxiliary = config.drop_path = false;
    config.batch = batch;
    return config;
  }

  std::vector<float> logits(Stream& stream) {
    plan.forward(stream);
    const Tensor t = plan.value(network.logits);
    std::vector<float> values(size_t(t.size()));
    download(stream, values.data(), t.data, values.size() * sizeof(float));
    return values;
  }

  Network network;
  Plan plan;
};

}  // namespace

int64_t Confusion::images() const { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }

double Confusion::accuracy() const {
  int64_t right = 0;
  for (int c = 0; c < classes; ++c) right += counts[size_t(c * classes + c)];
  return double(right) / double(images());
}

double Confusion::recall(int truth) const {
  const auto row = counts.begin() + std::ptrdiff_t(truth) * classes;
  const int64_t all = std::accumulate(row, row + classes, int64_t{0});
  return all > 0 ? double(row[truth]) / double(all) : 0;
}

Confusion test_confusion(Stream& stream, TrainedNetwork& trained, const ImageData& data) {
  const auto text = [](const std::string& name, int side, int classes) {
    return join(name, " (", side, " x ", side, ", ", classes, " classes)");
  };
  const std::string expected = text(trained.data_name, trained.config.image, trained.config.classes),
                    found = text(data.name, data.side, data.classes);
  CHECK(found == expected, "test_confusion: the network was trained on ", expected, ", the images are ",
        found);
  Evaluation evaluation(trained, trained.config.batch);
  Network& network = evaluation.network;
  BatchLoader loader(stream, data, true);
  Confusion confusion{data.classes, std::vector<int64_t>(size_t(data.classes) * size_t(data.classes))};
  std::vector<int> indices;
  for (int first = 0; first < data.test_count(); first += trained.config.batch) {
    if (stop_requested()) throw Interrupted("stopped");
    indices.resize(size_t(std::min(trained.config.batch, data.test_count() - first)));
    std::iota(indices.begin(), indices.end(), first);
    loader.load(stream, network.tape.data(network.images), network.tape.data(network.labels), indices,
                loader.plain(), 0);
    const std::vector<float> logits = evaluation.logits(stream);
    for (size_t i = 0; i < indices.size(); ++i) {
      const auto row = logits.begin() + std::ptrdiff_t(i) * data.classes;
      const auto answer = std::max_element(row, row + data.classes) - row;  // the first of equals
      const int truth = data.test_labels[size_t(indices[i])];
      ++confusion.counts[size_t(truth) * size_t(data.classes) + size_t(answer)];
    }
  }
  return confusion;
}

std::vector<float> classify(Stream& stream, TrainedNetwork& trained, const std::vector<uint8_t>& image) {
  const int side = trained.config.image;
  CHECK(image.size() == size_t(side) * size_t(side) * 3, "classify: the image has ", image.size(),
        " bytes, expected ", side, " x ", side, " x 3");
  Evaluation evaluation(trained, 1);
  std::vector<float> pixels(image.size());
  for (size_t i = 0; i < image.size(); ++i)
    pixels[i] = (float(image[i]) / 255.f - trained.mean[i % 3]) / trained.stddev[i % 3];
  upload(stream, evaluation.network.tape.data(evaluation.network.images).data, pixels.data(),
         pixels.size() * sizeof(float));
  return evaluation.logits(stream);
}

std::string class_name(const std::string& data_name, int label) {
  static const char* const kFashion[] = {"T-shirt", "trouser", "pullover", "dress", "coat",
                                         "sandal",  "shirt",   "sneaker",  "bag",   "ankle boot"};
  static const char* const kCifar[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                       "dog",      "frog",       "horse", "ship", "truck"};
  if (label >= 0 && label < 10 && data_name == "fashion-mnist") return kFashion[label];
  if (label >= 0 && label < 10 && data_name == "cifar-10") return kCifar[label];
  return std::to_string(label);
}

}  // namespace lanas
