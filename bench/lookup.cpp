#include "bench/lookup.h"

#include <cmath>
#include <filesystem>

#include "bench/training_step.h"
#include "nas/cell.h"
#include "nas/interrupt.h"
#include "predictor/csv.h"

namespace lanas::bench {
namespace {

const char* const kKinds[] = {"normal", "reduce"};

Var parameter(Tape& tape, ParameterStore& store, const std::string& name, Shape shape) {
  return tape.parameter(store, store.add(name, shape, Init::uniform(0.3f)));
}

// One op of the deployed network: from x, c channels, to a new tensor.
Var record_op(Tape& tape, ParameterStore& store, OpKind op, Var x, int c, int stride) {
  const auto unit = [&](const std::string& name, int kernel, int step, int dilation) {
    return InferenceUnit{{parameter(tape, store, name + "d", {1, kernel, kernel, c}),
                          parameter(tape, store, name + "p", {c, 1, 1, c}), step, dilation, 0, true},
                         parameter(tape, store, name + "b", {1, 1, 1, c})};
  };
  const auto convolution = [&](const InferencePath& path) { return separable_conv_inference(tape, x, path); };
  switch (op) {
    case OpKind::max_pool_3x3:
      return max_pool(tape, x, 3, stride, 1);
    case OpKind::avg_pool_3x3:
      return avg_pool(tape, x, 3, stride, 1);
    case OpKind::sep_conv_3x3:
      return convolution({unit("1", 3, stride, 1), unit("2", 3, 1, 1)});
    case OpKind::sep_conv_5x5:
      return convolution({unit("1", 5, stride, 1), unit("2", 5, 1, 1)});
    case OpKind::dil_conv_3x3:
      return convolution({unit("1", 3, stride, 2)});
    case OpKind::dil_conv_5x5:
      return convolution({unit("1", 5, stride, 2)});
    default:
      break;
  }
  if (stride == 1) return sum(tape, {x});
  const Shape s = tape.shape(x);
  const Var out = tape.activation({s.n, s.h / 2, s.w / 2, c});
  for (int half = 0; half < 2; ++half) {
    const std::string name = half ? "2" : "1";
    const Separable geometry{{}, parameter(tape, store, name + "p", {c / 2, 1, 1, c}), 2, 1, half, true};
    separable_conv_inference(tape, x,
                             {.first = {geometry, parameter(tape, store, name + "b", {1, 1, 1, c / 2})},
                              .out = tape.slice(out, half * c / 2, (half + 1) * c / 2)});
  }
  return out;
}

double time_op(const LatencyConfig& config, Stream& stream, CoreWatch* watch, OpKind op, int side,
               int channels, int stride) {
  Tape tape(config.device);
  ParameterStore store(config.device);
  const Var x = tape.input({config.network.batch, side, side, channels});
  const Var y = record_op(tape, store, op, x, channels, stride);
  store.allocate(1);
  fill_inputs(stream, tape, x, {}, 1, 1);
  Plan plan(tape, {.outputs = {y}, .loss = {}, .wanted = {}, .wanted_inputs = {}},
            std::make_shared<Workspace>(config.device));
  const auto run = [&] {
    plan.forward(stream);
    stream.synchronize();
  };
  return summarise(time_until_settled(run, config, now_ms, watch)).median_ms;
}

}  // namespace

double LookupTable::sum_ms(const float* code) const {
  double sum = 0;
  for (int kind = 0; kind < 2; ++kind)
    for (int edge = 0; edge < kEdges; ++edge)
      for (int op = 1; op < kOps; ++op)
        sum += double(code[kind * kCellCode + edge * kOps + op]) *
               ms[size_t(kind)][size_t(edge_input(edge) < 2)][size_t(op)];
  return sum;
}

LookupTable measure_lookup(const LatencyConfig& config) {
  std::optional<CoreWatch> watch = core_watch(config);
  const NetworkConfig& network = config.network;
  CHECK(!network.imagenet(), "look-up table: the ImageNet form is not covered");
  Stream stream(config.device, config.threads);
  LookupTable table;
  std::array<double, 3> sides = {double(network.image), network.image / 2.0, network.image / 4.0};
  std::array<std::array<std::array<double, 2>, kOps>, 3> known{};  // [stage][op][stride - 1], ms; 0: not yet
  int stage = 0;
  for (const CellPlace& place : cell_places(network.channels, network.layers)) {
    // A reduction cell's edges read maps of the stage before it where they have stride 2, else its own.
    const int next = stage + (place.reduction ? 1 : 0);
    for (int op = 1; op < kOps; ++op)
      for (const int from_input : {0, 1}) {
        const int stride = place.reduction && from_input ? 2 : 1;
        const auto at = size_t(stride == 2 ? stage : next);
        double& ms = known[at][size_t(op)][size_t(stride - 1)];
        if (stop_requested()) throw Interrupted("look-up table: stopped");
        if (ms == 0)
          ms = time_op(config, stream, watch ? &*watch : nullptr, OpKind(op), int(sides[at]), place.channels,
                       stride);
        table.ms[place.reduction][size_t(from_input)][size_t(op)] += ms;
      }
    stage = next;
  }
  return table;
}

void write_lookup(const std::string& path, const LookupTable& table, const LatencyConfig& config) {
  std::filesystem::remove(path);
  CsvWriter writer(path, {"cell", "from_cell_input", "op", "ms"}, latency_setting(config));
  for (const int kind : {0, 1})
    for (const int from_input : {0, 1})
      for (int op = 1; op < kOps; ++op)
        writer.append({kKinds[kind], std::to_string(from_input), op_name(OpKind(op)),
                       csv_number(table.ms[size_t(kind)][size_t(from_input)][size_t(op)])});
}

LookupTable read_lookup(const std::string& path, const std::string& setting) {
  const Table file = read_table(path);
  CHECK(setting_text(file.notes()) == setting, path, ": measured on ", setting_text(file.notes()),
        ", the campaign on ", setting);
  CHECK(file.rows() == 4 * kChoosableOps, path, ": ", file.rows(), " rows, expected ", 4 * kChoosableOps);
  LookupTable table;
  for (int r = 0; r < file.rows(); ++r) {
    const std::string_view kind = file.cell(r, file.column("cell"));
    if (kind != kKinds[0] && kind != kKinds[1]) file.fail(r, "column cell: expected normal or reduce");
    const int64_t from_input = file.integer(r, file.column("from_cell_input"));
    if (from_input < 0 || from_input > 1) file.fail(r, "column from_cell_input: expected 0 or 1");
    const OpKind op = op_from_name(file.cell(r, file.column("op")));
    double& ms = table.ms[kind == kKinds[1]][size_t(from_input)][size_t(op)];
    if (ms != 0) file.fail(r, "this op stands in the table already");
    // A network of one or two cells has none of a kind: 0.
    ms = file.number(r, file.column("ms"));
    if (ms < 0) file.fail(r, "column ms: a time is below 0");
  }
  return table;
}

}  // namespace lanas::bench
