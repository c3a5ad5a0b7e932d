// evaluate, predict and export on a tiny trained network: the confusion table, pictures of several kinds, and
// files for other programs.
#include "nas/protobuf.h"
#include "tests/programs/tiny.h"

namespace lanas::test {
namespace {

using Json = nlohmann::json;

// A PNG of 28 x 28 grey pixels.
std::string grey_png(const std::string& pixels, int bits) {
  const auto number = [](uint32_t value) {
    std::string bytes;
    for (int shift = 24; shift >= 0; shift -= 8) bytes += char(value >> shift);
    return bytes;
  };
  const auto chunk = [&](const std::string& kind, const std::string& data) {
    const std::string body = kind + data;
    return number(uint32_t(data.size())) + body +
           number(uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size())));
  };
  std::string rows;
  for (size_t i = 0; i < pixels.size(); ++i) {
    if (i % 28 == 0) rows += '\0';  // the row's filter: none
    rows += std::string(size_t(bits / 8), pixels[i]);
  }
  std::string packed(compressBound(rows.size()), '\0');
  uLongf size = packed.size();
  EXPECT_EQ(compress(reinterpret_cast<Bytef*>(packed.data()), &size,
                     reinterpret_cast<const Bytef*>(rows.data()), rows.size()),
            Z_OK);
  packed.resize(size);
  const std::string head = number(28) + number(28) + char(bits) + std::string(4, '\0');
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", head) + chunk("IDAT", packed) + chunk("IEND", "");
}

class NetworkCommands : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    write_images(at("data"));
    succeed(Words{"retrain", "--genotype", "PC_DARTS_cifar", "--data", "data", "--out", "net", "--eval-lr",
                  "0.1", "--threads", "1", "--quiet"} +
            tiny_network());
  }
  const std::string network_ = "net/network.safetensors";
};

TEST_F(NetworkCommands, SlowConfusionPicturesAndExports) {
  const Outcome told = succeed({"evaluate", network_, "--data", "data", "--json", "e.json"});
  const Json result = json("e.json");
  ASSERT_EQ(result.at("confusion").size(), 10u);
  int64_t all = 0, right = 0;
  for (size_t truth = 0; truth < 10; ++truth) {
    int64_t row = 0;
    for (const Json& count : result["confusion"][truth]) row += count.get<int64_t>();
    EXPECT_EQ(row, 10) << "tests of a class";
    all += row;
    right += result["confusion"][truth][truth].get<int64_t>();
  }
  EXPECT_EQ(all, 100);
  EXPECT_DOUBLE_EQ(result.at("test_accuracy"), double(right) / 100);
  EXPECT_NE(told.out.find("true \\ given"), std::string::npos);
  EXPECT_EQ(told.out.find("ankle boot 9"), std::string::npos) << "another set has other classes";

  // One picture as PGM of 28 x 28, as PGM with text, as PPM of 32 x 32, and four times as large: the same
  // image.
  std::string small, text = "P2 # a comment\n28 28\n255\n", framed, large;
  for (int y = 0; y < 128; ++y)
    for (int x = 0; x < 128; ++x) {
      const int row = y / 4 - 2, column = x / 4 - 2;
      const bool inside = row >= 0 && row < 28 && column >= 0 && column < 28;
      const char value = inside ? char((row / 3 % 2) * 120 + column) : char(0);
      large += std::string(3, value);
      if (y % 4 || x % 4) continue;
      framed += std::string(3, value);
      if (!inside) continue;
      small += value;
      text += std::to_string(int(uint8_t(value))) + "\n";
    }
  write_text(at("small.pgm"), "P5\n28 28\n255\n" + small);
  write_text(at("text.pgm"), text);
  write_text(at("framed.ppm"), "P6 32 32 255\n" + framed);
  write_text(at("large.ppm"), "P6\n# made large\n128 128\n255\n" + large);
  const Outcome predicted =
      succeed({"predict", network_, "small.pgm", "text.pgm", "framed.ppm", "large.ppm", "--json", "p.json"});
  const Json classes = json("p.json");
  ASSERT_EQ(classes.size(), 4u);
  EXPECT_EQ(std::count(predicted.out.begin(), predicted.out.end(), '\n'), 4);
  for (const Json& one : classes) {
    EXPECT_EQ(one.at("logits"), classes[0].at("logits")) << one.at("image");
    EXPECT_GE(one.at("probability"), 0.1);
    EXPECT_LE(one.at("probability"), 1);
  }

  // As PNG, 8 and 16 bits a channel.
  write_text(at("grey8.png"), grey_png(small, 8));
  write_text(at("grey16.png"), grey_png(small, 16));
  const Outcome png = start({"predict", network_, "grey8.png", "grey16.png", "--json", "png.json"});
  if (png.err.find("no libpng") == std::string::npos) {
    for (const Json& one : json("png.json"))
      EXPECT_EQ(one.at("logits"), classes[0].at("logits")) << one.at("image");
  }

  succeed({"export", network_, "--onnx", "net.onnx", "--genotype-out", "found.py", "--name", "FOUND"});
  EXPECT_GT(std::filesystem::file_size(at("net.onnx")), 10'000u);
  const std::string text_out = read_text(at("found.py"));
  EXPECT_TRUE(text_out.starts_with("FOUND = Genotype(normal=[('sep_conv_3x3', 1),")) << text_out;
  EXPECT_EQ(read_genotype(text_out), resolve_genotype("PC_DARTS_cifar"));
}

// Fewer images to validate on than a batch, and an auxiliary head, whose loss is not the network's.
TEST_F(NetworkCommands, SlowValidationLossIsThatOfTheLogits) {
  const Words words =
      Words{"retrain", "--genotype", "DARTS_V2", "--data", "data", "--threads", "1", "--quiet"} +
      tiny_network() +
      Words{"--eval-images", "100", "--eval-batch", "64", "--eval-epochs", "1", "--eval-lr", "0"};
  double loss[2];
  for (const bool auxiliary : {false, true}) {
    succeed(words + Words{auxiliary ? "--auxiliary" : "--no-auxiliary", "--out", auxiliary ? "a" : "b",
                          "--json", "j.json"});
    loss[auxiliary] = json("j.json")["history"][0].at("valid_loss");
    EXPECT_GT(loss[auxiliary], 1) << "ten classes, not trained: about 2.3";
    EXPECT_LT(loss[auxiliary], 6);
  }
  EXPECT_NEAR(loss[1], loss[0], 0.2) << "a head of weight 0.4 would add 0.9";
}

TEST_F(NetworkCommands, SlowBadPicturesAreRefused) {
  write_text(at("cut.ppm"), "P6 32 32 255\nabc");
  write_text(at("wide.pgm"), "P5 99999 1 255\n");
  write_text(at("word.pgm"), "P2 2 2 255\n1 2 three 4\n");
  write_text(at("not.jpg"), "\xff\xd8 a photograph");
  refuse({"predict", network_, "cut.ppm"}, {"cut.ppm", "cut", "3072 bytes"});
  refuse({"predict", network_, "wide.pgm"}, {"wide.pgm", "width", "16384"});
  refuse({"predict", network_, "word.pgm"}, {"word.pgm", "a pixel"});
  refuse({"predict", network_, "not.jpg"}, {"not.jpg", "PPM, PGM or PNG"});
  refuse({"predict", network_, "nowhere.ppm"}, {"nowhere.ppm", "cannot be read"});
  refuse({"export", network_}, {"--onnx", "--genotype-out"});
  refuse({"export", network_, "--onnx", "no/folder/x.onnx"}, {"no/folder/x.onnx"});
  refuse({"export", network_, "--onnx", "x.onnx", "--json", "no/a.json"}, {"--json", "no/a.json"});
  refuse({"export", network_, "--onnx", "same", "--genotype-out", "same"}, {"two files", "same"});
  refuse({"export", network_, "--genotype-out", "x.py", "--name", "a b"}, {"--name", "a b"});
  EXPECT_FALSE(exists("x.onnx"));
}

// Varints, tags and lengths, byte by byte (the examples of the format's own description).
TEST(ProtoMessage, EncodesFields) {
  EXPECT_EQ(ProtoMessage().integer(1, 150).str(), std::string("\x08\x96\x01", 3));
  EXPECT_EQ(ProtoMessage().bytes(2, "testing").str(), std::string("\x12\x07testing", 9));
  EXPECT_EQ(ProtoMessage().message(3, ProtoMessage().integer(1, 150)).str(),
            std::string("\x1a\x03\x08\x96\x01", 5));
  EXPECT_EQ(ProtoMessage().integer(20, 7).str(), std::string("\xa0\x01\x07", 3));
  EXPECT_EQ(ProtoMessage().integer(1, -1).str().size(), 11u);
  EXPECT_EQ(ProtoMessage().number(2, 1).str(), std::string("\x15\0\0\x80\x3f", 5));
}

}  // namespace
}  // namespace lanas::test
