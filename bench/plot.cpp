#include "bench/plot.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "autograd/checkpoint.h"
#include "kernels/core/check.h"
#include "nas/child_process.h"

namespace lanas::bench {
namespace {

// Told apart by readers with any kind of colour vision.
const char* const kColours[] = {"#3b82d0", "#e07b00", "#2a9d6f", "#b04fb0", "#7a5c3e", "#555555"};

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char ch : text) out += ch == '\'' ? std::string("''") : std::string(1, ch < ' ' ? ' ' : ch);
  return out + "'";
}

}  // namespace

void draw_plot(const std::string& path, const PlotOptions& options, const std::vector<PlotSeries>& series) {
  std::string data, plots;
  for (size_t i = 0; i < series.size(); ++i) {
    std::string rows;
    for (const auto& row : series[i].rows) {
      if (!std::all_of(row.begin(), row.end(), [](double v) { return std::isfinite(v); })) continue;
      for (const double v : row) rows += join(v, ' ');
      rows += '\n';
    }
    if (rows.empty()) continue;
    const std::string block = join("$d", i), &title = series[i].title;
    data += block + " << EOD\n" + rows + "EOD\n";
    plots += join(plots.empty() ? "plot " : ", ", block, " with ", series[i].style, " lc rgb ",
                  quoted(kColours[i % std::size(kColours)]),
                  title.empty() ? " notitle" : " title " + quoted(title));
  }
  CHECK(!plots.empty(), path, ": nothing to draw");
  if (options.diagonal) plots += ", x with lines dt 2 lc rgb '#8a8a8a' title 'equal'";
  const bool png = path.ends_with(".png");
  const std::string script =
      join("set terminal ", png ? "pngcairo" : "svg",
           " noenhanced font 'sans-serif,14' size 640,440 background rgb 'white'\n",
           "set border 3\nset tics nomirror\nset grid lc rgb '#8a8a8a' lw 0.3\nset key tmargin horizontal\n",
           "set offsets graph 0.02, graph 0.02, graph 0.04, graph 0.04\n",
           options.log_x ? "set logscale x 2\n" : "", "set xlabel ", quoted(options.x_label), "\nset ylabel ",
           quoted(options.y_label), "\n", data, plots, "\n");
  const auto image = run_filter({"gnuplot", "-d", "-"}, script);
  CHECK(image, path, ": gnuplot, which draws the plots, is not installed");
  replace_file(path, *image);
}

}  // namespace lanas::bench
