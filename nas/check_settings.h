// check_settings.h -- settings that cannot work, found before anything is written or measured: every error is
// one line with the flag, what was expected and what was found.
#pragma once

#include "nas/image_data.h"
#include "nas/pipeline.h"

namespace lanas {

void check_search_settings(const SearchConfig& config);
void check_retrain_settings(const RetrainConfig& config);
// How a network is measured: its sizes, batch and threads.
void check_latency_settings(const RunConfig& config);
// All of a run's; those above included.
void check_run_settings(const RunConfig& config);

// The same against the images: side, classes, and enough of them for a batch.
void check_search_images(const SearchConfig& config, const ImageData& data);
void check_retrain_images(const RetrainConfig& config, const ImageData& data);

// A place that a result can be written to at the end: "", "-" or a file in a folder that exists.
void check_json_target(const std::string& path);
// The same of the file that another flag names.
void check_writable(const char* flag, const std::string& path);

}  // namespace lanas
