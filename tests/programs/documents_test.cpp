// The tables of README.md, docs/performance.md and bench/results/tables/compare_cpu.md are what the files of
// bench/results say: bench/write_tables --check, on the tree and on copies of it with a figure changed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/programs/program.h"

namespace lanas::test {
namespace {

namespace fs = std::filesystem;

int check_tables(const fs::path& root) {
  const std::string script = (root / "bench/write_tables").string();
  const int status = std::system(join("python3 '", script, "' --check 2>/dev/null").c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// A copy of what the script reads and writes.
void copy_documents(const fs::path& to) {
  const fs::path tree = LANAS_SOURCE_DIR;
  for (const char* folder : {"docs", "bench/results"}) {
    fs::create_directories(to / folder);
    fs::copy(tree / folder, to / folder, fs::copy_options::recursive);
  }
  for (const char* file : {"README.md", "bench/write_tables"}) fs::copy(tree / file, to / file);
}

TEST(Documents, TablesAreThoseOfTheResults) { EXPECT_EQ(check_tables(LANAS_SOURCE_DIR), 0); }

TEST(Documents, AChangedFigureIsFound) {
  const TempFolder folder;
  copy_documents(folder.path());
  ASSERT_EQ(check_tables(folder.path()), 0);
  for (const char* name : {"README.md", "docs/performance.md", "bench/results/tables/compare_cpu.md"}) {
    const std::string file = (folder.path() / name).string(), text = read_text(file);
    const size_t at = text.find_last_of("0123456789", text.rfind(": end -->"));  // of the last table
    ASSERT_NE(at, std::string::npos) << name;
    std::string changed = text;
    changed[at] = text[at] == '9' ? '8' : '9';
    write_text(file, changed);
    EXPECT_EQ(check_tables(folder.path()), 1) << name;
    write_text(file, text);
  }
}

}  // namespace
}  // namespace lanas::test
