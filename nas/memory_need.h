// memory_need.h -- what a training will need, from its plans alone, before anything is allocated; and what
// the machine has left.
#pragma once

#include <cstddef>
#include <string>

#include "nas/retrain.h"
#include "nas/search.h"

namespace lanas {

struct MemoryNeed {
  size_t workspace = 0;   // activations and their gradients, planned
  size_t parameters = 0;  // values, gradients and optimiser state
  size_t images = 0;      // the data set: as read, and on the device
  size_t total() const { return workspace + parameters + images; }
};

MemoryNeed search_memory(const SearchConfig& config, const ImageData& data);
MemoryNeed retrain_memory(const RetrainConfig& config, const Genotype& genotype, const ImageData& data);
// The genotype whose network plans the most memory for: separable convolutions on all edges.
Genotype heaviest_genotype();

// Free memory of the machine or of this process's control group, whichever is less; 0: not known.
size_t available_memory();

// "search needs 1.2 GiB (activations 0.9, parameters 0.1, images 0.2), 10.0 GiB are free".
std::string memory_text(const std::string& who, const MemoryNeed& need, size_t available);
// Error with a batch that fits, or the advice to take fewer channels, where the need exceeds what is
// available (0: not known, so nothing is refused). batch_flag, channels_flag: the options' names.
void check_memory(const std::string& who, const MemoryNeed& need, size_t available, int batch,
                  const char* batch_flag, const char* channels_flag);

}  // namespace lanas
