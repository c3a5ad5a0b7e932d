// layout.h -- where the cells of a network stand: channels and reductions, as in the public DARTS code.
#pragma once

#include <vector>

#include "kernels/core/check.h"

namespace lanas {

struct CellPlace {
  int channels;          // per node; the cell's output has kNodes times as many
  bool reduction;        // halves the side; stands at layers/3 and 2*layers/3, where channels double
  bool after_reduction;  // input 0 comes from before a reduction: it has twice the side
};

// `first_after_reduction`: the ImageNet form, whose first cell reads stems of different sides.
inline std::vector<CellPlace> cell_places(int channels, int layers, bool first_after_reduction = false) {
  CHECK(channels > 0 && channels <= 4096 && layers > 0 && layers <= 1000,
        "network: expected 1-4096 channels and 1-1000 layers, found ", channels, " and ", layers);
  std::vector<CellPlace> places;
  bool previous = first_after_reduction;
  for (int i = 0; i < layers; ++i) {
    const bool reduction = i == layers / 3 || i == 2 * layers / 3;
    if (reduction) channels *= 2;
    places.push_back({channels, reduction, previous});
    previous = reduction;
  }
  return places;
}

}  // namespace lanas
