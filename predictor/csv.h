// csv.h -- tables on disk: written one whole line at a time so that a kill at any byte loses at most the row
// in flight, and read strictly. A file is optional notes ("# key=value" lines: whose measurements these are),
// a header line, and rows with the header's number of cells. Cells holding a comma or a quote are quoted as
// in RFC 4180; no cell holds a line break, so a line is a row.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lanas {

using CsvNotes = std::vector<std::pair<std::string, std::string>>;

// The whole table in memory. Every error is one line "path:line: ..." or "path: ...".
class Table {
 public:
  const std::string& path() const { return path_; }
  const CsvNotes& notes() const { return notes_; }
  std::string note(const std::string& key) const;  // "" where the file has no such note
  const std::vector<std::string>& columns() const { return columns_; }
  int rows() const { return int(lines_.size()); }
  int line(int row) const { return lines_[size_t(row)]; }  // 1-based, of the file

  bool has_column(const std::string& name) const;
  int column(const std::string& name) const;  // Error where absent, listing the columns there are
  std::string_view cell(int row, int column) const {
    return cells_[size_t(row) * columns_.size() + size_t(column)];
  }
  double number(int row, int column) const;                        // finite, else Error
  double positive(int row, int column) const;                      // finite and > 0 (a latency), else Error
  int64_t integer(int row, int column) const;                      // a whole number, else Error
  bool column_is_integer(int column) const;                        // every cell is a whole number
  [[noreturn]] void fail(int row, const std::string& what) const;  // throws Error "path:line: what"

 private:
  friend Table parse_table(std::string text, const std::string& path, bool allow_incomplete_last_line);
  std::string path_;
  CsvNotes notes_;
  std::vector<std::string> columns_;
  std::vector<int> lines_;
  std::unique_ptr<std::string> text_;  // cells_ point into it
  std::vector<std::string_view> cells_;
};

// Error where the file is empty, has no header, a row has another number of cells than the header, a quote is
// not closed, a byte is a control character, or the last line has no line break (it was cut). With
// allow_incomplete_last_line the cut line is dropped instead: for a file that a killed writer left behind.
Table read_table(const std::string& path, bool allow_incomplete_last_line = false);
Table parse_table(std::string text, const std::string& path, bool allow_incomplete_last_line = false);

// Appends rows. Opening drops an incomplete last line, writes notes and header to a new or empty file, and
// throws Error where the file's notes or header differ (naming the file and both sides), where another
// process is writing it, or where it cannot be written. The file is never rewritten.
class CsvWriter {
 public:
  CsvWriter(const std::string& path, const std::vector<std::string>& header, const CsvNotes& notes = {});
  ~CsvWriter();
  CsvWriter(CsvWriter&& other) noexcept;
  CsvWriter& operator=(CsvWriter&&) = delete;

  // One row by one write() call; on a full disk the part that was written is taken back and Error is thrown.
  void append(const std::vector<std::string>& cells);
  int64_t existing_rows() const { return existing_rows_; }  // whole rows found when the file was opened

 private:
  void check_head(const std::string& text, const std::vector<std::string>& header, const CsvNotes& notes);
  void write_text(const std::string& text);

  std::string path_;
  int file_ = -1;
  size_t columns_ = 0;
  int64_t bytes_ = 0;  // of whole lines
  int64_t existing_rows_ = 0;
};

// The whole of `text` as a number (it may be infinite); false where it is none.
bool parse_number(std::string_view text, double& value);
// The shortest text that reads back as the same number. Error where the value is not finite.
std::string csv_number(double value);

}  // namespace lanas
