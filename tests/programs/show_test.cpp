// `show` through the program: exact counts of published networks and supernets, genotypes by name, text,
// file.
#include "tests/programs/program.h"

namespace lanas::test {
namespace {

const char* const kDartsV1 =
    "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), "
    "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, "
    "3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), "
    "('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])";

class ShowTest : public ProgramTest {
 protected:
  nlohmann::json show(const Words& words) const {
    return nlohmann::json::parse(succeed(Words{"show", "--json", "-"} + words).out, nullptr, false);
  }
};

TEST_F(ShowTest, PublishedNetwork) {
  const nlohmann::json counts = show(
      {"--genotype", "DARTS_V2", "--channels", "36", "--layers", "20", "--classes", "10", "--image", "32"});
  EXPECT_EQ(counts.at("parameters"), 3'349'342);
  EXPECT_EQ(counts.at("macs"), 528'359'040);
  EXPECT_GT(counts.at("parameters_auxiliary"), 0);
  EXPECT_EQ(counts.at("skips_normal"), 2);
  EXPECT_EQ(counts.at("skips_reduce"), 3);
  EXPECT_EQ(show({"--genotype", "DARTS_V2"}), counts) << "36 channels and 20 cells are the default";
}

TEST_F(ShowTest, TextAndFile) {
  write_text(at("cell.txt"), std::string(kDartsV1) + "\n");
  const nlohmann::json text = show({"--genotype", kDartsV1}), file = show({"--genotype", "cell.txt"});
  EXPECT_EQ(text.at("parameters"), 3'169'414);
  EXPECT_EQ(text.at("macs"), 500'987'520);
  EXPECT_EQ(text, file);
  EXPECT_EQ(text, show({"--genotype", "DARTS_V1"}));
}

TEST_F(ShowTest, JsonFileBesideTheDrawing) {
  const Outcome outcome = succeed({"show", "--genotype", "PDARTS", "--json", "counts.json"});
  EXPECT_NE(outcome.out.find("normal cell (2 skips)"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find(json("counts.json").at("parameters").dump()), std::string::npos) << outcome.out;
}

TEST_F(ShowTest, Supernets) {
  const nlohmann::json darts =
      show({"--supernet", "darts", "--channels", "16", "--layers", "8", "--classes", "10"});
  EXPECT_EQ(darts.at("parameters"), 1'930'618);
  EXPECT_EQ(darts.at("macs"), 300'255'744);
  const nlohmann::json partial = show(
      {"--supernet", "pc-darts", "--channels", "16", "--layers", "8", "--partial", "4", "--classes", "10"});
  EXPECT_EQ(partial.at("parameters"), 299'578);
  EXPECT_EQ(partial.at("macs"), 56'596'992);
  for (const char* key : {"parameters_auxiliary", "skips_normal", "skips_reduce"})
    EXPECT_EQ(partial.at(key), 0) << key;
}

TEST_F(ShowTest, Refuses) {
  refuse({"show", "--json", "-"}, {"--genotype", "--supernet"});
  refuse({"show", "--json", "-", "--supernet", "resnet"}, {"--supernet", "darts or pc-darts", "resnet"});
  refuse({"show", "--supernet", "pc-darts", "--partial", "3"}, {"partial", "3", "16"});
  refuse({"show", "--supernet", "pc-darts", "--partial", "0"}, {"--partial", "0"});
  refuse({"show", "--genotype", "DARTS_V2", "--image", "33"}, {"image", "33"});
  refuse({"show", "--genotype", "DARTS_V2", "--channels", "0"}, {"channels", "0"});
  refuse({"show", "--genotype", "DARTS_V2", "--channels", "100000000"}, {"channels", "100000000"});
  refuse({"show", "--genotype", "DARTS_V2", "--layers", "-1"}, {"layers", "-1"});
  refuse({"show", "--genotype", "DARTS_V2", "--classes", "0"}, {"--classes", "0"});
  refuse({"show", "--genotype", "DARTS_V2", "--json", "nowhere/counts.json"}, {"nowhere"});
  refuse({"show", "--genotype", "DARTS_V3"}, {"DARTS_V3", "DARTS_V2"});
  refuse({"show", "--genotype", "."}, {"expected a file"});
}

TEST_F(ShowTest, RefusesGenotypesWithTheirPlace) {
  std::string unknown = kDartsV1;
  unknown.replace(unknown.find("sep_conv_3x3"), 12, "sep_conv_9x9");
  refuse({"show", "--genotype", unknown}, {"column 19", "sep_conv_9x9", "sep_conv_5x5"});
  write_text(at("cell.txt"), "# a cell\n" + unknown);
  refuse({"show", "--genotype", "cell.txt"}, {"cell.txt", "line 2", "sep_conv_9x9"});
  write_text(at("cell.txt"), std::string(kDartsV1).substr(0, 100));
  refuse({"show", "--genotype", "cell.txt"}, {"cell.txt", "expected"});
}

}  // namespace
}  // namespace lanas::test
