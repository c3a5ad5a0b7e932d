// supernet.h -- the network that holds every architecture at once: each edge is the weighted sum of all eight
// ops (cell.h), in the forms of DARTS and PC-DARTS. All cells of a kind share one alpha (and beta).
#pragma once

#include <memory>
#include <string>

#include "autograd/module.h"
#include "nas/genotype.h"

namespace lanas {

struct SupernetConfig {
  int channels = 16, layers = 8, classes = 10, image = 32, batch = 64;
  int partial = 4;           // k of partial channels; 1: plain DARTS
  bool edge_weights = true;  // beta of PC-DARTS
  static SupernetConfig darts() { return {16, 8, 10, 32, 64, 1, false}; }
  static SupernetConfig pc_darts() { return {}; }
};

// alpha_normal, alpha_reduce [1,1,1,112]: 14 edges x 8 ops; with edge weights beta_normal, beta_reduce
// [1,1,1,14]. Start at 1e-3 * normal draws.
void add_architecture(ParameterStore& architecture, bool edge_weights);
Genotype derive_genotype(const ParameterStore& architecture);

// A supernet on a tape of its own. Several may share the stores (batches of other sizes); the stores must
// outlive it.
class Supernet {
 public:
  Supernet(const SupernetConfig& config, ParameterStore& weights, ParameterStore& buffers,
           ParameterStore& architecture);

  Tape tape;
  Var images;             // input [batch, image, image, 3], normalised
  Var labels;             // input [batch,1,1,1], int32
  Var logits;             // [batch,1,1,classes]
  Var loss;               // mean cross entropy
  Var alpha[2], beta[2];  // normal, reduce; beta absent without edge weights
};

}  // namespace lanas
