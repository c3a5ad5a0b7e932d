// report_plots.h -- the report's plots, drawn by gnuplot as SVG text to stand inside an HTML page: no XML
// head, scaled to the page's width, lines and letters in the page's own colour. Each is nothing where gnuplot
// is not installed or fails, and "" where the report has no data for it.
#pragma once

#include <optional>
#include <string>

#include "nas/report.h"

namespace lanas {

// Test accuracy against measured latency with its p10 - p90 bar, one point per network.
std::optional<std::string> plot_accuracy(const RunReport& report);
// Predicted against measured latency of the held-out architectures.
std::optional<std::string> plot_predictions(const RunReport& report);

enum class SearchCurve { valid_accuracy, predicted_ms, entropy };
// One line per searched network over the epochs; two for predicted_ms, soft dashed and hard solid.
std::optional<std::string> plot_search(const RunReport& report, SearchCurve curve);
// Validation accuracy over the epochs of retraining.
std::optional<std::string> plot_training(const RunReport& report);

// The part of an SVG file from <svg on, as it may stand inside an HTML page.
std::string inline_svg(const std::string& file);

}  // namespace lanas
