#include "bench/loading.h"

#include <numeric>

#include "kernels/core/random.cuh"
#include "kernels/ops/shuffle.h"

namespace lanas::bench {
namespace {

Memory on_device(Stream& stream, const void* data, size_t bytes) {
  Memory memory(stream.device(), bytes);
  upload(stream, memory.data(), data, bytes);
  return memory;
}

template <class T>
Memory on_device(Stream& stream, const std::vector<T>& values) {
  return on_device(stream, values.data(), values.size() * sizeof(T));
}

template <class T>
T* pointer(const Memory& memory) {
  return static_cast<T*>(memory.data());
}

}  // namespace

Loading::Loading(Stream& stream, int count, int side, int batch, uint64_t seed)
    : stream_(stream), count_(count), side_(side), batch_(batch) {
  CHECK(count >= batch && batch >= 1 && side >= 1, "loading: a batch of ", batch, " of ", count,
        " images of side ", side);
  Random random(seed);
  std::vector<uint8_t> pixels(size_t(count) * size_t(side) * size_t(side) * 3);
  for (uint8_t& v : pixels) v = uint8_t(random.below(256));
  std::vector<int> indices(static_cast<size_t>(count)), classes(indices.size());
  std::iota(indices.begin(), indices.end(), 0);
  for (int& v : classes) v = int(random.below(10));
  images_ = on_device(stream, pixels);
  labels_ = on_device(stream, classes);
  indices_ = on_device(stream, indices);
  draw_ = on_device(stream, std::vector<uint64_t>{1});
  order_ = Memory(stream.device(), indices.size() * sizeof(int));
  scratch_ = Memory(stream.device(), shuffle_scratch_bytes(stream, count));
  batch_images_ = Memory(stream.device(), size_t(batch) * size_t(side) * size_t(side) * 3 * sizeof(float));
  batch_labels_ = Memory(stream.device(), size_t(batch) * sizeof(int));
}

void Loading::order() {
  shuffle(stream_, pointer<int>(order_), pointer<int>(indices_), count_, 1, 1, scratch_.data());
}

void Loading::labels() {
  gather_labels(stream_, pointer<int>(batch_labels_), pointer<int>(labels_), count_, pointer<int>(order_),
                batch_);
}

void Loading::images() {
  augment_forward(stream_, {batch_images_.floats(), {batch_, side_, side_, 3}}, pointer<uint8_t>(images_),
                  pointer<int>(order_), augment_, pointer<uint64_t>(draw_));
}

Work Loading::work() {
  const double values = double(batch_) * side_ * side_ * 3;
  auto item = [](const char* name, std::string shape, OpCost cost, std::function<void()> start) {
    return Item{name, "loading", std::move(shape), cost, std::move(start), {}, {}, {}};
  };
  Work work;
  work.items = {item("shuffle", join(count_, " indices"),
                     OpCost{.read = count_ * 4.0, .written = count_ * 4.0}, [this] { order(); }),
                item("gather_labels", join(batch_, " labels"),
                     OpCost{.read = batch_ * 8.0, .written = batch_ * 4.0}, [this] { labels(); }),
                item("augment", join(Shape{batch_, side_, side_, 3}),
                     OpCost{.read = values, .written = 4 * values}, [this] { images(); })};
  work.begin = [this] { stream_.activate(); };
  work.whole = [this] {
    stream_.activate();
    order();
    labels();
    images();
  };
  return work;
}

}  // namespace lanas::bench
