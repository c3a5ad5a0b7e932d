// gnuplot.h -- what the plots of reports and of bench_latency have in common: a script with its data inside.
#pragma once

#include <string>
#include <vector>

namespace lanas {

struct PlotSeries {
  std::string title;                                   // "": not in the key
  std::string style = "linespoints pt 7 ps 0.5 lw 2";  // gnuplot's
  std::vector<std::vector<double>> rows = {};  // x, y, ...; one with a number that is not finite is left out
  std::string colour = "";                     // "": the next of plot_colour
};

constexpr const char* kPlotGrey = "#8a8a8a";
// The i-th of six colours, told apart by readers with any kind of colour vision, on light and dark pages.
const char* plot_colour(size_t i);

// head: lines for the terminal and the axes. after: what to plot after the series. "" where none has a row.
std::string plot_script(const std::string& head, const std::string& x_label, const std::string& y_label,
                        const std::vector<PlotSeries>& series, const std::string& after = "");

}  // namespace lanas
