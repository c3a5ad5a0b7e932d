// predict.cpp -- `bench_latency predict`: a predictor's latency (or other cost) for a genotype, its 90%
// interval, and the contribution of each edge: the derivative of the cost by the edge's entry in the code.
// For a linear predictor these are what the edges add; else they are so to first order.
#include <algorithm>
#include <cstdio>

#include "autograd/plan.h"
#include "bench/common.h"
#include "nas/search_space.h"
#include "predictor/regressor.h"

namespace lanas::bench {
namespace {

struct Prediction {
  double cost = 0;              // in the predictor's unit
  std::vector<float> gradient;  // of it, by each of the code's numbers
};

Prediction predict(const Regressor& regressor, const std::array<float, kCodeSize>& code) {
  Stream stream(Device::cpu, 1);
  Tape tape;
  const Var input = tape.input({1, 1, 1, kCodeSize});
  const Var cost = regressor.apply(tape, input);
  std::copy(code.begin(), code.end(), tape.data(input).data);
  Plan plan(tape, {.outputs = {cost}, .loss = cost, .wanted = {}, .wanted_inputs = {input}},
            std::make_shared<Workspace>());
  plan.forward(stream);
  plan.backward(stream);
  const Tensor gradient = plan.grad(input);
  return {plan.value(cost).data[0], {gradient.data, gradient.data + kCodeSize}};
}

struct PredictCommand {
  Common common;
  std::string predictor, genotype;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("predict", "predicted latency of a genotype, and what its edges add");
    add_common(*sub, common, true);
    sub->add_option("--predictor", predictor, "predictor.safetensors of a run, or of fit --save")->required();
    sub->add_option("--genotype", genotype, "published name, file or text")->required();
    return sub;
  }

  void run() {
    const Stream stream = common.stream();
    const Regressor regressor = Regressor::load(predictor);
    CHECK(regressor.inputs() == kCodeSize, predictor, ": takes ", regressor.inputs(),
          " numbers, a genotype has ", kCodeSize);
    const Genotype g = canonical(resolve_genotype(genotype));
    const Prediction p = predict(regressor, encode(g));
    const double low = p.cost * regressor.lower(), high = p.cost * regressor.upper();

    const std::string unit = regressor.unit(), suffix = unit.empty() ? "" : "_" + unit;
    TextTable table{{"cell", "node", "input", "op", join("contribution", suffix)}, {}};
    Json edges = Json::array();
    for (const bool reduce : {false, true}) {
      const CellGenotype& cell = reduce ? g.reduce : g.normal;
      for (int pair = 0; pair < kPairs; ++pair) {
        const CellEdge& edge = cell[size_t(pair)];
        const int node = pair / 2;
        const double adds = p.gradient[size_t(reduce ? kCellCode : 0) +
                                       size_t(edge_index(node, edge.input) * kOps + int(edge.op))];
        const char* name = reduce ? "reduce" : "normal";
        table.rows.push_back({name, node, edge.input, op_name(edge.op), Cell(adds, 5)});
        edges.push_back({{"cell", name},
                         {"node", node},
                         {"input", edge.input},
                         {"op", op_name(edge.op)},
                         {join("contribution", suffix), adds}});
      }
    }
    char text[200];
    std::snprintf(text, sizeof text, "%.4f %s, 90%% interval %.4f to %.4f\n", p.cost, unit.c_str(), low,
                  high);
    const Json json = {{"genotype", write_genotype(g)},
                       {unit.empty() ? "predicted" : unit, p.cost},
                       {join("low", suffix), low},
                       {join("high", suffix), high},
                       {"edges", edges},
                       {"machine", machine_json(stream)}};
    output(common, json, table, text);
  }
};

}  // namespace

void add_predict(CLI::App& app) { add_command<PredictCommand>(app); }

}  // namespace lanas::bench
