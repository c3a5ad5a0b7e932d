// temp_folder.h -- a fresh folder for one test, removed with it. The name is unique, so tests that run side
// by side, or the same tests in two builds, never meet in a file.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

namespace lanas {

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = testing::TempDir() + "/lanas_XXXXXX";
    if (!mkdtemp(pattern.data()))
      throw std::filesystem::filesystem_error(pattern, {errno, std::generic_category()});
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace lanas
