// Tests of nas/draw: dot text, terminal text, SVG with and without graphviz.
#include "nas/draw.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/support/temp_folder.h"
#include "tests/support/text.h"

namespace lanas {
namespace {

namespace fs = std::filesystem;

TEST(Draw, DotHasEveryEdgeOfBothCells) {
  const Genotype v2 = resolve_genotype("DARTS_V2");
  const std::string dot = draw_dot(v2, "the \"best\"\\");
  EXPECT_EQ(count_of(dot, " -> "), 2 * (8 + 4));
  EXPECT_EQ(count_of(dot, "label=\"c_{k-2}\""), 2);
  EXPECT_EQ(count_of(dot, "label=\"c_{k-1}\""), 2);
  EXPECT_EQ(count_of(dot, "label=\"output\""), 2);
  EXPECT_EQ(count_of(dot, "label=\"sep_conv_3x3\""), 5);
  EXPECT_EQ(count_of(dot, "label=\"max_pool_3x3\""), 5);
  EXPECT_EQ(count_of(dot, "style=dashed"), 5);  // skips
  EXPECT_NE(dot.find("normal_2 -> normal_5 [label=\"dil_conv_3x3\""), std::string::npos);
  EXPECT_NE(dot.find("label=\"the \\\"best\\\"\\\\\";"), std::string::npos);
  EXPECT_EQ(count_of(dot, "{"), count_of(dot, "}"));
}

TEST(Draw, TextForTheTerminal) {
  EXPECT_EQ(draw_text(resolve_genotype("DARTS_V2")),
            "normal cell (2 skips)\n"
            "  node 2\n    c_{k-2} -- sep_conv_3x3\n    c_{k-1} -- sep_conv_3x3\n"
            "  node 3\n    c_{k-2} -- sep_conv_3x3\n    c_{k-1} -- sep_conv_3x3\n"
            "  node 4\n    c_{k-1} -- sep_conv_3x3\n    c_{k-2} -- skip_connect\n"
            "  node 5\n    c_{k-2} -- skip_connect\n    node 2  -- dil_conv_3x3\n"
            "  output\n    concat of nodes 2, 3, 4, 5\n"
            "reduce cell (3 skips)\n"
            "  node 2\n    c_{k-2} -- max_pool_3x3\n    c_{k-1} -- max_pool_3x3\n"
            "  node 3\n    node 2  -- skip_connect\n    c_{k-1} -- max_pool_3x3\n"
            "  node 4\n    c_{k-2} -- max_pool_3x3\n    node 2  -- skip_connect\n"
            "  node 5\n    node 2  -- skip_connect\n    c_{k-1} -- max_pool_3x3\n"
            "  output\n    concat of nodes 2, 3, 4, 5\n");
}

TEST(Draw, RefusesInvalidGenotypes) {
  EXPECT_THROW(draw_dot(Genotype{}), Error);
  EXPECT_THROW(draw_text(Genotype{}), Error);
}

class SvgTest : public testing::Test {
 protected:
  const TempFolder temp_;
  const fs::path folder_ = temp_.path(), path_ = folder_ / "cells of 'x'.svg";
  const std::string dot_ = draw_dot(published_genotypes()[0].genotype, "DARTS_V1");
};

TEST_F(SvgTest, WritesAPictureWhereGraphvizIsInstalled) {
  ASSERT_TRUE(write_svg(path_, dot_)) << "graphviz is not installed; scripts/setup does it";
  std::ifstream file(path_);
  const std::string svg(std::istreambuf_iterator<char>(file), {});
  EXPECT_NE(svg.find("<svg"), std::string::npos);
  EXPECT_NE(svg.find("</svg>"), std::string::npos);
  EXPECT_EQ(count_of(svg, "class=\"edge\""), 24);
  EXPECT_THROW(write_svg(folder_ / "missing" / "x.svg", dot_), Error);
  try {
    write_svg(path_, "digraph {");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("dot failed: "), 0u) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
}

TEST_F(SvgTest, SaysSoWhereItIsNot) {
  const char* path = std::getenv("PATH");
  const std::string saved = path ? path : "";
  setenv("PATH", folder_.c_str(), 1);
  const bool written = write_svg(path_, dot_);
  setenv("PATH", saved.c_str(), 1);
  EXPECT_FALSE(written);
  EXPECT_FALSE(fs::exists(path_));
}

}  // namespace
}  // namespace lanas
