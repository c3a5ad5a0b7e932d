// checkpoint.h -- named tensors in a safetensors file (8-byte little-endian header length, JSON header, raw
// data), the format every framework reads. A file is replaced as a whole (written beside, flushed to disk,
// renamed), so a kill at any moment leaves the old or the new one. float32 only; shapes of up to four
// dimensions.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "autograd/parameters.h"

namespace lanas {

struct TensorFile {
  struct Entry {
    Shape shape;
    std::vector<float> values;
  };
  std::map<std::string, Entry> tensors;
  std::map<std::string, std::string> metadata;  // safetensors' "__metadata__"

  // Copies a view into the file's entry `name`.
  void put(const std::string& name, Tensor t, Device device = Device::cpu);
  // Copies entry `name` into t; throws Error naming `path` if it is absent or of another shape.
  void get(const std::string& name, Tensor t, const std::string& path, Device device = Device::cpu) const;
  // The same for every entry of a store, under prefix + name.
  void put(const std::string& prefix, const ParameterStore& store);
  void get(const std::string& prefix, const ParameterStore& store, const std::string& path) const;
  // Flat slabs such as optimiser state.
  void put(const std::string& name, const std::vector<float>& values);
  void get(const std::string& name, std::vector<float>& values, const std::string& path) const;
};

// Throw Error with one line that names the file: unreadable, cut, not safetensors, not float32, unwritable.
TensorFile read_tensors(const std::string& path);
void write_tensors(const std::string& path, const TensorFile& file);

// A file's bytes; Error naming it where it cannot be read or is a folder.
std::string read_file(const std::string& path);

// Replaces the file at `path` by `content`, atomically as above; of a link its target. A device or a pipe is
// written to instead.
void replace_file(const std::string& path, const std::string& content);

}  // namespace lanas
