// ops_mlp.cpp -- the predictor's networks and its loss on the tape; see ops.h.
#include "autograd/ops.h"
#include "kernels/ops/fused_mlp.h"
#include "kernels/ops/relative_loss.h"

namespace lanas {
namespace {

// The inputs of the op: x, each network's weights and biases layer by layer, then the linear map's.
template <class Use>
void for_parameters(const FusedMlp<float>& op, Use use) {
  int index = 1;
  for (int k = 0; k < op.members; ++k)
    for (int l = 0; l <= op.hidden; ++l, index += 2) use(k, l, index);
}

FusedMlp<float> bind(FusedMlp<float> op, const Run& run, bool skip) {
  for_parameters(op, [&](int k, int l, int i) {
    op.weight[k][l] = run.in(i).data;
    op.bias[k][l] = run.in(i + 1).data;
  });
  const int last = 1 + 2 * op.members * (op.hidden + 1);
  if (skip) op.skip_weight = run.in(last).data, op.skip_bias = run.in(last + 1).data;
  return op;
}

FusedMlpGradient<float> gradients(const FusedMlp<float>& op, const Run& run, bool skip) {
  FusedMlpGradient<float> gradient;
  const auto slot = [&](int i) { return MlpGradient<float>{run.grad_in(i).data, run.beta(i)}; };
  gradient.dx = run.grad_in(0);
  gradient.beta_dx = run.beta(0);
  for_parameters(op, [&](int k, int l, int i) {
    gradient.weight[k][l] = slot(i);
    gradient.bias[k][l] = slot(i + 1);
  });
  const int last = 1 + 2 * op.members * (op.hidden + 1);
  if (skip) gradient.skip_weight = slot(last), gradient.skip_bias = slot(last + 1);
  return gradient;
}

}  // namespace

Var fused_mlp(Tape& tape, Var x, std::vector<MlpLayers> networks, Var skip_weight, Var skip_bias) {
  CHECK(!networks.empty() && networks.size() <= kMlpMembers, "fused_mlp: ", networks.size(),
        " networks, expected 1 to ", kMlpMembers);
  CHECK(bool(skip_weight) == bool(skip_bias), "fused_mlp: a linear map needs both weights and bias");
  FusedMlp<float> op;
  op.inputs = tape.shape(x).c;
  op.members = int(networks.size());
  op.hidden = int(networks[0].weights.size()) - 1;
  CHECK(op.hidden >= 1 && op.hidden <= kMlpHidden, "fused_mlp: ", op.hidden, " hidden layers, expected 1 to ",
        kMlpHidden);
  for (int l = 0; l < op.hidden; ++l) op.width[l] = tape.shape(networks[0].weights[size_t(l)]).n;
  std::vector<Var> inputs{x};
  int64_t macs = skip_weight ? op.inputs : 0;
  for (const MlpLayers& network : networks) {
    CHECK(int(network.weights.size()) == op.hidden + 1 && network.biases.size() == network.weights.size(),
          "fused_mlp: networks of ", op.hidden + 1, " and ", network.weights.size(), " layers with ",
          network.biases.size(), " biases");
    for (int l = 0; l <= op.hidden; ++l) {
      const Var w = network.weights[size_t(l)], b = network.biases[size_t(l)];
      const int out = l < op.hidden ? op.width[l] : 1;
      CHECK(tape.shape(w) == Shape({out, 1, 1, op.fan_in(l)}) && tape.shape(b) == Shape({1, 1, 1, out}),
            "fused_mlp: layer ", l, " has weights ", tape.shape(w), " and bias ", tape.shape(b),
            " in networks ", op.widths());
      inputs.push_back(w), inputs.push_back(b);
      macs += int64_t{out} * op.fan_in(l);
    }
  }
  const bool skip = bool(skip_weight);
  if (skip) {
    CHECK(tape.shape(skip_weight) == Shape({1, 1, 1, op.inputs}) &&
              tape.shape(skip_bias) == Shape({1, 1, 1, 1}),
          "fused_mlp: linear map ", tape.shape(skip_weight), " with bias ", tape.shape(skip_bias),
          " for rows of ", op.inputs);
    inputs.push_back(skip_weight), inputs.push_back(skip_bias);
  }
  const int rows = tape.shape(x).n;
  auto tickets = std::make_shared<Memory>();
  if (tape.device() == Device::cuda) {
    const std::vector<char> zeros(kMlpTicketBytes, 0);
    *tickets = Memory(Device::cuda, kMlpTicketBytes);
    upload(Device::cuda, tickets->data(), zeros.data(), zeros.size());
    op.tickets = static_cast<unsigned*>(tickets->data());
  }
  const Var y = tape.activation({rows, 1, 1, 1});
  tape.record({.name = "fused_mlp",
               .inputs = inputs,
               .outputs = {y},
               .saved = inputs,
               .forward =
                   [op, skip, tickets](Run& run) {
                     fused_mlp_forward(run.stream, bind(op, run, skip), run.out(0), run.in(0), run.scratch());
                   },
               .backward =
                   [op, skip, tickets](Run& run) {
                     fused_mlp_backward(run.stream, bind(op, run, skip), gradients(op, run, skip),
                                        run.grad_out(0), run.in(0), run.scratch());
                   },
               .scratch_bytes = fused_mlp_scratch_bytes(op, rows, tape.device()),
               .macs = macs * rows});
  return y;
}

Var relative_loss(Tape& tape, Var u, Var coefficients) {
  CHECK(tape.shape(u).c == 1 && tape.shape(coefficients) == Shape({tape.shape(u).n, 1, 1, 3}),
        "relative_loss: predictions ", tape.shape(u), " do not match coefficients ",
        tape.shape(coefficients));
  const Var loss = tape.activation({1, 1, 1, 1});
  tape.record(
      {.name = "relative_loss",
       .inputs = {u, coefficients},
       .outputs = {loss},
       .saved = {u, coefficients},
       .forward = [](Run& run) { relative_loss_forward(run.stream, run.out(0).data, run.in(0), run.in(1)); },
       .backward =
           [](Run& run) {
             if (run.wants(0))
               relative_loss_backward(run.stream, run.grad_in(0), run.in(0), run.in(1), run.grad_out(0).data,
                                      run.beta(0));
           }});
  return loss;
}

}  // namespace lanas
