#include "nas/trainer_state.h"

#include "nas/settings.h"

namespace lanas {

using Json = nlohmann::json;

// How an epoch orders its images: a checkpoint goes on to the same bits only in the order it began with.
static constexpr const char* kOrder = "sorted by Philox keys";

void run_training(TrainerState& state, Checkpointer& saver, const Training& training) {
  const int64_t steps = int64_t{training.epochs} * training.steps_per_epoch;
  while (state.epoch < training.epochs && !(state.step == 0 && training.finished && training.finished())) {
    const double start_ms =
        now_ms() - 1000 * state.epoch_seconds;  // as if this epoch had never been interrupted
    training.begin_epoch();
    while (state.step < training.steps_per_epoch) {
      const double loss = training.step();
      ++state.step;
      state.epoch_seconds = seconds_since(start_ms);
      if (training.on_step)
        training.on_step(int64_t{state.epoch} * training.steps_per_epoch + state.step, steps, loss);
      if (state.step < training.steps_per_epoch) saver.after_step(false, training.save);
    }
    training.end_epoch(start_ms);
    state.begin_epoch();
    saver.after_step(true, training.save);
  }
}

TensorFile read_checkpoint(const std::string& path, const std::string& kind, const Json& settings) {
  TensorFile file = read_tensors(path);
  auto text = [&](const char* key) {
    auto found = file.metadata.find(key);
    CHECK(found != file.metadata.end(), path, ": expected a ", kind, " checkpoint, found no '", key,
          "' in its metadata");
    return found->second;
  };
  CHECK(text("kind") == kind, path, ": expected a ", kind, " checkpoint, found kind '", text("kind"), "'");
  text("state"), text("history");
  const auto order = file.metadata.find("order");
  CHECK(order != file.metadata.end() && order->second == kOrder, path,
        ": another version wrote it, which orders the images of an epoch differently: expected '", kOrder,
        "', found ", order == file.metadata.end() ? "nothing" : "'" + order->second + "'", "; start anew");
  const Json found = Json::parse(text("settings"), nullptr, false);
  CHECK(found.is_object(), path, ": its settings are not a JSON object");
  check_same_settings(found, settings, path);
  return file;
}

void describe_checkpoint(TensorFile& file, const std::string& kind, const Json& settings,
                         const TrainerState& state, const Json& history) {
  file.metadata["kind"] = kind;
  file.metadata["order"] = kOrder;
  file.metadata["settings"] = settings.dump();
  file.metadata["state"] = state.to_json().dump();
  file.metadata["history"] = history.dump();
}

}  // namespace lanas
