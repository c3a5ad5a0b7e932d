#include "autograd/parameters.h"

#include <algorithm>

#include "kernels/core/random.cuh"

namespace lanas {
namespace {

uint64_t fnv1a(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (unsigned char c : text) hash = (hash ^ c) * 0x100000001b3u;
  return hash;
}

void draw(Tensor t, const Init& init, uint64_t seed, const std::string& name) {
  Random random(seed, fnv1a(name));
  for (int64_t i = 0; i < t.size(); ++i) {
    switch (init.kind) {
      case Init::Kind::constant:
        t.data[i] = init.scale;
        break;
      case Init::Kind::uniform:
        t.data[i] = init.scale * (2 * random.uniform() - 1);
        break;
      case Init::Kind::normal:
        t.data[i] = init.scale * random.normal();
        break;
    }
  }
}

}  // namespace

int ParameterStore::add(const std::string& name, Shape shape, Init init) {
  if (auto found = index_.find(name); found != index_.end()) {
    const Entry& entry = entries_[found->second];
    CHECK(entry.shape == shape, "parameter ", name, ": has shape ", entry.shape, ", asked for as ", shape);
    return found->second;
  }
  CHECK(!allocated_, "parameter ", name, ": not in this model, whose parameters are already allocated");
  entries_.push_back({name, shape, init, floats_});
  floats_ += int64_t(align_up(shape.size() * sizeof(float)) / sizeof(float));
  return index_[name] = int(entries_.size()) - 1;
}

void ParameterStore::allocate(uint64_t seed) {
  CHECK(!allocated_, "ParameterStore::allocate: called twice");
  allocated_ = true;
  values_ = Memory(device_, floats_ * sizeof(float));
  grads_ = Memory(device_, floats_ * sizeof(float));
  std::vector<float> start(size_t(floats_), 0.f);
  upload(device_, grads_.data(), start.data(), start.size() * sizeof(float));
  for (const Entry& entry : entries_)
    draw({start.data() + entry.offset, entry.shape}, entry.init, seed, entry.name);
  upload(device_, values_.data(), start.data(), start.size() * sizeof(float));
}

std::vector<float> ParameterStore::read(const std::string& name) const {
  const int index = find(name);
  if (index < 0) return {};
  std::vector<float> copy(size_t(entries_[size_t(index)].shape.size()));
  download(device_, copy.data(), value(index).data, copy.size() * sizeof(float));
  return copy;
}

int ParameterStore::find(const std::string& name) const {
  auto found = index_.find(name);
  return found == index_.end() ? -1 : found->second;
}

int64_t ParameterStore::count(const std::string& prefix) const {
  int64_t total = 0;
  for (const Entry& entry : entries_)
    if (entry.name.starts_with(prefix)) total += entry.shape.size();
  return total;
}

}  // namespace lanas
