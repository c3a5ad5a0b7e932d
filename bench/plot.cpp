#include "bench/plot.h"

#include "autograd/checkpoint.h"
#include "kernels/core/check.h"
#include "nas/child_process.h"

namespace lanas::bench {

void draw_plot(const std::string& path, const PlotOptions& options, const std::vector<PlotSeries>& series) {
  const std::string head = join("set terminal ", path.ends_with(".png") ? "pngcairo" : "svg",
                                " noenhanced font 'sans-serif,14' size 640,440 background rgb 'white'\n",
                                "set offsets graph 0.02, graph 0.02, graph 0.04, graph 0.04\n",
                                options.log_x ? "set logscale x 2\n" : "");
  const std::string script =
      plot_script(head, options.x_label, options.y_label, series,
                  options.diagonal ? join(", x with lines dt 2 lc rgb '", kPlotGrey, "' title 'equal'") : "");
  CHECK(!script.empty(), path, ": nothing to draw");
  const auto image = run_filter({"gnuplot", "-d", "-"}, script);
  CHECK(image, path, ": gnuplot, which draws the plots, is not installed");
  replace_file(path, *image);
}

}  // namespace lanas::bench
