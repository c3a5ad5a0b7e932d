#include "nas/gnuplot.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "kernels/core/check.h"

namespace lanas {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char ch : text) out += ch == '\'' ? std::string("''") : std::string(1, ch < ' ' ? ' ' : ch);
  return out + "'";
}

bool finite(const std::vector<double>& row) {
  return std::all_of(row.begin(), row.end(), [](double value) { return std::isfinite(value); });
}

}  // namespace

const char* plot_colour(size_t i) {
  static const char* const kColours[] = {"#3b82d0", "#e07b00", "#2a9d6f", "#b04fb0", "#7a5c3e", "#555555"};
  return kColours[i % std::size(kColours)];
}

std::string plot_script(const std::string& head, const std::string& x_label, const std::string& y_label,
                        const std::vector<PlotSeries>& series, const std::string& after) {
  std::string data, plots;
  for (size_t i = 0; i < series.size(); ++i) {
    const PlotSeries& s = series[i];
    std::string rows;
    for (const auto& row : s.rows) {
      if (!finite(row)) continue;
      for (const double value : row) rows += join(value, ' ');
      rows += '\n';
    }
    if (rows.empty()) continue;
    const std::string block = join("$d", i);
    data += block + " << EOD\n" + rows + "EOD\n";
    plots += join(plots.empty() ? "plot " : ", ", block, " with ", s.style, " lc rgb ",
                  quoted(s.colour.empty() ? plot_colour(i) : s.colour),
                  s.title.empty() ? " notitle" : " title " + quoted(s.title));
  }
  if (plots.empty()) return "";
  return join(head, "set border 3\nset tics nomirror\nset grid lc rgb ", quoted(kPlotGrey),
              " lw 0.3\nset key tmargin horizontal\nset xlabel ", quoted(x_label), "\nset ylabel ",
              quoted(y_label), "\n", data, plots, after, "\n");
}

}  // namespace lanas
