#include "nas/memory_need.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "autograd/plan.h"
#include "nas/second_order.h"

namespace lanas {
namespace {

size_t slab(const ParameterStore& store) { return size_t(store.slab_floats()) * sizeof(float); }

size_t image_bytes(const ImageData& data) {
  return 2 * data.train_images.size() + data.test_images.size();  // the training images are copied once
}

size_t first_number(const char* path) {
  std::ifstream in(path);
  size_t value = 0;
  return in >> value ? value : 0;  // "max" is no number
}

std::string gib(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", double(bytes) / (1 << 30));
  return text;
}

}  // namespace

MemoryNeed search_memory(const SearchConfig& config, const ImageData& data) {
  ParameterStore weights, buffers, architecture;
  const Supernet net(config.supernet, weights, buffers, architecture);
  auto workspace = std::make_shared<Workspace>();
  const Plan weight(net.tape, {{net.loss, net.logits}, net.loss, {&weights}, {}, true}, workspace);
  std::vector<const ParameterStore*> wanted = {&architecture};
  if (config.second_order) wanted.push_back(&weights);
  const Plan alpha(net.tape, {{net.loss}, net.loss, wanted, {}, true}, workspace);
  const Plan valid(net.tape, {{net.loss, net.logits}, {}, {}, {}, false}, workspace);
  MemoryNeed need;
  need.workspace = workspace->bytes();
  // Weights: value, gradient, momentum, and with second order the copy to go back to. Adam keeps two moments.
  need.parameters = (config.second_order ? 4 : 3) * slab(weights) + 2 * slab(buffers) +
                    (config.second_order ? 6 : 4) * slab(architecture);
  need.images = image_bytes(data);
  return need;
}

MemoryNeed retrain_memory(const RetrainConfig& config, const Genotype& genotype, const ImageData& data) {
  NetworkConfig network = config.network;
  network.drop_path = config.drop_path > 0;
  ParameterStore weights, buffers;
  const Network net(network, genotype, weights, buffers);
  auto workspace = std::make_shared<Workspace>();
  const Plan train(net.tape, {{net.loss, net.logits}, net.loss, {&weights}, {}, true}, workspace);
  const Plan valid(net.tape, {{net.loss, net.logits}, {}, {}, {}, false}, workspace);
  return {workspace->bytes(), 3 * slab(weights) + 2 * slab(buffers), image_bytes(data)};
}

Genotype heaviest_genotype() {
  Genotype genotype;
  for (int pair = 0; pair < kPairs; ++pair)
    genotype.normal[size_t(pair)] = genotype.reduce[size_t(pair)] = {OpKind::sep_conv_5x5, pair % 2};
  return genotype;
}

size_t available_memory() {
  size_t available = 0;
  std::ifstream info("/proc/meminfo");
  for (std::string key, unit; info >> key;) {
    size_t kib = 0;
    if (!(info >> kib)) break;
    std::getline(info, unit);
    if (key == "MemAvailable:") available = kib * 1024;
  }
  const size_t limit = first_number("/sys/fs/cgroup/memory.max");
  const size_t used = first_number("/sys/fs/cgroup/memory.current");
  if (limit > 0 && available > 0) available = std::min(available, limit > used ? limit - used : 1);
  return available;
}

std::string memory_text(const std::string& who, const MemoryNeed& need, size_t available) {
  return join(who, " needs ", gib(need.total()), " GiB (activations ", gib(need.workspace), ", parameters ",
              gib(need.parameters), ", images ", gib(need.images), ")",
              available > 0 ? ", " + gib(available) + " GiB are free" : "");
}

void check_memory(const std::string& who, const MemoryNeed& need, size_t available, int batch,
                  const char* batch_flag, const char* channels_flag) {
  if (available == 0 || need.total() <= available) return;
  const size_t fixed = need.total() - need.workspace;
  const double room = available > fixed ? double(available - fixed) : 0;
  const int fits = int(0.95 * room / double(need.workspace) * batch);  // activations grow with the batch
  throw Error(join(memory_text(who, need, available), "; ",
                   fits >= 1 ? join(batch_flag, " ", fits, " would fit, or fewer ", channels_flag)
                             : join("take fewer ", channels_flag)));
}

}  // namespace lanas
