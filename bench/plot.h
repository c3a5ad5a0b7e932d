// plot.h -- a line or scatter plot as an SVG file, drawn by gnuplot; as a PNG where the file's name ends so,
// for thousands of points.
#pragma once

#include <string>
#include <vector>

#include "nas/gnuplot.h"

namespace lanas::bench {

struct PlotOptions {
  std::string x_label, y_label;
  bool log_x = false, diagonal = false;  // diagonal: y = x, dashed
};

// Error where gnuplot is not installed or fails, there is nothing to draw, or the file cannot be written.
void draw_plot(const std::string& path, const PlotOptions& options, const std::vector<PlotSeries>& series);

}  // namespace lanas::bench
