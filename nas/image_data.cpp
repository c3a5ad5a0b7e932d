// image_data.cpp -- readers for IDX (http://yann.lecun.com/exdb/mnist: big-endian magic, sizes, bytes) and
// the CIFAR-10 binary version (records of one label byte and 3 x 32 x 32 bytes, channel by channel), and the
// deterministic splits and batch orders. zlib's gz functions read gzipped and plain files alike.
#include "nas/image_data.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "kernels/core/parallel.h"
#include "kernels/core/random.cuh"

namespace lanas {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<uint8_t>;

constexpr int kClasses = 10;  // of both data sets
constexpr const char* kFashion = "fashion-mnist";
constexpr uint32_t kFashionChecksum = 0x67f599ef;  // of the published set: other IDX files are another set
constexpr const char* kIdxFiles[4] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                      "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};
constexpr const char* kCifarFolder = "cifar-10-batches-bin";
constexpr int kCifarSide = 32, kCifarPlane = kCifarSide * kCifarSide, kCifarRecord = 1 + 3 * kCifarPlane;
constexpr int kCifarRecords = 10000;  // in each file of the published set

class GzFile {
 public:
  explicit GzFile(std::string path) : path_(std::move(path)) {
    if (fs::is_regular_file(path_)) file_ = gzopen(path_.c_str(), "rb");
    CHECK(file_, path_, ": cannot be read, expected a data file");
    gzbuffer(file_, 1 << 18);
  }
  ~GzFile() { gzclose(file_); }
  GzFile(const GzFile&) = delete;
  GzFile& operator=(const GzFile&) = delete;

  // Up to `wanted` bytes, fewer at the end of a whole or cut file.
  Bytes read(uint64_t wanted) {
    Bytes bytes;
    while (bytes.size() < wanted) {  // grown as data arrives: a lying header cannot ask for memory
      const size_t before = bytes.size(), chunk = size_t(std::min<uint64_t>(wanted - before, 1 << 22));
      bytes.resize(before + chunk);
      const int got = gzread(file_, bytes.data() + before, unsigned(chunk));
      int code = 0;
      gzerror(file_, &code);
      CHECK(got >= 0 && (code == Z_OK || code == Z_BUF_ERROR), path_, ": damaged gzip data after ", before,
            " bytes, expected a whole gzip file");
      cut_ = cut_ || code == Z_BUF_ERROR;
      bytes.resize(before + size_t(got));
      if (size_t(got) < chunk) break;
    }
    return bytes;
  }
  bool cut() const { return cut_; }  // the gzip stream has no end

 private:
  std::string path_;
  gzFile file_ = nullptr;
  bool cut_ = false;
};

uint32_t big_endian(const uint8_t* bytes) {
  return uint32_t(bytes[0]) << 24 | uint32_t(bytes[1]) << 16 | uint32_t(bytes[2]) << 8 | bytes[3];
}

struct Idx {
  int sizes[3] = {1, 1, 1};
  Bytes bytes;
};

Idx read_idx(const std::string& path, int dimensions) {
  GzFile file(path);
  const size_t header_bytes = size_t(4 + 4 * dimensions);
  const Bytes header = file.read(header_bytes);
  CHECK(header.size() == header_bytes, path, ": ", header.size(), " bytes, expected a header of ",
        header_bytes, " bytes");
  const uint32_t magic = big_endian(header.data()), expected_magic = 0x800u + uint32_t(dimensions);
  CHECK(magic == expected_magic, path, ": wrong magic number ", magic, ", expected ", expected_magic,
        " (IDX ", dimensions == 3 ? "images" : "labels", ")");
  Idx idx;
  uint64_t expected = 1;
  for (int d = 0; d < dimensions; ++d) {
    const uint32_t size = big_endian(header.data() + 4 + 4 * d), limit = d == 0 ? 10'000'000 : 1024;
    CHECK(size >= 1 && size <= limit, path, ": size ", size, " of dimension ", d, ", expected 1 to ", limit);
    idx.sizes[d] = int(size);
    expected *= size;
  }
  idx.bytes = file.read(expected);
  CHECK(idx.bytes.size() == expected, path, ": cut: ", header_bytes + idx.bytes.size(), " bytes, expected ",
        header_bytes + expected);
  const bool oversize = !file.read(1).empty();
  CHECK(!oversize, path, ": more data than the expected ", header_bytes + expected, " bytes");
  CHECK(!file.cut(), path, ": the gzip file is cut, expected its whole trailer");
  return idx;
}

void check_labels(const std::string& path, const Bytes& labels) {
  for (size_t i = 0; i < labels.size(); ++i)
    CHECK(labels[i] < kClasses, path, ": label ", int(labels[i]), " of image ", i, ", expected 0 to ",
          kClasses - 1);
}

std::string find_idx(const fs::path& folder, const char* name) {
  const fs::path plain = folder / name, gzipped = folder / (std::string(name) + ".gz");
  if (fs::exists(plain)) return plain.string();
  CHECK(fs::exists(gzipped), plain.string(), ": no such file, expected it or ", name,
        ".gz (Fashion-MNIST is four IDX files)");
  return gzipped.string();
}

// Grey [count, from, from] to [count, to, to, 3], centred in zeros.
Bytes pad_grey(const Bytes& grey, int count, int from, int to) {
  Bytes out(size_t(count) * size_t(to) * size_t(to) * 3, 0);
  const int border = (to - from) / 2;
  parallel_for(count, [&](int64_t i) {
    const uint8_t* x = grey.data() + i * from * from;
    uint8_t* image = out.data() + i * to * to * 3;
    for (int row = 0; row < from; ++row)
      for (int column = 0; column < from; ++column) {
        uint8_t* pixel = image + ((row + border) * to + column + border) * 3;
        pixel[0] = pixel[1] = pixel[2] = x[row * from + column];
      }
  });
  return out;
}

void measure_moments(ImageData& data) {
  uint64_t sum[3] = {}, squares[3] = {};  // exact: the result does not depend on the order
  for (size_t i = 0; i < data.train_images.size(); i += 3)
    for (size_t c = 0; c < 3; ++c) {
      const uint64_t value = data.train_images[i + c];
      sum[c] += value;
      squares[c] += value * value;
    }
  const double pixels = double(data.train_images.size() / 3);
  for (int c = 0; c < 3; ++c) {
    const double mean = double(sum[c]) / pixels, variance = double(squares[c]) / pixels - mean * mean;
    data.mean[c] = float(mean / 255);
    data.stddev[c] = float(std::sqrt(std::max(variance, 1.0)) / 255);  // at least one grey level: never 0
  }
}

ImageData load_idx(const fs::path& folder) {
  std::string paths[4];
  for (int f = 0; f < 4; ++f) paths[f] = find_idx(folder, kIdxFiles[f]);
  ImageData data;
  data.name = kFashion;
  data.classes = kClasses;
  int side = 0;
  for (int part = 0; part < 2; ++part) {
    const std::string &images_path = paths[2 * part], &labels_path = paths[2 * part + 1];
    Idx images = read_idx(images_path, 3), labels = read_idx(labels_path, 1);
    const int rows = images.sizes[1], columns = images.sizes[2];
    if (part == 0) side = rows;
    CHECK(rows == side && columns == side, images_path, ": images of ", rows, " x ", columns,
          ", expected square ones, of the same side in both files (training: ", side, ")");
    CHECK(side == 28 || side % 4 == 0, images_path, ": side ", side, ", expected 28 or a multiple of 4");
    CHECK(images.sizes[0] == labels.sizes[0], labels_path, ": ", labels.sizes[0], " labels, expected ",
          images.sizes[0], ", one for each image of ", images_path);
    check_labels(labels_path, labels.bytes);
    data.side = side == 28 ? 32 : side;
    (part == 0 ? data.train_images : data.test_images) =
        pad_grey(images.bytes, images.sizes[0], side, data.side);
    (part == 0 ? data.train_labels : data.test_labels) = std::move(labels.bytes);
  }
  measure_moments(data);
  return data;
}

Bytes read_cifar_file(const fs::path& path) {
  const std::string hint = join("expected a multiple of ", kCifarRecord, " bytes (",
                                int64_t{kCifarRecord} * kCifarRecords, " in the published set)");
  CHECK(fs::exists(path), path.string(), ": no such file, ", hint);
  CHECK(fs::is_regular_file(path), path.string(), ": not a file, ", hint);
  const uint64_t bytes = fs::file_size(path);
  CHECK(bytes > 0 && bytes % kCifarRecord == 0, path.string(), ": ", bytes, " bytes, ", hint);
  CHECK(bytes <= uint64_t{1} << 31, path.string(), ": too large, ", bytes, " bytes, ", hint);
  GzFile file(path.string());
  Bytes content = file.read(bytes);
  CHECK(content.size() == bytes, path.string(), ": read ", content.size(), " bytes, expected ", bytes);
  return content;
}

// Appends the records of one file: [3, 32, 32] planes become [32, 32, 3] pixels.
void append_cifar(const std::string& path, const Bytes& records, Bytes& images, Bytes& labels) {
  const size_t count = records.size() / kCifarRecord, first = labels.size();
  images.resize((first + count) * 3 * kCifarPlane);
  Bytes new_labels(count);
  parallel_for(int64_t(count), [&](int64_t i) {
    const uint8_t* record = records.data() + i * kCifarRecord;
    uint8_t* image = images.data() + (int64_t(first) + i) * 3 * kCifarPlane;
    new_labels[size_t(i)] = record[0];
    for (int pixel = 0; pixel < kCifarPlane; ++pixel)
      for (int c = 0; c < 3; ++c) image[pixel * 3 + c] = record[1 + c * kCifarPlane + pixel];
  });
  check_labels(path, new_labels);
  labels.insert(labels.end(), new_labels.begin(), new_labels.end());
}

ImageData load_cifar(const fs::path& folder) {
  ImageData data{"cifar-10",
                 kCifarSide,
                 kClasses,
                 {},
                 {},
                 {},
                 {},
                 {.49139968f, .48215827f, .44653124f},
                 {.24703233f, .24348505f, .26158768f}};
  size_t expected = 0;
  for (int batch = 1; batch <= 5; ++batch) {
    const fs::path path = folder / join("data_batch_", batch, ".bin");
    const Bytes records = read_cifar_file(path);
    if (batch == 1) expected = records.size();
    CHECK(records.size() == expected, path.string(), ": ", records.size(), " bytes, expected ", expected,
          " as in data_batch_1.bin");
    append_cifar(path.string(), records, data.train_images, data.train_labels);
  }
  const fs::path path = folder / "test_batch.bin";
  const Bytes records = read_cifar_file(path);
  constexpr size_t kPublished = size_t{kCifarRecord} * kCifarRecords;
  CHECK(expected != kPublished || records.size() == kPublished, path.string(), ": ", records.size(),
        " bytes, expected ", kPublished);
  append_cifar(path.string(), records, data.test_images, data.test_labels);
  return data;
}

bool holds_idx(const fs::path& folder) {
  return std::any_of(std::begin(kIdxFiles), std::end(kIdxFiles), [&](const char* name) {
    return fs::exists(folder / name) || fs::exists(folder / (std::string(name) + ".gz"));
  });
}

bool holds_cifar(const fs::path& folder, const char* suffix) {
  for (int batch = 1; batch <= 5; ++batch)
    if (fs::exists(folder / join("data_batch_", batch, suffix))) return true;
  return fs::exists(folder / join("test_batch", suffix));
}

ImageData load_kind(const std::string& given) {
  const fs::path folder(given);
  CHECK(fs::is_directory(folder), given,
        ": no such folder, expected one with Fashion-MNIST or CIFAR-10 files");
  const bool idx = holds_idx(folder), here = holds_cifar(folder, ".bin");
  CHECK(!idx || !here, given, ": holds both Fashion-MNIST and CIFAR-10 files, expected one data set");
  if (idx) return load_idx(folder);
  if (here) return load_cifar(folder);
  if (fs::is_directory(folder / kCifarFolder)) return load_cifar(folder / kCifarFolder);
  CHECK(!holds_cifar(folder, "") && !fs::is_directory(folder / "cifar-10-batches-py"), given,
        ": holds the Python version of CIFAR-10, expected the binary version (data_batch_1.bin ...)");
  throw Error(join(given, ": no data set found, expected ", kIdxFiles[0], "[.gz], ", kIdxFiles[1], "[.gz], ",
                   kIdxFiles[2], "[.gz], ", kIdxFiles[3],
                   "[.gz] or data_batch_1.bin to data_batch_5.bin and ", "test_batch.bin, here or in ",
                   kCifarFolder));
}

}  // namespace

ImageData load_image_data(const std::string& folder) {
  try {
    ImageData data = load_kind(folder);
    for (const Bytes* part : {&data.train_images, &data.train_labels})
      data.checksum = uint32_t(crc32_z(data.checksum, part->data(), part->size()));
    if (data.name == kFashion && data.checksum != kFashionChecksum) {
      char name[16];
      std::snprintf(name, sizeof name, "idx-%08x", data.checksum);
      data.name = name;
    }
    return data;
  } catch (const fs::filesystem_error& error) {  // a folder without permission, a failing disk
    throw Error(join(folder, ": cannot be read (", error.code().message(), "), expected a data folder"));
  }
}

}  // namespace lanas
