// report_plots.cpp -- writes gnuplot scripts with their data inside.
#include "nas/report_plots.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "nas/child_process.h"

namespace lanas {
namespace {

// Told apart by readers with any kind of colour vision, and on light and dark pages.
const char* const kColours[] = {"#3b82d0", "#e07b00", "#2a9d6f", "#b04fb0"};
const char* const kGrey = "#8a8a8a";

bool is_random(const NetworkResult& network) { return network.name.starts_with("random"); }

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char ch : text) out += ch == '\'' ? std::string("''") : std::string(1, ch < ' ' ? ' ' : ch);
  return out + "'";
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

struct Series {
  std::string title, colour;
  std::string style = "linespoints pt 7 ps 0.5 lw 2";
  std::vector<std::vector<double>> rows = {};  // one with a number that is not finite is left out
};

bool finite(const std::vector<double>& row) {
  return std::all_of(row.begin(), row.end(), [](double value) { return std::isfinite(value); });
}

// gnuplot's data blocks and what to plot of them; both "" where no series has a row.
void add_series(std::string& data, std::string& plots, const std::vector<Series>& series) {
  int used = 0;
  for (const Series& s : series) {
    std::string rows;
    for (const auto& row : s.rows) {
      if (!finite(row)) continue;
      for (const double value : row) rows += join(value, ' ');
      rows += '\n';
    }
    if (rows.empty()) continue;
    const std::string block = join("$d", used++);
    data += block + " << EOD\n" + rows + "EOD\n";
    plots += join(plots.empty() ? "plot " : ", ", block, " with ", s.style, " lc rgb ", quoted(s.colour),
                  s.title.empty() ? " notitle" : " title " + quoted(s.title));
  }
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
                                const std::string& y_label, const std::vector<Series>& series,
                                const std::string& extra_plot = "") {
  std::string data, plots;
  add_series(data, plots, series);
  if (plots.empty()) return "";
  const std::string script =
      join("set terminal svg dynamic noenhanced font 'sans-serif,15' size 520,380\n",
           "set border 3\nset tics nomirror\nset grid lc rgb '#8a8a8a' lw 0.3\nset key tmargin horizontal\n",
           "set offsets graph 0.04, graph 0.04, graph 0.06, graph 0.06\n", "set xlabel ", quoted(x_label),
           "\nset ylabel ", quoted(y_label), "\n", data, plots, extra_plot, "\n");
  try {
    const std::optional<std::string> svg = run_filter({"gnuplot", "-d", "-"}, script);
    if (svg) return fit_to_page(*svg, title);
  } catch (const Error&) {  // a report without pictures is better than none
  }
  return std::nullopt;
}

// One row per epoch: its number and the value of it.
template <class Epoch, class Value>
Series curve(const std::string& title, const std::string& colour, const std::vector<Epoch>& epochs,
             const Value& value) {
  Series series{.title = title, .colour = colour};
  for (const Epoch& epoch : epochs) series.rows.push_back({double(epoch.epoch + 1), value(epoch)});
  return series;
}

}  // namespace

std::string inline_svg(const std::string& file) {
  const size_t begin = file.find("<svg");
  return begin == std::string::npos ? "" : file.substr(begin);
}

std::optional<std::string> plot_accuracy(const RunReport& report) {
  std::vector<Series> series;
  Series random{"random genotypes", kGrey, "xerrorbars pt 7 ps 0.8 lw 1.5", {}};
  for (const NetworkResult& n : report.networks) {
    const std::vector<double> row = {n.latency_ms.median_ms, 100 * n.test_accuracy, n.latency_ms.p10_ms,
                                     n.latency_ms.p90_ms};
    if (is_random(n))
      random.rows.push_back(row);
    else
      series.push_back(
          {n.name, kColours[series.size() % std::size(kColours)], "xerrorbars pt 7 ps 1.2 lw 2", {row}});
  }
  series.push_back(random);
  return draw("Test accuracy against measured latency", "measured latency, ms", "test accuracy, %", series);
}

std::optional<std::string> plot_predictions(const RunReport& report) {
  Series points{"held-out architectures", kColours[0], "points pt 7 ps 0.5", {}};
  for (const auto& [predicted, measured] : report.predictor.held_out)
    points.rows.push_back({measured, predicted});
  return draw("Predicted against measured latency", "measured latency, ms", "predicted latency, ms", {points},
              ", x with lines dt 2 lc rgb '#8a8a8a' title 'predicted = measured'");
}

std::optional<std::string> plot_search(const RunReport& report, SearchCurve kind) {
  std::vector<Series> series;
  size_t searched = 0;
  for (const NetworkResult& n : report.networks) {
    if (n.search.empty()) continue;
    const char* colour = kColours[searched++ % std::size(kColours)];
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
  std::vector<Series> series;
  size_t searched = 0;
  bool titled = false;  // one entry in the key for all random genotypes
  for (const NetworkResult& n : report.networks) {
    const bool random = is_random(n);
    const std::string title = !random ? n.name : titled ? "" : "random genotypes";
    titled |= random;
    series.push_back(curve(title, random ? kGrey : kColours[searched++ % std::size(kColours)], n.training,
                           [](const RetrainEpoch& e) { return 100 * e.valid_accuracy; }));
  }
  return draw("Validation accuracy during retraining", "epoch", "validation accuracy, %", series);
}

}  // namespace lanas
