// plot.h -- a line or scatter plot as an SVG file, drawn by gnuplot; as a PNG where the file's name ends so,
// for thousands of points.
#pragma once

#include <string>
#include <vector>

namespace lanas::bench {

struct PlotSeries {
  std::string title;                      // "": not in the key
  std::string style;                      // gnuplot's, for instance "linespoints pt 7"
  std::vector<std::vector<double>> rows;  // x, y, ...; a row with a number that is not finite is left out
};

struct PlotOptions {
  std::string x_label, y_label;
  bool log_x = false, diagonal = false;  // diagonal: y = x, dashed
};

// Error where gnuplot is not installed or fails, there is nothing to draw, or the file cannot be written.
void draw_plot(const std::string& path, const PlotOptions& options, const std::vector<PlotSeries>& series);

}  // namespace lanas::bench
