// Appending that survives a kill at any byte, and strict reading.
#include "predictor/csv.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "kernels/core/check.h"
#include "tests/support/temp_folder.h"

namespace lanas {
namespace {

class CsvTest : public testing::Test {
 protected:
  void write(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }
  std::string content() const {
    std::ostringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return text.str();
  }
  const TempFolder temp_;
  const std::string folder_ = temp_.path(), path_ = temp_ / "table.csv";
};

template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

const CsvNotes kNotes = {{"device", "cpu"}, {"threads", "1"}};
const std::vector<std::string> kHeader = {"genotype", "latency_ms"};

TEST_F(CsvTest, RoundTripWithNotesCommasAndQuotes) {
  {
    CsvWriter writer(path_, kHeader, kNotes);
    EXPECT_EQ(writer.existing_rows(), 0);
    writer.append({"Genotype(normal=[('skip_connect', 0), ('a', 1)])", csv_number(1.0 / 3)});
    writer.append({"say \"yes\", no", csv_number(1e-9)});
  }
  {
    CsvWriter writer(path_, kHeader, kNotes);
    EXPECT_EQ(writer.existing_rows(), 2);
    writer.append({"", csv_number(25)});
  }
  const Table table = read_table(path_);
  EXPECT_EQ(table.columns(), kHeader);
  EXPECT_EQ(table.notes(), kNotes);
  EXPECT_EQ(table.note("threads"), "1");
  EXPECT_EQ(table.note("absent"), "");
  ASSERT_EQ(table.rows(), 3);
  EXPECT_EQ(table.cell(0, 0), "Genotype(normal=[('skip_connect', 0), ('a', 1)])");
  EXPECT_EQ(table.cell(1, 0), "say \"yes\", no");
  EXPECT_EQ(table.cell(2, 0), "");
  EXPECT_EQ(table.positive(0, 1), 1.0 / 3);
  EXPECT_EQ(table.positive(1, 1), 1e-9);
  EXPECT_EQ(table.line(2), 6);
}

TEST_F(CsvTest, ResumesAfterAKillAtAnyByte) {
  const std::vector<std::vector<std::string>> rows = {{"a,b", "1.5"}, {"c", "2.5"}, {"d", "3.5"}};
  {
    CsvWriter writer(path_, kHeader, kNotes);
    for (const auto& row : rows) writer.append(row);
  }
  const std::string whole = content();
  const std::string head = "# device=cpu\n# threads=1\ngenotype,latency_ms\n";
  ASSERT_TRUE(whole.starts_with(head));
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    write(whole.substr(0, cut));
    {
      CsvWriter writer(path_, kHeader, kNotes);
      const size_t kept = cut < head.size() ? 0 : size_t(writer.existing_rows());
      for (size_t r = kept; r < rows.size(); ++r) writer.append(rows[r]);
    }
    EXPECT_EQ(content(), whole) << "cut at byte " << cut;
  }
}

TEST_F(CsvTest, RefusesAnotherHeaderOrNotes) {
  { CsvWriter writer(path_, kHeader, kNotes); }
  const std::string before = content();
  const auto refusal = [&](const std::vector<std::string>& header, const CsvNotes& notes) {
    return error_of([&] { CsvWriter(path_, header, notes); });
  };
  EXPECT_EQ(refusal({"genotype", "energy"}, kNotes),
            path_ + ": refuses to append: its columns are genotype,latency_ms, expected genotype,energy");
  EXPECT_EQ(refusal(kHeader, {{"device", "cpu"}, {"threads", "2"}}),
            path_ + ": refuses to append: it holds threads=1, expected threads=2");
  EXPECT_EQ(refusal(kHeader, {{"device", "cpu"}, {"threads", "1"}, {"batch", "8"}}),
            path_ + ": refuses to append: it does not state batch, expected batch=8");
  EXPECT_EQ(refusal(kHeader, {{"device", "cpu"}}),
            path_ + ": refuses to append: it states threads=1, which is not expected");
  EXPECT_EQ(content(), before);
  write("something else entirely");
  EXPECT_NE(refusal(kHeader, kNotes), "no error");
  EXPECT_EQ(content(), "something else entirely");
}

TEST_F(CsvTest, RefusesASecondWriterAndBadRows) {
  CsvWriter writer(path_, kHeader);
  EXPECT_EQ(error_of([&] { CsvWriter second(path_, kHeader); }), path_ + ": another process is writing it");
  EXPECT_EQ(error_of([&] { writer.append({"a"}); }), path_ + ": a row of 1 cells where the header has 2");
  EXPECT_NE(error_of([&] { writer.append({"a\nb", "1"}); }), "no error");
  EXPECT_NE(error_of([&] { CsvWriter(folder_ + "/absent/table.csv", kHeader); }), "no error");
  EXPECT_NE(error_of([] { csv_number(0.0 / 0.0); }), "no error");
  EXPECT_EQ(content(), "genotype,latency_ms\n");
}

TEST_F(CsvTest, StrictReading) {
  const auto error = [](const std::string& text) { return error_of([&] { parse_table(text, "t.csv"); }); };
  EXPECT_EQ(error(""), "t.csv: the file is empty");
  EXPECT_EQ(error("# a=b\n"), "t.csv: no header line");
  EXPECT_EQ(error("a,b\n1,2\n3\n"), "t.csv:3: 1 cells where the header has 2");
  EXPECT_EQ(error("a,b\n1,2,3\n"), "t.csv:2: 3 cells where the header has 2");
  EXPECT_EQ(error("a,b\n\n1,2\n"), "t.csv:2: the line is empty");
  EXPECT_EQ(error("a,a\n"), "t.csv:1: column 'a' appears twice");
  EXPECT_EQ(error("a,\n"), "t.csv:1: a column has no name");
  EXPECT_EQ(error("a,b\n1,2"), "t.csv:2: the last line is cut (it has no line break)");
  EXPECT_EQ(error("a,b\n1,\"2\n"), "t.csv:2: a quoted cell is not closed");
  EXPECT_EQ(error("a,b\n1,\"2\"3\n"), "t.csv:2: text after a closing quote");
  EXPECT_EQ(error("a,b\n1,2\"3\n"), "t.csv:2: a quote inside a cell that does not start with one");
  EXPECT_EQ(error(std::string("a,b\n1,\0\n", 8)), "t.csv:2: control character 0");
  EXPECT_EQ(error("# no value\na\n"), "t.csv:1: a note must read '# key=value'");
  EXPECT_EQ(error_of([&] { read_table(folder_ + "/absent.csv"); }), folder_ + "/absent.csv: cannot be read");
  EXPECT_EQ(error_of([&] { read_table(folder_); }), folder_ + ": cannot be read");
  EXPECT_EQ(error("a,b\r\n1,2\r\n"), "no error");

  const Table cut = parse_table("a,b\n1,2\n3,", "t.csv", true);
  EXPECT_EQ(cut.rows(), 1);
}

TEST_F(CsvTest, StrictNumbers) {
  const Table table =
      parse_table("x,latency_ms\n1,2.5\n2,zero\n3,nan\n4,inf\n5,0\n6,-1\n7,1e999\n8,2.5 \n9,\n", "t.csv");
  const int c = table.column("latency_ms");
  const auto error = [&](int row) { return error_of([&] { table.positive(row, c); }); };
  EXPECT_EQ(table.positive(0, c), 2.5);
  EXPECT_EQ(error(1), "t.csv:3: column latency_ms: 'zero' is not a number");
  EXPECT_EQ(error(2), "t.csv:4: column latency_ms: 'nan' is not finite");
  EXPECT_EQ(error(3), "t.csv:5: column latency_ms: 'inf' is not finite");
  EXPECT_EQ(error(4), "t.csv:6: column latency_ms: '0' is not positive");
  EXPECT_EQ(error(5), "t.csv:7: column latency_ms: '-1' is not positive");
  EXPECT_EQ(error(6), "t.csv:8: column latency_ms: '1e999' is not a number");
  EXPECT_EQ(error(7), "t.csv:9: column latency_ms: '2.5 ' is not a number");
  EXPECT_EQ(error(8), "t.csv:10: column latency_ms: '' is not a number");
  EXPECT_EQ(table.number(5, c), -1);
  EXPECT_TRUE(table.column_is_integer(0));
  EXPECT_FALSE(table.column_is_integer(c));
  EXPECT_EQ(error_of([&] { table.column("energy"); }), "t.csv: no column 'energy'; it has x, latency_ms");
}

}  // namespace
}  // namespace lanas
