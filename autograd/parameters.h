// parameters.h -- the numbers a model owns: named tensors in one contiguous slab of values and one of
// gradients, so that optimisers, clipping and the finite differences of second-order DARTS are single passes
// over a slab.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// How a parameter starts. PyTorch's default for convolutions and linear layers is uniform(1 / sqrt(fan_in)).
struct Init {
  enum class Kind { constant, uniform, normal } kind = Kind::constant;
  float scale = 0;  // the constant, the bound of a symmetric uniform, or the standard deviation

  static Init constant(float value) { return {Kind::constant, value}; }
  static Init uniform(float bound) { return {Kind::uniform, bound}; }
  static Init normal(float std) { return {Kind::normal, std}; }
};

class ParameterStore {
 public:
  struct Entry {
    std::string name;
    Shape shape;
    Init init;
    int64_t offset = 0;  // floats from the start of the slab
  };

  explicit ParameterStore(Device device = Device::cpu) : device_(device) {}

  // The index of `name`, which is added if new. An existing name must have the same shape; nothing can be
  // added after allocate(), so that addresses never move.
  int add(const std::string& name, Shape shape, Init init);
  // Reserves both slabs and draws the starting values: each a pure function of (seed, name), whatever the
  // order.
  void allocate(uint64_t seed);
  bool allocated() const { return allocated_; }

  int find(const std::string& name) const;  // -1: absent
  const std::vector<Entry>& entries() const { return entries_; }
  Tensor value(int index) const { return {values_.floats() + entries_[index].offset, entries_[index].shape}; }
  // A copy on the host, empty if there is no such parameter; waits for the device.
  std::vector<float> read(const std::string& name) const;
  Tensor grad(int index) const { return {grads_.floats() + entries_[index].offset, entries_[index].shape}; }

  int64_t slab_floats() const { return floats_; }  // with the padding (zeros) between entries
  float* values() const { return values_.floats(); }
  float* grads() const { return grads_.floats(); }
  Device device() const { return device_; }
  // Numbers in the entries whose name starts with `prefix`.
  int64_t count(const std::string& prefix = "") const;

 private:
  Device device_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, int> index_;
  int64_t floats_ = 0;
  bool allocated_ = false;
  Memory values_, grads_;
};

}  // namespace lanas
