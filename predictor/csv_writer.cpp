// csv_writer.cpp -- the appending half of csv.h, on POSIX files: one write() per line, O_APPEND, and an
// advisory lock so that two campaigns cannot interleave their rows.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/core/check.h"
#include "predictor/csv.h"

namespace lanas {
namespace {

std::string quoted(const std::string& cell, const std::string& path) {
  bool quote = cell.starts_with("# ");
  for (char c : cell) {
    CHECK(static_cast<unsigned char>(c) >= 32 || c == '\t', path, ": a cell may not hold control character ",
          int(static_cast<unsigned char>(c)));
    quote = quote || c == ',' || c == '"';
  }
  if (!quote) return cell;
  std::string text = "\"";
  for (char c : cell) text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + '"';
}

std::string csv_line(const std::vector<std::string>& cells, const std::string& path) {
  std::string text;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (i > 0) text += ',';
    text += quoted(cells[i], path);
  }
  return text += '\n';
}

std::string head_text(const std::vector<std::string>& header, const CsvNotes& notes,
                      const std::string& path) {
  std::string text;
  for (const auto& [key, value] : notes) {
    CHECK(!key.empty() && key.find_first_of("=\n\r") == key.npos && value.find_first_of("\n\r") == value.npos,
          path, ": note '", key, "' cannot be written");
    text += "# " + key + "=" + value + "\n";
  }
  return text + csv_line(header, path);
}

std::string list(const std::vector<std::string>& cells) {
  std::string text;
  for (const std::string& cell : cells) text += (text.empty() ? "" : ",") + cell;
  return text.size() > 300 ? text.substr(0, 300) + "..." : text;
}

std::string read_all(int file, const std::string& path) {
  std::string text;
  char block[65536];
  for (off_t at = 0;;) {
    const ssize_t got = pread(file, block, sizeof block, at);
    if (got < 0 && errno == EINTR) continue;
    CHECK(got >= 0, path, ": cannot be read (", std::strerror(errno), ")");
    if (got == 0) return text;
    text.append(block, size_t(got));
    at += got;
  }
}

}  // namespace

CsvWriter::CsvWriter(const std::string& path, const std::vector<std::string>& header, const CsvNotes& notes)
    : path_(path), columns_(header.size()) {
  const std::string head = head_text(header, notes, path);
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  CHECK(file_ >= 0, path, ": cannot be opened for writing (", std::strerror(errno), ")");
  try {
    CHECK(flock(file_, LOCK_EX | LOCK_NB) == 0, path, ": another process is writing it");
    const std::string text = read_all(file_, path);
    // A kill while the head was being written leaves a strict prefix of it: start again.
    const bool fresh = text.size() < head.size() && head.starts_with(text);
    if (!fresh) check_head(text, header, notes);
    const size_t last = text.rfind('\n');
    bytes_ = fresh || last == text.npos ? 0 : int64_t(last) + 1;
    if (bytes_ != int64_t(text.size()))
      CHECK(ftruncate(file_, bytes_) == 0, path, ": cannot drop its cut last line (", std::strerror(errno),
            ")");
    if (fresh)
      write_text(head);
    else
      existing_rows_ = std::count(text.begin(), text.end(), '\n') - int64_t(notes.size()) - 1;
  } catch (...) {
    close(file_);
    throw;
  }
}

CsvWriter::~CsvWriter() {
  if (file_ >= 0) close(file_);
}

CsvWriter::CsvWriter(CsvWriter&& other) noexcept
    : path_(std::move(other.path_)),
      file_(other.file_),
      columns_(other.columns_),
      bytes_(other.bytes_),
      existing_rows_(other.existing_rows_) {
  other.file_ = -1;
}

void CsvWriter::check_head(const std::string& text, const std::vector<std::string>& header,
                           const CsvNotes& notes) {
  const Table table = parse_table(text, path_, true);
  for (const auto& [key, value] : notes) {
    const auto same = [&key = key](const auto& note) { return note.first == key; };
    const bool there = std::any_of(table.notes().begin(), table.notes().end(), same);
    CHECK(there, path_, ": refuses to append: it does not state ", key, ", expected ", key, "=", value);
    CHECK(table.note(key) == value, path_, ": refuses to append: it holds ", key, "=", table.note(key),
          ", expected ", key, "=", value);
  }
  for (const auto& [key, value] : table.notes()) {
    const auto same = [&key = key](const auto& note) { return note.first == key; };
    CHECK(std::any_of(notes.begin(), notes.end(), same), path_, ": refuses to append: it states ", key, "=",
          value, ", which is not expected");
  }
  CHECK(table.notes().size() == notes.size(), path_, ": refuses to append: it states a note twice");
  CHECK(table.columns() == header, path_, ": refuses to append: its columns are ", list(table.columns()),
        ", expected ", list(header));
}

void CsvWriter::write_text(const std::string& text) {
  ssize_t written;
  do written = write(file_, text.data(), text.size());
  while (written < 0 && errno == EINTR);
  if (written != ssize_t(text.size())) {
    const int reason = written < 0 ? errno : ENOSPC;
    const bool undone = ftruncate(file_, bytes_) == 0;
    throw Error(
        join(path_, ": cannot append (", std::strerror(reason), undone ? ")" : "); a cut line remains"));
  }
  bytes_ += written;
}

void CsvWriter::append(const std::vector<std::string>& cells) {
  CHECK(cells.size() == columns_, path_, ": a row of ", cells.size(), " cells where the header has ",
        columns_);
  write_text(csv_line(cells, path_));
}

}  // namespace lanas
