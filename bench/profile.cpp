#include "bench/profile.h"

#include <algorithm>
#include <map>

#include "bench/ceilings.h"
#include "kernels/core/event.h"
#include "kernels/core/graph.h"
#include "kernels/core/timing.h"
#include "kernels/ops/elementwise.h"
#include "nas/interrupt.h"
#include "nas/progress.h"

namespace lanas::bench {

void add_steps(Work& work, Stream& stream, const Tape& tape, Plan& plan, int begin, int end,
               const std::string& pass) {
  for (int s = begin; s < end; ++s) {
    work.items.push_back({plan.op(s).name,
                          pass,
                          op_shape(tape, plan.op(s)),
                          op_cost(tape, plan, s),
                          [&stream, &plan, s] { plan.run_step(stream, s); },
                          {},
                          {},
                          {}});
  }
}

Work inference_work(Stream& stream, const Tape& tape, Plan& plan) {
  Work work;
  add_steps(work, stream, tape, plan, 0, plan.steps(), "inference");
  work.begin = [&stream, &plan] {
    stream.activate();
    plan.bind();
  };
  work.whole = [&stream, &plan] { plan.forward(stream); };
  return work;
}

Work training_work(Stream& stream, TrainingStep& step) {
  Work work;
  const std::vector<TrainingStep::Part> parts = step.parts();
  for (const TrainingStep::Part& part : parts) {
    Plan& plan = *part.plan;
    add_steps(work, stream, step.tape(), plan, 0, plan.forward_steps(), part.name + " forward");
    const std::string backward = part.name + " backward";
    work.items.push_back({"fill",
                          backward,
                          "1x1x1x1",
                          {.written = sizeof(float)},
                          [&stream, part] { fill(stream, part.plan->grad(part.loss), 1.f); },
                          {},
                          {},
                          {}});
    add_steps(work, stream, step.tape(), plan, plan.forward_steps(), plan.steps(), backward);
    const double slab = double(part.wanted->slab_floats()) * sizeof(float);
    work.items.push_back({part.update_name,
                          part.name + " update",
                          join(part.wanted->slab_floats(), " floats"),
                          {.read = part.update_reads * slab, .written = part.update_writes * slab},
                          [&step, part] { (step.*part.update)(); },
                          {},
                          {},
                          {}});
  }
  work.begin = [&stream, parts] {
    stream.activate();
    for (const TrainingStep::Part& part : parts) part.plan->bind();
  };
  work.whole = [&step] { step.launch(); };
  return work;
}

double Work::mean_calm(const std::vector<double>& times) const {
  double sum = 0;
  for (const size_t pass : calm) sum += times[pass] / double(calm.size());
  return sum;
}

std::vector<Row> group(const Work& work) {
  std::map<std::string, size_t> index;
  std::vector<Row> rows;
  for (const Item& item : work.items) {
    const auto [at, added] = index.emplace(item.name + "|" + item.pass + "|" + item.shape, rows.size());
    if (added) rows.push_back({item.name, item.pass, item.shape, 0, 0, {}, {}, {}, {}});
    Row& row = rows[at->second];
    row.cost += item.cost;
    ++row.count;
    row.total_ms += work.mean_calm(item.in_place_ms);
    row.in_place_ms.insert(row.in_place_ms.end(), item.in_place_ms.begin(), item.in_place_ms.end());
    row.hot_ms.insert(row.hot_ms.end(), item.hot_ms.begin(), item.hot_ms.end());
    row.cold_ms.insert(row.cold_ms.end(), item.cold_ms.begin(), item.cold_ms.end());
  }
  for (Row& row : rows) row.cost = row.cost / row.count;
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.total_ms > b.total_ms; });
  return rows;
}

namespace {

double timed(const std::function<void()>& run) {
  const double start = now_ms();
  run();
  return now_ms() - start;
}

class Profiler {
 public:
  Profiler(Stream& stream, Work& work, const ProfileConfig& config)
      : stream_(stream), work_(work), config_(config) {}

  void run() {
    Progress progress("kernels", config_.repeats + config_.hot_repeats + config_.cold_repeats, config_.quiet);
    int64_t done = 0;
    auto next = [&](const char* what) {
      if (stop_requested()) throw Interrupted("kernels: stopped");
      progress.update(++done, what);
    };
    whole_pass();
    Graph graph;
    graph.record(stream_, work_.whole);
    for (int i = 0; i < config_.repeats; ++i, next("in place")) {
      work_.plain_ms.push_back(timed([&] { whole_pass(); }));
      work_.whole_ms.push_back(stream_.device() == Device::cpu ? work_.plain_ms.back() : timed([&] {
        graph.replay(stream_);
        stream_.synchronize();
      }));
      work_.begin();
      for (Item& item : work_.items) item.in_place_ms.push_back(time_of(item, 1));
    }
    for (int i = 0; i < config_.hot_repeats; ++i, next("hot")) pass_hot();
    whole_pass();
    for (int i = 0; i < config_.cold_repeats; ++i, next("cold")) pass_cold();
    progress.finish();
    choose_calm();
  }

 private:
  // Hot on cuda: so many launches between two events, so that starting them counts little.
  const int launches_ = emulated() ? 2 : 20;

  void whole_pass() {
    work_.whole();
    stream_.synchronize();
  }

  double time_of(const Item& item, int launches) {
    begin_.record(stream_);
    for (int i = 0; i < launches; ++i) item.start();
    end_.record(stream_);
    return end_.ms_since(begin_) / launches;
  }

  // The half of the passes in which a whole pass and its ops together took the least.
  void choose_calm() {
    std::vector<double> together = work_.whole_ms;
    for (const Item& item : work_.items)
      for (size_t pass = 0; pass < together.size(); ++pass) together[pass] += item.in_place_ms[pass];
    for (size_t pass = 0; pass < together.size(); ++pass) work_.calm.push_back(pass);
    std::stable_sort(work_.calm.begin(), work_.calm.end(),
                     [&](size_t a, size_t b) { return together[a] < together[b]; });
    work_.calm.resize((together.size() + 1) / 2);
  }

  // Running an op twice doubles what it adds to its output; the next pass begins anew. Updates are not run
  // twice: weights would change by gradients that mean nothing.
  void pass_hot() {
    work_.begin();
    for (Item& item : work_.items) {
      if (item.pass.ends_with("update")) continue;
      time_of(item, 1);
      item.hot_ms.push_back(time_of(item, stream_.device() == Device::cpu ? 1 : launches_));
    }
  }

  // Flushing takes far longer than an op: only the first few ops of each kind.
  void pass_cold() {
    CacheFlusher flusher(stream_);
    std::map<std::string, int> seen;
    work_.begin();
    for (Item& item : work_.items) {
      if (item.pass.ends_with("update")) continue;
      const bool wanted = seen[item.name + "|" + item.pass + "|" + item.shape]++ < 2;
      if (wanted) flusher.flush();
      const double ms = time_of(item, 1);
      if (wanted) item.cold_ms.push_back(ms);
    }
  }

  Stream& stream_;
  Work& work_;
  const ProfileConfig& config_;
  Event begin_, end_;
};

}  // namespace

void profile(Stream& stream, Work& work, const ProfileConfig& config) {
  Profiler(stream, work, config).run();
}

}  // namespace lanas::bench
