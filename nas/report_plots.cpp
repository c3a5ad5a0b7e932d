// report_plots.cpp -- writes gnuplot scripts with their data inside.
#include "nas/report_plots.h"

#include <vector>

#include "nas/child_process.h"
#include "nas/gnuplot.h"

namespace lanas {
namespace {

bool is_random(const NetworkResult& network) { return network.name.starts_with("random"); }

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// Black becomes the colour of the page's text, and gnuplot's name the plot's.
std::string fit_to_page(const std::string& file, const std::string& title) {
  std::string text = inline_svg(file);
  replace_all(text, "color=\"black\"", "");
  for (const char quote : {'"', '\''})
    replace_all(text, join(quote, "black", quote), join(quote, "currentColor", quote));
  const size_t name = text.find("<title>"), end = text.find("</desc>");
  if (name != std::string::npos && end != std::string::npos)
    text.replace(name, end + 7 - name, "<title>" + title + "</title>");
  return text;
}

std::optional<std::string> draw(const std::string& title, const std::string& x_label,
                                const std::string& y_label, const std::vector<PlotSeries>& series,
                                const std::string& extra_plot = "") {
  const std::string script = plot_script(
      "set terminal svg dynamic noenhanced font 'sans-serif,15' size 520,380\n"
      "set offsets graph 0.04, graph 0.04, graph 0.06, graph 0.06\n",
      x_label, y_label, series, extra_plot);
  if (script.empty()) return "";
  try {
    const std::optional<std::string> svg = run_filter({"gnuplot", "-d", "-"}, script);
    if (svg) return fit_to_page(*svg, title);
  } catch (const Error&) {  // a report without pictures is better than none
  }
  return std::nullopt;
}

// One row per epoch: its number and the value of it.
template <class Epoch, class Value>
PlotSeries curve(const std::string& title, const std::string& colour, const std::vector<Epoch>& epochs,
                 const Value& value) {
  PlotSeries series{.title = title, .colour = colour};
  for (const Epoch& epoch : epochs) series.rows.push_back({double(epoch.epoch + 1), value(epoch)});
  return series;
}

}  // namespace

std::string inline_svg(const std::string& file) {
  const size_t begin = file.find("<svg");
  return begin == std::string::npos ? "" : file.substr(begin);
}

std::optional<std::string> plot_accuracy(const RunReport& report) {
  std::vector<PlotSeries> series;
  PlotSeries random{"random genotypes", "xerrorbars pt 7 ps 0.8 lw 1.5", {}, kPlotGrey};
  for (const NetworkResult& n : report.networks) {
    const std::vector<double> row = {n.latency_ms.median_ms, 100 * n.test_accuracy, n.latency_ms.p10_ms,
                                     n.latency_ms.p90_ms};
    if (is_random(n))
      random.rows.push_back(row);
    else
      series.push_back({n.name, "xerrorbars pt 7 ps 1.2 lw 2", {row}, plot_colour(series.size())});
  }
  series.push_back(random);
  return draw("Test accuracy against measured latency", "measured latency, ms", "test accuracy, %", series);
}

std::optional<std::string> plot_predictions(const RunReport& report) {
  PlotSeries points{"held-out architectures", "points pt 7 ps 0.5"};
  for (const auto& [predicted, measured] : report.predictor.held_out)
    points.rows.push_back({measured, predicted});
  return draw("Predicted against measured latency", "measured latency, ms", "predicted latency, ms", {points},
              join(", x with lines dt 2 lc rgb '", kPlotGrey, "' title 'predicted = measured'"));
}

std::optional<std::string> plot_search(const RunReport& report, SearchCurve kind) {
  std::vector<PlotSeries> series;
  size_t searched = 0;
  for (const NetworkResult& n : report.networks) {
    if (n.search.empty()) continue;
    const char* colour = plot_colour(searched++);
    auto add = [&](const std::string& title, auto value) {
      series.push_back(curve(title, colour, n.search, value));
    };
    switch (kind) {
      case SearchCurve::valid_accuracy:
        add(n.name, [](const SearchEpoch& e) { return 100 * e.valid_accuracy; });
        break;
      case SearchCurve::entropy:
        add(n.name, [](const SearchEpoch& e) { return e.alpha_entropy; });
        break;
      case SearchCurve::predicted_ms:  // 0: no predictor
        add(n.name + " hard", [](const SearchEpoch& e) { return e.hard_ms > 0 ? e.hard_ms : kUnknown; });
        add(n.name + " soft", [](const SearchEpoch& e) { return e.soft_ms > 0 ? e.soft_ms : kUnknown; });
        series.back().style += " dt 2";
    }
  }
  switch (kind) {
    case SearchCurve::valid_accuracy:
      return draw("Validation accuracy during search", "epoch", "validation accuracy, %", series);
    case SearchCurve::entropy:
      return draw("Entropy of the architecture parameters", "epoch", "entropy, nats", series);
    case SearchCurve::predicted_ms:
      return draw("Predicted latency during search", "epoch", "predicted latency, ms", series);
  }
  return "";
}

std::optional<std::string> plot_training(const RunReport& report) {
  std::vector<PlotSeries> series;
  size_t searched = 0;
  bool titled = false;  // one entry in the key for all random genotypes
  for (const NetworkResult& n : report.networks) {
    const bool random = is_random(n);
    const std::string title = !random ? n.name : titled ? "" : "random genotypes";
    titled |= random;
    series.push_back(curve(title, random ? kPlotGrey : plot_colour(searched++), n.training,
                           [](const RetrainEpoch& e) { return 100 * e.valid_accuracy; }));
  }
  return draw("Validation accuracy during retraining", "epoch", "validation accuracy, %", series);
}

}  // namespace lanas
