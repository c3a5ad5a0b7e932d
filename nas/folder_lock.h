// folder_lock.h -- one process at a time works in a folder: the second is told so instead of mixing results.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "kernels/core/check.h"

namespace lanas {

// Holds FOLDER/.lock for its lifetime; a kill lets go of it too. Error where another process holds it.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder) {
    const std::string path = folder + "/.lock";
    file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    CHECK(file_ >= 0, path, ": cannot be written: ", std::strerror(errno));
    // A file system that knows no locks keeps nobody out.
    if (flock(file_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
    close(file_);
    throw Error(folder + ": another process is working in this folder");
  }
  ~FolderLock() { close(file_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_ = -1;
};

}  // namespace lanas
