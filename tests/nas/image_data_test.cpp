// Tests of nas/image_data: tiny IDX and CIFAR-10 files, damaged ones, the installed Fashion-MNIST, batches.
#include "nas/image_data.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>

#include "tests/support/temp_folder.h"

namespace lanas {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<uint8_t>;

void write_plain(const fs::path& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), long(bytes.size()));
}

void write_gz(const fs::path& path, const Bytes& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_EQ(gzwrite(file, bytes.data(), unsigned(bytes.size())), int(bytes.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
}

Bytes read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

Bytes idx_bytes(uint8_t dimensions, const std::vector<uint32_t>& sizes,
                const std::function<uint8_t(size_t)>& value) {
  Bytes bytes = {0, 0, 8, dimensions};
  size_t count = 1;
  for (uint32_t size : sizes) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(uint8_t(size >> shift));
    count *= size;
  }
  for (size_t i = 0; i < count; ++i) bytes.push_back(value(i));
  return bytes;
}

uint8_t pixel_value(size_t i) { return uint8_t(i * 7 + i / 784); }

class ImageDataTest : public testing::Test {
 protected:
  void write_fashion(uint32_t train = 12, uint32_t test = 5, uint32_t side = 28) {
    const auto label = [](size_t i) { return uint8_t(i % 10); };
    write_gz(folder_ / "train-images-idx3-ubyte.gz", idx_bytes(3, {train, side, side}, pixel_value));
    write_gz(folder_ / "train-labels-idx1-ubyte.gz", idx_bytes(1, {train}, label));
    write_plain(folder_ / "t10k-images-idx3-ubyte", idx_bytes(3, {test, side, side}, pixel_value));
    write_plain(folder_ / "t10k-labels-idx1-ubyte", idx_bytes(1, {test}, label));
  }

  static Bytes cifar_bytes(size_t records, size_t first) {
    Bytes bytes(records * 3073);
    for (size_t r = 0; r < records; ++r)
      for (size_t i = 0; i < 3073; ++i)
        bytes[r * 3073 + i] = i == 0 ? uint8_t((first + r) % 10) : uint8_t((i - 1) * 3 + first + r);
    return bytes;
  }

  void write_cifar(const fs::path& folder) {
    fs::create_directories(folder);
    for (size_t b = 1; b <= 5; ++b)
      write_plain(folder / join("data_batch_", b, ".bin"), cifar_bytes(3, 3 * (b - 1)));
    write_plain(folder / "test_batch.bin", cifar_bytes(2, 40));
  }

  // Loads and expects a one-line error with all the given parts.
  void expect_error(const std::vector<std::string>& parts) {
    try {
      load_image_data(folder_);
      ADD_FAILURE() << "no error, expected " << parts[0];
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(message.find('\n'), std::string::npos);
      for (const std::string& part : parts)
        EXPECT_NE(message.find(part), std::string::npos) << message << "\n  expected: " << part;
    }
  }

  const TempFolder temp_;
  fs::path folder_ = temp_.path();
};

TEST_F(ImageDataTest, FashionIsPaddedAndReplicated) {
  write_fashion();
  const ImageData data = load_image_data(folder_);
  EXPECT_TRUE(data.name.starts_with("idx-")) << data.name << ": another set of the same form";
  EXPECT_EQ(data.side, 32);
  EXPECT_EQ(data.classes, 10);
  ASSERT_EQ(data.train_count(), 12);
  ASSERT_EQ(data.test_count(), 5);
  ASSERT_EQ(data.train_images.size(), 12u * 32 * 32 * 3);
  double sum = 0, squares = 0;
  for (int i = 0; i < 12; ++i)
    for (int row = 0; row < 32; ++row)
      for (int column = 0; column < 32; ++column) {
        const bool inside = row >= 2 && row < 30 && column >= 2 && column < 30;
        const int expected = inside ? pixel_value(size_t((i * 28 + row - 2) * 28 + column - 2)) : 0;
        for (int c = 0; c < 3; ++c) ASSERT_EQ(data.train_image(i)[(row * 32 + column) * 3 + c], expected);
        sum += expected / 255.0;
        squares += expected / 255.0 * expected / 255.0;
      }
  const double pixels = 12 * 32 * 32, mean = sum / pixels;
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(data.mean[c], mean, 1e-6);
    EXPECT_NEAR(data.stddev[c], std::sqrt(squares / pixels - mean * mean), 1e-6);
  }
  for (int i = 0; i < 12; ++i) EXPECT_EQ(data.train_labels[size_t(i)], i % 10);
}

TEST_F(ImageDataTest, OtherSidesAreKeptIfDivisibleByFour) {
  write_fashion(4, 2, 16);
  EXPECT_EQ(load_image_data(folder_).side, 16);
  write_fashion(4, 2, 30);
  expect_error({"train-images-idx3-ubyte.gz: side 30, expected 28 or a multiple of 4"});
}

TEST_F(ImageDataTest, InstalledFashionMnist) {
  ASSERT_TRUE(fs::exists(kDefaultDataFolder)) << "install the Debian package dataset-fashion-mnist";
  const ImageData data = load_image_data();
  EXPECT_EQ(data.train_count(), 60000);
  EXPECT_EQ(data.test_count(), 10000);
  EXPECT_EQ(data.name, "fashion-mnist");
  for (int label = 0; label < 10; ++label) {
    EXPECT_EQ(std::count(data.train_labels.begin(), data.train_labels.end(), label), 6000);
    EXPECT_EQ(std::count(data.test_labels.begin(), data.test_labels.end(), label), 1000);
  }
  // the published moments of the 28 x 28 images, .2860 and .3530, spread over 32 x 32
  const double share = 28.0 * 28 / (32 * 32), mean = .2860 * share;
  EXPECT_NEAR(data.mean[0], mean, 1e-4);
  EXPECT_NEAR(data.stddev[2], std::sqrt((.3530 * .3530 + .2860 * .2860) * share - mean * mean), 1e-4);
}

TEST_F(ImageDataTest, CifarPlanesBecomePixels) {
  write_cifar(folder_);
  const ImageData data = load_image_data(folder_);
  EXPECT_EQ(data.name, "cifar-10");
  ASSERT_EQ(data.train_count(), 15);
  ASSERT_EQ(data.test_count(), 2);
  EXPECT_FLOAT_EQ(data.mean[0], .49139968f);
  EXPECT_FLOAT_EQ(data.stddev[2], .26158768f);
  for (int i = 0; i < 15; ++i) {
    EXPECT_EQ(data.train_labels[size_t(i)], i % 10);
    for (int pixel = 0; pixel < 1024; ++pixel)
      for (int c = 0; c < 3; ++c)
        ASSERT_EQ(data.train_image(i)[pixel * 3 + c], uint8_t((c * 1024 + pixel) * 3 + i));
  }
  EXPECT_EQ(data.test_image(1)[2], uint8_t(2 * 1024 * 3 + 41));
}

TEST_F(ImageDataTest, CifarInItsUsualSubfolder) {
  write_cifar(folder_ / "cifar-10-batches-bin");
  EXPECT_EQ(load_image_data(folder_).train_count(), 15);
}

TEST_F(ImageDataTest, MissingFolderFilesAndWrongVersion) {
  expect_error(
      {folder_.string() + ": no data set found, expected train-images-idx3-ubyte", "test_batch.bin"});
  write_plain(folder_ / "data_batch_1", {1});
  expect_error({"Python version of CIFAR-10, expected the binary version"});
  write_fashion();
  fs::remove(folder_ / "train-labels-idx1-ubyte.gz");
  expect_error({"train-labels-idx1-ubyte: no such file, expected it or train-labels-idx1-ubyte.gz"});
  write_fashion();
  write_plain(folder_ / "test_batch.bin", {1});
  expect_error({"holds both Fashion-MNIST and CIFAR-10"});
  folder_ /= "nowhere";
  expect_error({"nowhere: no such folder"});
}

TEST_F(ImageDataTest, CutFiles) {
  write_fashion();
  const fs::path gz = folder_ / "train-images-idx3-ubyte.gz", plain = folder_ / "t10k-images-idx3-ubyte";
  const Bytes whole = read_bytes(gz);
  write_plain(gz, Bytes(whole.begin(), whole.begin() + long(whole.size() / 2)));
  expect_error({gz.string() + ": cut: ", "expected 9424"});
  write_plain(gz, Bytes(whole.begin(), whole.end() - 4));  // all the data, half the trailer
  expect_error({gz.string() + ": the gzip file is cut"});
  write_plain(gz, {});
  expect_error({gz.string() + ": 0 bytes, expected a header of 16 bytes"});
  write_plain(gz, whole);
  Bytes bytes = read_bytes(plain);
  bytes.pop_back();
  write_plain(plain, bytes);
  expect_error({plain.string() + ": cut: 3935 bytes, expected 3936"});
}

TEST_F(ImageDataTest, DamagedAndOversizeFiles) {
  write_fashion();
  const fs::path gz = folder_ / "train-images-idx3-ubyte.gz", plain = folder_ / "t10k-images-idx3-ubyte";
  const Bytes whole = read_bytes(gz);
  Bytes damaged = whole;
  damaged[damaged.size() - 6] ^= 0x10;  // the checksum
  write_plain(gz, damaged);
  expect_error({gz.string() + ": damaged gzip data"});
  write_gz(gz, idx_bytes(3, {12, 28, 28, 2}, pixel_value));  // header says one number fewer than written
  expect_error({gz.string() + ": more data than the expected 9424 bytes"});
  write_plain(gz, whole);
  Bytes bytes = read_bytes(plain);
  bytes.push_back(0);
  write_plain(plain, bytes);
  expect_error({plain.string() + ": more data than the expected 3936 bytes"});
  write_plain(plain, idx_bytes(1, {5}, [](size_t) { return uint8_t{1}; }));
  expect_error({plain.string() + ": ", "expected a header of 16 bytes"});
  write_plain(plain, idx_bytes(1, {100}, [](size_t) { return uint8_t{1}; }));
  expect_error({plain.string() + ": wrong magic number 2049, expected 2051 (IDX images)"});
}

TEST_F(ImageDataTest, HeadersThatLie) {
  write_fashion();
  const fs::path plain = folder_ / "t10k-images-idx3-ubyte";
  write_plain(plain, {0, 0, 8, 3, 0, 0x90, 0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 1, 2, 3});  // 9 million 1024 x 1024
  expect_error({": cut: 19 bytes, expected 9895604650000"});
  write_plain(plain, {0, 0, 8, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 28, 0, 0, 0, 28, 1, 2, 3});
  expect_error({": size 4294967295 of dimension 0, expected 1 to 10000000"});
  write_plain(plain, idx_bytes(3, {5, 28, 24}, pixel_value));
  expect_error({": images of 28 x 24, expected square ones"});
  write_plain(plain, idx_bytes(3, {4, 28, 28}, pixel_value));
  expect_error({"t10k-labels-idx1-ubyte: 5 labels, expected 4"});
}

TEST_F(ImageDataTest, LabelsOutOfRange) {
  write_fashion();
  write_gz(folder_ / "train-labels-idx1-ubyte.gz", idx_bytes(1, {12}, [](size_t i) { return uint8_t(i); }));
  expect_error({"train-labels-idx1-ubyte.gz: label 10 of image 10, expected 0 to 9"});
}

TEST_F(ImageDataTest, CifarErrors) {
  write_cifar(folder_);
  write_plain(folder_ / "data_batch_3.bin", Bytes(3073 * 3 - 1, 0));
  expect_error(
      {"data_batch_3.bin: 9218 bytes, expected a multiple of 3073 bytes (30730000 in the published set)"});
  write_plain(folder_ / "data_batch_3.bin", Bytes(3073 * 2, 0));
  expect_error({"data_batch_3.bin: 6146 bytes, expected 9219 as in data_batch_1.bin"});
  write_cifar(folder_);
  write_plain(folder_ / "test_batch.bin", Bytes(3073, 11));
  expect_error({"test_batch.bin: label 11 of image 0, expected 0 to 9"});
  fs::remove(folder_ / "test_batch.bin");
  expect_error({"test_batch.bin: no such file"});
  fs::remove(folder_ / "data_batch_5.bin");
  expect_error({"data_batch_5.bin: no such file, expected a multiple of 3073 bytes"});
}

TEST(Split, PartsAreDisjointDeterministicAndSized) {
  const auto parts = split(5, 1000, 0, {0.5, 0.4});
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].size(), 500u);
  EXPECT_EQ(parts[1].size(), 400u);
  std::set<int> all(parts[0].begin(), parts[0].end());
  all.insert(parts[1].begin(), parts[1].end());
  EXPECT_EQ(all.size(), 900u);
  EXPECT_GE(*all.begin(), 0);
  EXPECT_LT(*all.rbegin(), 1000);
  EXPECT_EQ(split(5, 1000, 0, {0.5, 0.4}), parts);
  EXPECT_NE(split(6, 1000, 0, {0.5, 0.4}), parts);
  const auto some = split(5, 1000, 101, {0.5, 0.5}), more = split(5, 1000, 200, {1});
  EXPECT_EQ(some[0].size() + some[1].size(), 101u);
  EXPECT_TRUE(std::equal(some[0].begin(), some[0].end(), more[0].begin()));  // one order for every count
  const auto thirds = split(1, 100, 0, {1.0 / 3, 1.0 / 3, 1.0 / 3});
  EXPECT_EQ(thirds[0].size() + thirds[1].size() + thirds[2].size(), 100u);
}

TEST(Split, Errors) {
  EXPECT_THROW(split(1, 10, 11, {0.5}), Error);
  EXPECT_THROW(split(1, 10, 0, {0.6, 0.5}), Error);
  EXPECT_THROW(split(1, 10, 0, {0.0}), Error);
  EXPECT_THROW(split(1, 10, 1, {0.5, 0.4}), Error);
  EXPECT_THROW(split(1, 10, 0, {}), Error);
}

std::vector<int> epoch_batch(MiniBatches& batches, int epoch, int step) {
  Stream stream;
  const int* batch = batches.epoch_batch(stream, epoch, step);
  return {batch, batch + batches.batch()};
}
std::vector<int> random_batch(MiniBatches& batches, uint64_t draw) {
  Stream stream;
  const int* batch = batches.random_batch(stream, draw);
  return {batch, batch + batches.batch()};
}

TEST(MiniBatches, AnEpochVisitsEachIndexOnceInItsOwnOrder) {
  Stream stream;
  std::vector<int> indices;
  for (int i = 0; i < 70; ++i) indices.push_back(1000 + 3 * i);
  MiniBatches batches(stream, indices, 16, 9);
  ASSERT_EQ(batches.per_epoch(), 4);
  std::set<int> seen;
  std::vector<std::vector<int>> first_epoch;
  for (int step = 0; step < 4; ++step) {
    first_epoch.push_back(epoch_batch(batches, 0, step));
    EXPECT_EQ(first_epoch.back().size(), 16u);
    seen.insert(first_epoch.back().begin(), first_epoch.back().end());
  }
  EXPECT_EQ(seen.size(), 64u);
  for (int index : seen) EXPECT_TRUE(index >= 1000 && index <= 1207 && (index - 1000) % 3 == 0);
  EXPECT_NE(epoch_batch(batches, 1, 0), first_epoch[0]);
  EXPECT_EQ(epoch_batch(batches, 0, 2), first_epoch[2]);  // back again: nothing is carried over
  MiniBatches resumed(stream, indices, 16, 9);
  EXPECT_EQ(epoch_batch(resumed, 5, 3), epoch_batch(batches, 5, 3));
  MiniBatches other(stream, indices, 16, 10);
  EXPECT_NE(epoch_batch(other, 0, 0), first_epoch[0]);
}

TEST(MiniBatches, RandomBatchesAreFreshDistinctAndPure) {
  Stream stream;
  std::vector<int> indices;
  for (int i = 0; i < 50; ++i) indices.push_back(i);
  MiniBatches batches(stream, indices, 8, 9), again(stream, indices, 8, 9);
  std::vector<int> times(50);
  for (uint64_t draw = 0; draw < 2000; ++draw) {
    const auto batch = random_batch(batches, draw);
    EXPECT_EQ(std::set<int>(batch.begin(), batch.end()).size(), 8u);
    for (int index : batch) ++times[size_t(index)];
  }
  for (int count : times) EXPECT_NEAR(count, 320, 5 * std::sqrt(320.0));
  EXPECT_EQ(random_batch(again, 1999), random_batch(batches, 1999));
  EXPECT_NE(random_batch(batches, 1), random_batch(batches, 2));
}

TEST(MiniBatches, Errors) {
  Stream stream;
  EXPECT_THROW(MiniBatches(stream, {1, 2, 3}, 4, 0), Error);
  EXPECT_THROW(MiniBatches(stream, {1, 2, 3}, 0, 0), Error);
  MiniBatches batches(stream, {1, 2, 3}, 2, 0);
  EXPECT_THROW(batches.epoch_batch(stream, 0, 1), Error);
  EXPECT_THROW(batches.epoch_batch(stream, -1, 0), Error);
}

}  // namespace
}  // namespace lanas
