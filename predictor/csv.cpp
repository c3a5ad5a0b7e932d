#include "predictor/csv.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "kernels/core/check.h"

namespace lanas {
namespace {

// A cell for an error message: at most 40 bytes, control characters replaced.
std::string shown(std::string_view cell) {
  std::string text = "'";
  for (char byte : cell.substr(0, 40)) text += static_cast<unsigned char>(byte) < 32 ? '?' : byte;
  return text + (cell.size() > 40 ? "...'" : "'");
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.size() > 300 ? text.substr(0, 300) + "..." : text;
}

bool parse_integer(std::string_view text, int64_t& value) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

// Takes the cells of one line, unquoting in place (the text only shrinks).
void split_line(char* begin, char* end, const std::string& place, std::vector<std::string_view>& cells) {
  for (char* c = begin; c != end; ++c)
    CHECK(static_cast<unsigned char>(*c) >= 32 || *c == '\t', place, "control character ",
          int(static_cast<unsigned char>(*c)));
  char* in = begin;
  while (true) {
    char* const first = in;
    char* out = in;
    if (in != end && *in == '"') {
      for (++in;; ++in) {
        CHECK(in != end, place, "a quoted cell is not closed");
        if (*in == '"' && (in + 1 == end || in[1] != '"')) break;
        if (*in == '"') ++in;
        *out++ = *in;
      }
      ++in;
      CHECK(in == end || *in == ',', place, "text after a closing quote");
    } else {
      while (in != end && *in != ',') {
        CHECK(*in != '"', place, "a quote inside a cell that does not start with one");
        ++in;
      }
      out = in;
    }
    cells.emplace_back(first, size_t(out - first));
    if (in == end) return;
    ++in;  // the comma
  }
}

}  // namespace

bool parse_number(std::string_view text, double& value) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

std::string Table::note(const std::string& key) const {
  for (const auto& [name, value] : notes_)
    if (name == key) return value;
  return "";
}

bool Table::has_column(const std::string& name) const {
  for (const std::string& column : columns_)
    if (column == name) return true;
  return false;
}

int Table::column(const std::string& name) const {
  for (size_t i = 0; i < columns_.size(); ++i)
    if (columns_[i] == name) return int(i);
  throw Error(join(path_, ": no column ", shown(name), "; it has ", joined(columns_)));
}

void Table::fail(int row, const std::string& what) const {
  throw Error(join(path_, ":", line(row), ": ", what));
}

double Table::number(int row, int column) const {
  double value = 0;
  if (!parse_number(cell(row, column), value))
    fail(row, "column " + columns_[size_t(column)] + ": " + shown(cell(row, column)) + " is not a number");
  if (!std::isfinite(value))
    fail(row, "column " + columns_[size_t(column)] + ": " + shown(cell(row, column)) + " is not finite");
  return value;
}

double Table::positive(int row, int column) const {
  const double value = number(row, column);
  if (value <= 0)
    fail(row, "column " + columns_[size_t(column)] + ": " + shown(cell(row, column)) + " is not positive");
  return value;
}

int64_t Table::integer(int row, int column) const {
  int64_t value = 0;
  if (!parse_integer(cell(row, column), value))
    fail(row,
         "column " + columns_[size_t(column)] + ": " + shown(cell(row, column)) + " is not a whole number");
  return value;
}

bool Table::column_is_integer(int column) const {
  int64_t value = 0;
  for (int row = 0; row < rows(); ++row)
    if (!parse_integer(cell(row, column), value)) return false;
  return true;
}

Table parse_table(std::string text, const std::string& path, bool allow_incomplete_last_line) {
  Table table;
  table.path_ = path;
  table.text_ = std::make_unique<std::string>(std::move(text));
  char* begin = table.text_->data();
  char* const end = begin + table.text_->size();
  CHECK(begin != end, path, ": the file is empty");
  if (table.text_->starts_with("\xEF\xBB\xBF")) begin += 3;
  std::vector<std::string_view> line_cells;
  int line = 0;
  while (begin != end) {
    ++line;
    char* stop = begin;
    while (stop != end && *stop != '\n') ++stop;
    if (stop == end) {
      CHECK(allow_incomplete_last_line, path, ":", line, ": the last line is cut (it has no line break)");
      break;
    }
    char* const next = stop + 1;
    if (stop != begin && stop[-1] == '\r') --stop;
    const std::string_view content(begin, size_t(stop - begin));
    if (table.columns_.empty() && content.starts_with("# ")) {
      const size_t equals = content.find('=');
      CHECK(equals != content.npos, path, ":", line, ": a note must read '# key=value'");
      table.notes_.emplace_back(content.substr(2, equals - 2), content.substr(equals + 1));
      begin = next;
      continue;
    }
    const std::string place = join(path, ":", line, ": ");
    CHECK(begin != stop, place, "the line is empty");
    line_cells.clear();
    split_line(begin, stop, place, line_cells);
    if (table.columns_.empty()) {
      for (std::string_view name : line_cells) {
        CHECK(!name.empty(), place, "a column has no name");
        CHECK(!table.has_column(std::string(name)), place, "column ", shown(name), " appears twice");
        table.columns_.emplace_back(name);
      }
    } else {
      CHECK(line_cells.size() == table.columns_.size(), place, line_cells.size(),
            " cells where the header has ", table.columns_.size());
      table.cells_.insert(table.cells_.end(), line_cells.begin(), line_cells.end());
      table.lines_.push_back(line);
    }
    begin = next;
  }
  CHECK(!table.columns_.empty(), path, ": no header line");
  return table;
}

Table read_table(const std::string& path, bool allow_incomplete_last_line) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file, path, ": cannot be read");
  std::string text;
  char block[65536];
  while (file.read(block, sizeof block) || file.gcount() > 0) text.append(block, size_t(file.gcount()));
  CHECK(!file.bad() && file.eof(), path, ": cannot be read");
  return parse_table(std::move(text), path, allow_incomplete_last_line);
}

std::string csv_number(double value) {
  CHECK(std::isfinite(value), "csv_number: ", value, " is not finite");
  char text[40];
  const auto result = std::to_chars(text, text + sizeof text, value);
  return std::string(text, result.ptr);
}

}  // namespace lanas
