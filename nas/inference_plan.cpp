#include "nas/inference_plan.h"

#include <omp.h>

#include <algorithm>
#include <cstring>

namespace lanas {
namespace {

NetworkConfig with_batch(NetworkConfig config, int batch) {
  config.batch = batch;
  return config;
}

int chunk_for(int batch, const Stream& stream) {
  if (stream.device() == Device::cuda || batch < stream.threads()) return batch;
  return std::min(InferencePlan::kChunk, (batch + stream.threads() - 1) / stream.threads());
}

}  // namespace

InferencePlan::Part::Part(const NetworkConfig& config, const Genotype& genotype, ParameterStore& folded,
                          std::shared_ptr<Workspace> workspace)
    : network(config, genotype, folded),
      plan(network.tape, {.outputs = {network.logits}}, std::move(workspace)) {}

InferencePlan::InferencePlan(const NetworkConfig& config, const Genotype& genotype, ParameterStore& folded,
                             const Stream& stream, InferenceMemory* memory)
    : batch_(config.batch), chunk_(chunk_for(config.batch, stream)) {
  CHECK(batch_ >= 1, "InferencePlan: batch ", batch_);
  const int chunks = (batch_ + chunk_ - 1) / chunk_, workers = std::min(chunks, stream.threads());
  if (!memory) memory = &own_memory_;
  while (int(memory->size()) < workers) memory->push_back(std::make_shared<Workspace>(stream.device()));
  for (int i = 0; i < workers; ++i)
    parts_.emplace_back(with_batch(config, chunk_), genotype, folded, (*memory)[size_t(i)]);
  if (whole()) return;
  images_ = Memory(stream.device(), size_t(batch_) * size_t(images().size() / images().n) * sizeof(float));
  logits_ = Memory(stream.device(), size_t(batch_) * size_t(config.classes) * sizeof(float));
}

void InferencePlan::fold(const ParameterStore& weights, const ParameterStore& buffers) {
  parts_.front().network.fold(weights, buffers);
}

Tensor InferencePlan::images() const {
  const InferenceNetwork& network = parts_.front().network;
  const Tensor one = network.tape.data(network.images);
  return whole() ? one : Tensor(images_.floats(), {batch_, one.h, one.w, one.c});
}

Tensor InferencePlan::logits() {
  Part& part = parts_.front();
  if (whole()) return part.plan.value(part.network.logits);
  return {logits_.floats(), {batch_, 1, 1, part.network.tape.shape(part.network.logits).c}};
}

// The last chunk may reach back over images of the one before: they are computed again, and not copied.
void InferencePlan::run_chunk(Part& part, Stream& stream, int index) {
  const int first = index * chunk_, begin = std::min(first, batch_ - chunk_), fresh = begin + chunk_ - first;
  const Tensor in = part.network.tape.data(part.network.images), out = part.plan.value(part.network.logits);
  const size_t row = size_t(out.c);
  std::memcpy(in.data, images().at(begin, 0, 0), size_t(in.size()) * sizeof(float));
  part.plan.forward(stream);
  std::memcpy(logits_.floats() + size_t(first) * row, out.data + size_t(chunk_ - fresh) * row,
              size_t(fresh) * row * sizeof(float));
}

void InferencePlan::forward(Stream& stream, const std::function<void()>& between) {
  if (whole()) return parts_.front().plan.forward(stream, between);
  const int chunks = (batch_ + chunk_ - 1) / chunk_, threads = workers();
#pragma omp parallel num_threads(threads)
  {
    Stream serial(Device::cpu, 1);
    const int team = omp_get_num_threads(), worker = omp_get_thread_num();
    for (int i = chunks * worker / team; i < chunks * (worker + 1) / team; ++i)
      run_chunk(parts_[size_t(worker)], serial, i);
  }
}

size_t InferencePlan::bytes() const {
  size_t total = size_t(images().size()) * sizeof(float) + logits_.bytes();
  for (const Part& part : parts_) total += part.plan.bytes();
  if (!whole())  // and the images of each chunk at work
    total += parts_.size() * size_t(chunk_) * size_t(images().size() / batch_) * sizeof(float);
  return total;
}

}  // namespace lanas
