// profile.h -- times every op of a pass in its place, in turn with whole passes: what `kernels` reports. On
// cuda an op's time is that between two events, and a whole pass runs twice: launch by launch, and as a
// graph. Totals are means over the less disturbed half of these pairs of passes, for ops and whole passes
// alike: means add up, medians do not, and a machine that is shared is slow for seconds at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/op_cost.h"
#include "bench/training_step.h"

namespace lanas::bench {

struct Item {
  std::string name, pass, shape;
  OpCost cost;
  std::function<void()> start;  // gives the work to the stream
  std::vector<double> in_place_ms, hot_ms, cold_ms;
};

// A pass as a list of items, and as a whole.
struct Work {
  std::vector<Item> items;
  std::function<void()> begin;  // before the items run one by one
  std::function<void()> whole;  // gives the whole pass to the stream, launch by launch
  std::vector<double> whole_ms =
      {};  // of each pass; items' in_place_ms likewise. On cuda: replayed as a graph
  std::vector<double> plain_ms = {};  // of each pass, launch by launch
  std::vector<size_t> calm = {};      // the passes that count
  double mean_calm(const std::vector<double>& times) const;
};

// Appends the plan's steps [begin, end).
void add_steps(Work& work, Stream& stream, const Tape& tape, Plan& plan, int begin, int end,
               const std::string& pass);
// Inference: forward of the plan alone.
Work inference_work(Stream& stream, const Tape& tape, Plan& plan);
Work training_work(Stream& stream, TrainingStep& step);

// Ops of one name, pass and shape.
struct Row {
  std::string name, pass, shape;
  int count = 0;
  double total_ms = 0;  // sum of the ops' means
  OpCost cost;          // mean of the ops
  std::vector<double> in_place_ms, hot_ms, cold_ms;
};

// Longest total first.
std::vector<Row> group(const Work& work);

struct ProfileConfig {
  int repeats = 20;      // passes timed as a whole and op by op
  int hot_repeats = 20;  // passes in which each op runs at once after itself
  int cold_repeats = 3;  // passes with flushed caches
  bool quiet = false;
};
// Fills in the times. Throws Interrupted after a stop signal.
void profile(Stream& stream, Work& work, const ProfileConfig& config);

}  // namespace lanas::bench
