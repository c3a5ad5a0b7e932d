// Rules of the source tree that no compiler checks: which folder may include which, where CUDA headers stand,
// the length of files, and no unfinished marks. The rules are functions of a path and its text, tested on
// made-up files first, then on the tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/core/check.h"

namespace lanas {
namespace {

namespace fs = std::filesystem;
using Files = std::map<std::string, std::string>;  // path within the tree, text
using Found = std::vector<std::string>;            // "path:line: what is wrong"

constexpr int kMaxLines = 450;

// kernels/core < kernels/ops, kernels/vendor < autograd < predictor < nas < bench < tests; -1: another place.
int layer(const std::string& path) {
  const std::vector<std::vector<std::string>> layers = {
      {"kernels/core/"}, {"kernels/ops/", "kernels/vendor/"},
      {"autograd/"},     {"predictor/"},
      {"nas/"},          {"bench/"},
      {"tests/"}};
  for (size_t i = 0; i < layers.size(); ++i)
    for (const std::string& folder : layers[i])
      if (path.starts_with(folder)) return int(i);
  return -1;
}

bool is_cuda_header(const std::string& name) {
  static const std::regex pattern(
      R"((cuda|cublas|cudnn|curand|cusparse|cub/|thrust/|nvml|nvtx|nvToolsExt|mma\.h).*)");
  return std::regex_match(name, pattern);
}
bool may_include_cuda(const std::string& path) {
  static const std::regex pattern(R"(.*\.cuh?|kernels/core/.*_cuda\.cpp|kernels/vendor/.*_cu[^/]*\.cpp)");
  return path.starts_with("kernels/") && std::regex_match(path, pattern);
}

struct Include {
  int line;
  std::string name;
  bool quoted;
};
std::vector<Include> includes_of(const std::string& text) {
  static const std::regex pattern(R"(\s*#\s*include\s*([<"])([^>"]+)[>"].*)");
  std::vector<Include> includes;
  std::istringstream in(text);
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    std::smatch match;
    if (line.find("include") != line.npos && std::regex_match(line, match, pattern))
      includes.push_back({number, match[2], match[1] == "\""});
  }
  return includes;
}

Found upward_includes(const Files& files) {
  Found found;
  for (const auto& [path, text] : files)
    for (const Include& include : includes_of(text)) {
      if (!include.quoted) continue;
      const int to = layer(include.name);
      if (to < 0)
        found.push_back(join(path, ":", include.line, ": ", include.name, " is not named from the root"));
      else if (to > layer(path))
        found.push_back(join(path, ":", include.line, ": includes ", include.name, " from a layer above"));
    }
  return found;
}

// Directly, or through headers of ours; a .cuh that includes CUDA headers counts as one.
Found misplaced_cuda(const Files& files) {
  Found found;
  for (const auto& [path, text] : files) {
    if (may_include_cuda(path)) continue;
    for (const Include& include : includes_of(text)) {
      bool cuda = !include.quoted && is_cuda_header(include.name);
      const auto header = files.find(include.name);
      if (include.quoted && layer(path) > 1 && layer(path) < 6 && header != files.end())
        for (const Include& inner : includes_of(header->second))
          cuda |= !inner.quoted && is_cuda_header(inner.name);
      if (cuda) found.push_back(join(path, ":", include.line, ": CUDA header ", include.name));
    }
  }
  return found;
}

Found long_files(const Files& files) {
  Found found;
  for (const auto& [path, text] : files) {
    const auto lines = std::count(text.begin(), text.end(), '\n');
    if (lines > kMaxLines) found.push_back(join(path, ": ", lines, " lines, at most ", kMaxLines));
  }
  return found;
}

Found unfinished_marks(const Files& files) {
  static const std::vector<std::string> marks = {std::string("TO") + "DO", std::string("FIX") + "ME"};
  Found found;
  for (const auto& [path, text] : files) {
    std::istringstream in(text);
    int number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      for (const std::string& mark : marks)
        if (line.find(mark) != line.npos) found.push_back(join(path, ":", number, ": ", mark));
    }
  }
  return found;
}

std::string lines_of(const Found& found) {
  std::string text;
  for (const std::string& line : found) text += line + '\n';
  return text;
}

// Every source, script and build file below the source folders.
Files read_tree() {
  Files files;
  const fs::path root = LANAS_SOURCE_DIR;
  for (const char* folder :
       {"kernels", "autograd", "predictor", "nas", "bench", "tests", "scripts", "cmake"}) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (!entry.is_regular_file()) continue;
      const std::string extension = entry.path().extension().string();
      static const std::vector<std::string> read = {".h", ".cpp", ".cu", ".cuh", ".py", ".cmake", ".sh"};
      const bool script = std::string(folder) == "scripts";
      if (!script && std::find(read.begin(), read.end(), extension) == read.end()) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      files[fs::relative(entry.path(), root).generic_string()] = {std::istreambuf_iterator<char>(in), {}};
    }
  }
  return files;
}

const Files& tree() {
  static const Files files = read_tree();
  return files;
}

TEST(LayeringRules, FindWhatTheyAreFor) {
  const Files upward = {{"kernels/core/a.h", "#include \"kernels/ops/b.h\"\n"},
                        {"predictor/a.cpp", "\n  #  include \"nas/b.h\"  // why\n"},
                        {"nas/a.cpp", "#include \"genotype.h\"\n"}};
  EXPECT_EQ(lines_of(upward_includes(upward)),
            "kernels/core/a.h:1: includes kernels/ops/b.h from a layer above\n"
            "nas/a.cpp:1: genotype.h is not named from the root\n"
            "predictor/a.cpp:2: includes nas/b.h from a layer above\n");
  const Files downward = {{"nas/a.cpp", "#include \"predictor/b.h\"\n#include <string>\n"},
                          {"kernels/ops/a.h", "#include \"kernels/vendor/b.h\"\n"},
                          {"tests/nas/a.cpp", "#include \"nas/b.h\"\n#include \"tests/support/c.h\"\n"}};
  EXPECT_EQ(lines_of(upward_includes(downward)), "");

  const Files cuda = {{"autograd/a.cpp", "#include <cuda_runtime.h>\n"},
                      {"kernels/ops/a.h", "#include <cub/cub.cuh>\n"},
                      {"kernels/core/x.cuh", "#include <cuda_runtime.h>\n"},
                      {"kernels/core/device_cuda.cpp", "#include <cuda_runtime.h>\n"},
                      {"kernels/vendor/gemm_cublas.cpp", "#include <cublas_v2.h>\n"},
                      {"kernels/ops/a.cu", "#include <mma.h>\n"},
                      {"nas/a.cpp", "#include \"kernels/core/x.cuh\"\n"}};
  EXPECT_EQ(lines_of(misplaced_cuda(cuda)),
            "autograd/a.cpp:1: CUDA header cuda_runtime.h\n"
            "kernels/ops/a.h:1: CUDA header cub/cub.cuh\n"
            "nas/a.cpp:1: CUDA header kernels/core/x.cuh\n");

  EXPECT_EQ(long_files({{"a.h", std::string(kMaxLines, '\n')}}).size(), 0u);
  EXPECT_EQ(long_files({{"a.h", std::string(kMaxLines + 1, '\n')}}).size(), 1u);
  EXPECT_EQ(unfinished_marks({{"a.h", std::string("x\n// TO") + "DO: y\n"}}).size(), 1u);
}

TEST(Layering, NoUpwardIncludes) {
  ASSERT_GT(tree().size(), 50u) << "the tree was not found under " << LANAS_SOURCE_DIR;
  EXPECT_EQ(lines_of(upward_includes(tree())), "");
}

TEST(Layering, CudaHeadersStandWhereTheyMay) { EXPECT_EQ(lines_of(misplaced_cuda(tree())), ""); }

TEST(Layering, NoFileIsTooLong) { EXPECT_EQ(lines_of(long_files(tree())), ""); }

TEST(Layering, NoUnfinishedMarks) { EXPECT_EQ(lines_of(unfinished_marks(tree())), ""); }

}  // namespace
}  // namespace lanas
