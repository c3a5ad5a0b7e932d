#include "autograd/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

namespace lanas {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");
using Json = nlohmann::json;

Shape to_shape(const Json& dims, const std::string& where) {
  CHECK(dims.is_array() && dims.size() <= 4, where, ": expected a shape of at most 4 dimensions");
  int d[4] = {1, 1, 1, 1};
  int64_t size = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    CHECK(dims[i].is_number_unsigned() && dims[i].get<uint64_t>() <= std::numeric_limits<int>::max(), where,
          ": expected dimensions that are whole numbers, found ", dims.dump());
    const auto extent = dims[i].get<int64_t>();
    CHECK(extent == 0 || size <= std::numeric_limits<int64_t>::max() / 8 / extent, where, ": shape ",
          dims.dump(), " is too large");
    size *= extent;
    d[4 - dims.size() + i] = int(extent);
  }
  return {d[0], d[1], d[2], d[3]};
}

TensorFile::Entry read_entry(const Json& value, const std::string& data, const std::string& where) {
  CHECK(value.is_object() && value.contains("dtype") && value.contains("shape") &&
            value.contains("data_offsets"),
        where, ": expected dtype, shape and data_offsets");
  CHECK(value["dtype"] == "F32", where, ": expected dtype F32, found ", value["dtype"].dump());
  const Json& offsets = value["data_offsets"];
  CHECK(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
            offsets[1].is_number_unsigned(),
        where, ": expected two data_offsets");
  TensorFile::Entry entry;
  entry.shape = to_shape(value["shape"], where);
  const uint64_t begin = offsets[0], end = offsets[1];
  CHECK(begin <= end && end <= data.size() && end - begin == uint64_t(entry.shape.size()) * sizeof(float),
        where, ": data_offsets [", begin, ",", end, ") do not hold shape ", entry.shape, " within ",
        data.size(), " bytes");
  entry.values.resize(entry.shape.size());
  if (begin < end) std::memcpy(entry.values.data(), data.data() + begin, end - begin);
  return entry;
}

}  // namespace

void TensorFile::put(const std::string& name, Tensor t, Device device) {
  CHECK(device == Device::cpu || t.packed(), name, ": a strided tensor on ", device_name(device));
  Entry& entry = tensors[name];
  entry.shape = t.shape();
  entry.values.resize(t.size());
  if (t.packed()) return download(device, entry.values.data(), t.data, size_t(t.size()) * sizeof(float));
  for (int64_t p = 0; p < t.pixels(); ++p) std::copy_n(t.pixel(p), t.c, entry.values.data() + p * t.c);
}

void TensorFile::get(const std::string& name, Tensor t, const std::string& path, Device device) const {
  CHECK(device == Device::cpu || t.packed(), name, ": a strided tensor on ", device_name(device));
  auto found = tensors.find(name);
  CHECK(found != tensors.end(), path, ": has no tensor '", name,
        "': a file of another network or of another kind");
  const Entry& entry = found->second;
  CHECK(entry.shape == t.shape(), path, ": tensor '", name, "' has shape ", entry.shape, ", expected ",
        t.shape());
  if (t.packed()) return upload(device, t.data, entry.values.data(), size_t(t.size()) * sizeof(float));
  for (int64_t p = 0; p < t.pixels(); ++p) std::copy_n(entry.values.data() + p * t.c, t.c, t.pixel(p));
}

void TensorFile::put(const std::string& prefix, const ParameterStore& store) {
  for (size_t i = 0; i < store.entries().size(); ++i)
    put(prefix + store.entries()[i].name, store.value(int(i)), store.device());
}

void TensorFile::get(const std::string& prefix, const ParameterStore& store, const std::string& path) const {
  for (size_t i = 0; i < store.entries().size(); ++i)
    get(prefix + store.entries()[i].name, store.value(int(i)), path, store.device());
}

void TensorFile::put(const std::string& name, const std::vector<float>& values) {
  tensors[name] = {{1, 1, 1, int(values.size())}, values};
}

void TensorFile::get(const std::string& name, std::vector<float>& values, const std::string& path) const {
  get(name, Tensor(values.data(), {1, 1, 1, int(values.size())}), path);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in, path, ": cannot be opened: ", std::strerror(errno));
  CHECK((in.peek(), !in.bad()), path, ": cannot be read, expected a file");
  return {std::istreambuf_iterator<char>(in), {}};
}

TensorFile read_tensors(const std::string& path) {
  const std::string content = read_file(path);
  uint64_t header_bytes = 0;
  CHECK(content.size() >= 8, path, ": expected a safetensors file, found ", content.size(), " bytes");
  std::memcpy(&header_bytes, content.data(), 8);
  CHECK(header_bytes <= content.size() - 8, path, ": expected a safetensors file with a header of ",
        header_bytes, " bytes, found ", content.size() - 8, ": cut or of another kind");
  const Json header =
      Json::parse(content.begin() + 8, content.begin() + 8 + std::ptrdiff_t(header_bytes), nullptr, false);
  CHECK(header.is_object(), path, ": expected a safetensors file, its header is not a JSON object");
  const std::string data = content.substr(8 + header_bytes);
  TensorFile file;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      CHECK(value.is_object(), path, ": __metadata__ is not an object");
      for (const auto& [key, text] : value.items()) {
        CHECK(text.is_string(), path, ": __metadata__ '", key, "' is not a string");
        file.metadata[key] = text.get<std::string>();
      }
    } else {
      file.tensors[name] = read_entry(value, data, path + ": tensor '" + name + "'");
    }
  }
  return file;
}

void write_tensors(const std::string& path, const TensorFile& file) {
  Json header = Json::object();
  if (!file.metadata.empty()) header["__metadata__"] = file.metadata;
  uint64_t offset = 0;
  for (const auto& [name, entry] : file.tensors) {
    const uint64_t end = offset + entry.values.size() * sizeof(float);
    const Shape& s = entry.shape;
    header[name] = {{"dtype", "F32"}, {"shape", {s.n, s.h, s.w, s.c}}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data starts 8-byte aligned
  const uint64_t header_bytes = text.size();
  std::string content(8, '\0');
  std::memcpy(content.data(), &header_bytes, 8);
  content += text;
  content.reserve(content.size() + offset);
  for (const auto& [name, entry] : file.tensors)
    content.append(reinterpret_cast<const char*>(entry.values.data()), entry.values.size() * sizeof(float));
  replace_file(path, content);
}

void replace_file(const std::string& given, const std::string& content) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::file_status status = fs::status(given, ignored);
  CHECK(!fs::is_directory(status), given, ": cannot be written: it is a folder");
  // A device or a pipe is written to; of a link its target is replaced.
  const bool direct = fs::exists(status) && !fs::is_regular_file(status);
  const bool link = !direct && fs::exists(status) && fs::is_symlink(fs::symlink_status(given, ignored));
  const std::string path = link ? fs::canonical(given, ignored).string() : given;
  const std::string beside = direct ? path : path + ".new";
  const int fd = ::open(beside.c_str(), direct ? O_WRONLY : O_WRONLY | O_CREAT | O_TRUNC, 0644);
  CHECK(fd >= 0, path, ": cannot be written: ", std::strerror(errno));
  size_t done = 0;
  bool good = true;
  while (good && done < content.size()) {
    const ssize_t n = ::write(fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    good = n >= 0;
    if (good) done += size_t(n);
  }
  good = good && (direct || ::fsync(fd) == 0);
  int error = errno;
  ::close(fd);
  if (good && !direct) good = ::rename(beside.c_str(), path.c_str()) == 0, error = errno;
  if (!good && !direct) ::unlink(beside.c_str());
  CHECK(good, path, ": cannot be written: ", std::strerror(error));
}

}  // namespace lanas
