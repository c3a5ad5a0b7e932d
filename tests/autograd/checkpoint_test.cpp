#include "autograd/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/support/temp_folder.h"

namespace lanas::test {
namespace {

std::string content_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

std::string error_of(const std::string& path) {
  try {
    read_tensors(path);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TensorFile example() {
  TensorFile file;
  std::vector<float> values = {1, 2.5f, -3, 4, 5, 6, 7, 8};
  file.put("strided", Tensor(values.data(), {1, 1, 2, 3}, 4));
  file.put("row", values);
  file.metadata["kind"] = "test \"quoted\"";
  return file;
}

TEST(Checkpoint, RoundTrip) {
  const TempFolder folder;
  const std::string path = folder / "round.safetensors";
  write_tensors(path, example());
  const TensorFile back = read_tensors(path);
  EXPECT_EQ(back.metadata, example().metadata);
  ASSERT_EQ(back.tensors.size(), 2u);
  EXPECT_EQ(back.tensors.at("strided").shape, (Shape{1, 1, 2, 3}));
  EXPECT_EQ(back.tensors.at("strided").values, (std::vector<float>{1, 2.5f, -3, 5, 6, 7}));
  EXPECT_EQ(back.tensors.at("row").values, example().tensors.at("row").values);
}

TEST(Checkpoint, EveryCutIsToldInOneLineNamingTheFile) {
  const TempFolder folder;
  const std::string path = folder / "whole.safetensors", cut = folder / "cut.safetensors";
  write_tensors(path, example());
  const std::string whole = content_of(path);
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    std::ofstream(cut, std::ios::binary) << whole.substr(0, bytes);
    const std::string message = error_of(cut);
    EXPECT_TRUE(message.starts_with(cut)) << bytes << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(Checkpoint, DamagedHeadersAreRefused) {
  const TempFolder folder;
  const std::string path = folder / "damaged.safetensors";
  for (const char* header :
       {"[]", "{\"a\":3}", "{\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2000000000,2000000000,2000000000],\"data_offsets\":[0,4]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "{\"__metadata__\":3}",
        "{\"__metadata__\":{\"a\":3}}"}) {
    const uint64_t bytes = std::string(header).size();
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&bytes), 8);
    out << header << "1234";
    out.close();
    EXPECT_TRUE(error_of(path).starts_with(path)) << header;
  }
}

TEST(Checkpoint, AnotherNetworkIsRefused) {
  ParameterStore a, b;
  a.add("conv", {2, 3, 3, 4}, Init::normal(1));
  b.add("conv", {2, 3, 3, 5}, Init::normal(1));
  a.allocate(1);
  b.allocate(1);
  TensorFile file;
  file.put("weights.", a);
  EXPECT_NO_THROW(file.get("weights.", a, "f"));
  EXPECT_THROW(file.get("weights.", b, "f"), Error);
  EXPECT_THROW(file.get("other.", a, "f"), Error);
}

TEST(Checkpoint, AFailedWriteKeepsTheOldFile) {
  const TempFolder folder;
  const std::string path = folder / "state.safetensors";
  write_tensors(path, example());
  const std::string before = content_of(path);
  ASSERT_EQ(::mkdir((path + ".new").c_str(), 0755),
            0);  // the file beside it cannot be opened: as in a read-only folder
  EXPECT_THROW(write_tensors(path, TensorFile{}), Error);
  EXPECT_EQ(content_of(path), before);
  EXPECT_THROW(write_tensors(folder / "missing/state.safetensors", example()), Error);
}

}  // namespace
}  // namespace lanas::test
