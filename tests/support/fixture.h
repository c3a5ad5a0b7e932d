// fixture.h -- reading the reference values in tests/fixtures and comparing with them by ||a - b|| / ||b||
// per tensor.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "autograd/checkpoint.h"

namespace lanas::test {

class Fixture {
 public:
  explicit Fixture(const std::string& name)
      : path_(std::string(LANAS_SOURCE_DIR) + "/tests/fixtures/" + name + ".safetensors"),
        file_(read_tensors(path_)) {}

  bool has(const std::string& name) const { return file_.tensors.count(name) > 0; }
  const TensorFile::Entry& entry(const std::string& name) const {
    auto found = file_.tensors.find(name);
    CHECK(found != file_.tensors.end(), path_, ": has no ", name);
    return found->second;
  }
  float scalar(const std::string& name) const { return entry(name).values.at(0); }
  const std::map<std::string, TensorFile::Entry>& tensors() const { return file_.tensors; }

  void copy_to(const std::string& name, Tensor t) const { file_.get(name, t, path_); }
  // Labels are floats in the file, int32 on a tape.
  void copy_labels_to(const std::string& name, Tensor t) const {
    const TensorFile::Entry& labels = entry(name);
    auto* to = reinterpret_cast<int*>(t.data);
    for (size_t i = 0; i < labels.values.size(); ++i) to[i] = int(labels.values[i]);
  }
  // Every entry of the store that the file holds under prefix + name; returns how many.
  int copy_to(const std::string& prefix, const ParameterStore& store) const {
    int copied = 0;
    for (size_t i = 0; i < store.entries().size(); ++i) {
      const std::string name = prefix + store.entries()[i].name;
      if (!has(name)) continue;
      copy_to(name, store.value(int(i)));
      ++copied;
    }
    return copied;
  }

  // ||t - fixture|| / ||fixture||; a tensor that is (nearly) zero in the fixture is compared by its size
  // alone.
  double error(const std::string& name, Tensor t) const {
    const TensorFile::Entry& expected = entry(name);
    CHECK(expected.shape == t.shape(), name, ": fixture ", expected.shape, ", found ", t.shape());
    double difference = 0, norm = 0;
    for (int64_t p = 0; p < t.pixels(); ++p) {
      for (int c = 0; c < t.c; ++c) {
        const double a = t.pixel(p)[c], b = expected.values[size_t(p * t.c + c)];
        difference += (a - b) * (a - b);
        norm += b * b;
      }
    }
    return std::sqrt(difference) / std::max(std::sqrt(norm), 1e-6);
  }

 private:
  std::string path_;
  TensorFile file_;
};

inline void expect_match(const Fixture& fixture, const std::string& name, Tensor t, double tolerance) {
  EXPECT_LE(fixture.error(name, t), tolerance) << name;
}

}  // namespace lanas::test
