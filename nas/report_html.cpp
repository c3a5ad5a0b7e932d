// report_html.cpp -- the report as one page: styles, pictures and data inside, nothing fetched.
#include <fstream>

#include "nas/child_process.h"
#include "nas/draw.h"
#include "nas/progress.h"
#include "nas/report_plots.h"
#include "nas/report_text.h"

namespace lanas {
namespace {

using Rows = std::vector<std::vector<std::string>>;

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --line: #8884; --note: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
h3 { font-size: 1.05rem; }
.lead { font-size: 1.1rem; padding: .7rem 1rem; background: var(--note); border-radius: .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; max-width: 36rem; } figure svg { width: 100%; height: auto; } figcaption { font-size: .92rem; }
.cells { background: #fff; color: #000; border-radius: .5rem; padding: .5rem; overflow-x: auto; }
.cells svg { width: 46rem; max-width: 100%; min-width: 34rem; height: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .6rem; background: var(--note); border-radius: .5rem; font-size: .85rem; }
)";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char ch : text) {
    if (ch == '&')
      out += "&amp;";
    else if (ch == '<')
      out += "&lt;";
    else if (ch == '>')
      out += "&gt;";
    else if (ch == '"')
      out += "&quot;";
    else
      out += ch;
  }
  return out;
}

std::string paragraph(const std::string& text) { return "<p>" + escaped(text) + "</p>\n"; }
std::string heading(const std::string& text) { return "<h2>" + escaped(text) + "</h2>\n"; }
std::string details(const std::string& summary, const std::string& html) {
  return "<details><summary>" + escaped(summary) + "</summary>\n" + html + "</details>\n";
}

std::string table(const Rows& rows) {
  std::string html = "<div class=\"wide\"><table>\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    const char* cell = r ? "td" : "th";
    html += "<tr>";
    for (const std::string& text : rows[r]) html += join('<', cell, '>', escaped(text), "</", cell, '>');
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

// A figure, or "" where there is no picture.
std::string figure(const std::optional<std::string>& svg, const std::string& caption) {
  if (!svg || svg->empty()) return "";
  return "<figure>" + *svg + "<figcaption>" + escaped(caption) + "</figcaption></figure>\n";
}

std::string setting_value(const RunReport& report, const std::string& key, const std::string& otherwise) {
  for (const auto& [name, value] : report.latency_setting)
    if (name == key) return value;
  return otherwise;
}

std::string summary(const RunReport& report) {
  std::string html = "<h1>Architecture search with a latency term</h1>\n";
  for (const std::string& line : target_lines(report)) html += paragraph(line);
  for (const std::string& line : disturbed_lines(report)) html += paragraph(line);
  for (const std::string& line : comparisons(report)) html += "<p class=\"lead\">" + escaped(line) + "</p>\n";
  html += paragraph(join("Preset ", report.preset, ", seed ", report.seed, ", images: ", report.data,
                         ". Finished ", report.date, " after ", format_seconds(report.seconds),
                         " with at most ", fixed(double(report.peak_bytes) / 1e9, 2),
                         " GB of memory. This is one run with one seed: small differences in accuracy may be "
                         "chance."));
  return html;
}

std::string what_was_searched() {
  return heading("What was searched") +
         paragraph(
             "A network is a stack of cells of two kinds: normal cells, and reduction cells that halve the "
             "image's side. A cell has two inputs and four nodes; every node adds up two earlier results, "
             "each "
             "passed through one of seven operations. The search trains one large network that holds all "
             "choices at once "
             "and learns which to keep.") +
         paragraph(
             "lambda0 was searched for accuracy alone. The network with a lambda above zero was searched "
             "with "
             "lambda times the predicted latency added to the loss. Random genotypes were drawn, not "
             "searched, "
             "to show what the search itself is worth. All were then trained from scratch in the same way. "
             "The "
             "test images were used once per network, after everything else was decided.");
}

std::string how_measured(const RunReport& report) {
  const auto value = [&](const char* key) { return setting_value(report, key, "unknown"); };
  return heading("Machine, and how latency was measured") + paragraph("Machine: " + report.machine + ".") +
         paragraph(join(
             "Latency is the time of one forward pass of the finished network, in milliseconds: device ",
             value("device"), ", ", value("threads"), " thread(s), batch ", value("batch"),
             ", images of side ", value("image"), ", ", value("channels"), " channels and ", value("layers"),
             " cells. Batch norm is folded into the convolutions and memory is "
             "reused, as in use. After a warm-up the pass is repeated until the median settles. The "
             "tables give the median and the 10th and 90th percentile of the repeats. "
             "These times hold for this machine and this setting only."));
}

std::string networks_section(const RunReport& report) {
  return heading("Networks") + table(network_rows(report)) +
         paragraph(
             "vs lambda0: change of the measured latency. Skips: skip connections in the normal and the "
             "reduction cell; many of them mean a search that collapsed. Parameters leave the auxiliary head "
             "out. MACs: multiplications of convolutions and the final layer, for one image.") +
         "<div class=\"plots\">\n" +
         figure(plot_accuracy(report), "Up and to the left is better. Bars: 10th to 90th percentile.") +
         figure(plot_training(report), "Retraining from scratch, on held-out training images.") + "</div>\n";
}

std::optional<std::string> cell_picture(const Genotype& genotype) {
  try {
    return run_filter({"dot", "-Tsvg"}, draw_dot(genotype));
  } catch (const Error&) {  // a report without pictures is better than none
    return std::nullopt;
  }
}

std::string cells_section(const RunReport& report) {
  std::string html = heading("The cells found");
  html += paragraph("c_{k-1} and c_{k-2} are the outputs of the two cells before. Dashed: skip connections.");
  for (const NetworkResult& network : report.networks) {
    const std::optional<std::string> svg = cell_picture(network.genotype);
    std::string cell = svg ? "<div class=\"cells\">" + inline_svg(*svg) + "</div>\n"
                           : paragraph("graphviz is not installed or failed, so the cell is given as text.") +
                                 "<pre>" + escaped(draw_text(network.genotype)) + "</pre>\n";
    cell += "<pre>" + escaped(write_genotype(network.genotype)) + "</pre>\n";
    if (network.search.empty())
      html += details(network.name, cell);
    else
      html += "<h3>" + escaped(network.name) + "</h3>\n" + cell;
  }
  return html;
}

std::string predictor_section(const RunReport& report) {
  std::string html = heading("The latency predictor");
  for (const std::string& line : predictor_lines(report.predictor)) html += paragraph(line);
  html += paragraph(
      "The predictor is a small neural network that reads a genotype and gives milliseconds. Its errors are "
      "shares of the "
      "measured latency, on architectures kept aside. The noise is that of one measurement, from those taken "
      "twice, at the two ends of the campaign. Rank correlation is 1 when the predicted order is the "
      "measured order.");
  return html + "<div class=\"plots\">\n" +
         figure(plot_predictions(report), "Each point is an architecture the predictor had not seen.") +
         "</div>\n";
}

Rows search_rows(const NetworkResult& network) {
  Rows rows = {
      {"epoch", "training loss", "validation accuracy", "soft ms", "hard ms", "entropy", "skips", "seconds"}};
  for (const SearchEpoch& e : network.search)
    rows.push_back({join(e.epoch + 1), fixed(e.train_loss, 3), percent(e.valid_accuracy),
                    e.soft_ms > 0 ? fixed(e.soft_ms, 3) : "-", e.hard_ms > 0 ? fixed(e.hard_ms, 3) : "-",
                    fixed(e.alpha_entropy, 3), join(e.skips_normal, " + ", e.skips_reduce),
                    fixed(e.seconds, 1)});
  return rows;
}

std::string search_section(const RunReport& report) {
  std::string html = heading("The searches");
  html += paragraph(
      "Validation accuracy is that of the large network, on training images that its weights do not see; the "
      "accuracy of the finished networks stands above. Soft: the latency predicted for the mixture as it "
      "stands. "
      "Hard: for the genotype that would be kept if the search stopped there. Entropy: 2.08 when all eight "
      "choices count "
      "alike, 0 when one is certain.");
  const std::optional<std::string> accuracy = plot_search(report, SearchCurve::valid_accuracy);
  if (!accuracy)
    html += paragraph(
        "gnuplot is not installed or failed, so there are no curves; the tables below have their numbers.");
  html +=
      "<div class=\"plots\">\n" + figure(accuracy, "Validation accuracy of the large network.") +
      figure(plot_search(report, SearchCurve::predicted_ms), "Predicted latency: hard solid, soft dashed.") +
      figure(plot_search(report, SearchCurve::entropy), "How decided the search is.") + "</div>\n";
  for (const NetworkResult& network : report.networks)
    if (!network.search.empty())
      html += details("Every epoch of the search for " + network.name, table(search_rows(network)));
  return html;
}

std::string settings_section(const RunReport& report) {
  Rows rows = {{"stage", "time"}};
  for (const auto& [name, seconds] : report.stages) rows.push_back({name, format_seconds(seconds)});
  return heading("Time and settings") + table(rows) +
         details("All settings", "<pre>" + escaped(report.config.dump(2)) + "</pre>\n");
}

}  // namespace

void write_report_html(const std::string& path, const RunReport& report) {
  std::ofstream file(path, std::ios::binary);
  file << "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
       << "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
       << "<title>LaNAS run: " << escaped(report.preset) << ", seed " << report.seed << "</title>\n"
       << "<style>" << kStyle << "</style></head><body>\n"
       << summary(report) << networks_section(report) << cells_section(report) << predictor_section(report)
       << search_section(report) << what_was_searched() << how_measured(report) << settings_section(report)
       << "</body></html>\n";
  file.close();
  CHECK(file.good(), path, ": cannot be written, expected a place for the report");
}

}  // namespace lanas
