#include "nas/supernet.h"

#include <vector>

#include "nas/cell.h"

namespace lanas {

void add_architecture(ParameterStore& architecture, bool edge_weights) {
  for (const char* kind : {"normal", "reduce"}) {
    architecture.add(join("alpha_", kind), {1, 1, 1, kEdges * kOps}, Init::normal(1e-3f));
    if (edge_weights) architecture.add(join("beta_", kind), {1, 1, 1, kEdges}, Init::normal(1e-3f));
  }
}

Genotype derive_genotype(const ParameterStore& architecture) {
  const auto alpha_normal = architecture.read("alpha_normal"),
             alpha_reduce = architecture.read("alpha_reduce"), beta_normal = architecture.read("beta_normal"),
             beta_reduce = architecture.read("beta_reduce");
  return derive_genotype(alpha_normal.data(), alpha_reduce.data(),
                         beta_normal.empty() ? nullptr : beta_normal.data(),
                         beta_reduce.empty() ? nullptr : beta_reduce.data());
}

Supernet::Supernet(const SupernetConfig& config, ParameterStore& weights, ParameterStore& buffers,
                   ParameterStore& architecture)
    : tape(weights.device()) {
  CHECK(config.image >= 8 && config.image % 4 == 0, "supernet: image side ", config.image,
        " is not divisible by 4");
  Builder b{tape, weights, buffers};
  add_architecture(architecture, config.edge_weights);
  const char* kinds[2] = {"normal", "reduce"};
  Mixing mixing[2];
  for (int kind = 0; kind < 2; ++kind) {
    alpha[kind] = tape.parameter(architecture, architecture.find(join("alpha_", kinds[kind])));
    if (config.edge_weights)
      beta[kind] = tape.parameter(architecture, architecture.find(join("beta_", kinds[kind])));
    mixing[kind] = mixing_weights(tape, alpha[kind], beta[kind]);
  }
  images = tape.input({config.batch, config.image, config.image, 3});
  labels = tape.input({config.batch, 1, 1, 1});
  const int stem_channels = 3 * config.channels;
  Var previous = batch_norm(b, "stem.bn",
                            conv2d(tape, images, b.conv_weight("stem.conv", stem_channels, 3, 3), {1, 1, 1}));
  Var current = previous;
  const std::vector<CellPlace> places = cell_places(config.channels, config.layers);
  for (size_t i = 0; i < places.size(); ++i) {
    const Var output = supernet_cell(b, join("cells.", i), places[i], config.partial,
                                     mixing[places[i].reduction], previous, current);
    previous = current;
    current = output;
  }
  logits = classifier(b, "classifier", current, config.classes);
  loss = cross_entropy(tape, logits, labels, 0);
}

}  // namespace lanas
