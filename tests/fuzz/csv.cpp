// csv.cpp -- fuzzing the reader of tables (predictor/csv.h): every cell is read in every way, and what was
// read is a data set or refused.
#include "predictor/csv.h"

#include "predictor/dataset.h"
#include "tests/fuzz/fuzz.h"

using namespace lanas;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  for (const bool cut : {false, true})
    fuzz::refuses_or_reads([&] {
      const Table table = parse_table(text, "table.csv", cut);
      const int columns = int(table.columns().size());
      for (int r = 0; r < table.rows(); ++r)
        for (int c = 0; c < columns; ++c) {
          if (table.cell(r, c).size() > size) fuzz::found("a cell longer than the file", "");
          fuzz::refuses_or_reads([&] { table.number(r, c); });
          fuzz::refuses_or_reads([&] { table.positive(r, c); });
          fuzz::refuses_or_reads([&] { table.integer(r, c); });
        }
      const std::vector<std::string> features(table.columns().begin(), table.columns().end() - 1);
      const Dataset data = read_dataset(table, features, table.columns().back());
      for (const double y : data.y)
        if (!(y > 0)) fuzz::found("a target that is not above 0", std::to_string(y));
      if (data.x.size() != size_t(data.rows) * size_t(data.columns))
        fuzz::found("a table of another size", "");
    });
  return 0;
}
