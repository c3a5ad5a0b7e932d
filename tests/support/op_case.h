// op_case.h -- one op as the tests of every device see it. A case builds its op on a tape (or as a direct
// call on buffers, for what has no place on a tape) for either device, with two contents of the inputs;
// op_cases.cpp runs forward and backward and compares cpu with cuda, all thread orders of the emulator with
// each other, and a recorded replay with the eager run, the replay under the second content.
//   const OpCases softmax_cases("softmax", {{"14 x 8", 8, [](CaseBuilder& b) {
//     b.output(softmax(b.tape, b.input({14, 1, 1, 8}), {8}));
//   }}});
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "autograd/plan.h"
#include "kernels/core/random.cuh"

namespace lanas::test {

// What a run left in one tensor, as numbers.
struct CaseResult {
  std::string name;
  std::vector<double> values;
};

// Contents of buffers: standard normal; least plus the size of such.
std::vector<float> normal_draws(int count, uint64_t seed);
std::vector<float> positive_draws(int count, uint64_t seed, float least = 0);

class CaseBuilder {
 public:
  // With `add`, the gradients of the inputs are written before the op's backward, which then adds to them.
  CaseBuilder(Device device, bool add) : tape(device), device_(device), add_(add) {}

  Tape tape;
  bool training = true;

  // An input whose gradient is compared: normal draws times scale plus shift.
  Var input(Shape shape, float scale = 1, float shift = 0);
  // The same as channels [2, 2 + c) of a wider input, so that its pixel stride is `stride`.
  Var sliced_input(Shape shape, int stride);
  // An input without gradient: the same values in both contents, or given ones.
  Var constant(Shape shape, float scale = 1, float shift = 0);
  Var constant(Shape shape, std::vector<float> first, std::vector<float> second);
  Var labels(int rows, int classes);
  // A tensor to write into with pixel stride `stride`.
  Var sliced_output(Shape shape, int stride) {
    return tape.slice(tape.activation({shape.n, shape.h, shape.w, stride}), 2, 2 + shape.c);
  }
  void output(Var y) { outputs_.push_back(y); }
  void output_without_gradient(Var y) {
    outputs_.push_back(y);
    differentiable_ = false;
  }

  // Direct calls. A buffer in device memory with its two contents; compared afterwards unless it is only
  // read, for a struct by the number that `compared` makes of it.
  template <class T>
  T* buffer(const std::string& name, const std::vector<T>& first, const std::vector<T>& second,
            std::function<double(const T&)> compared);
  template <class T>
  T* buffer(const std::string& name, const std::vector<T>& first, const std::vector<T>& second,
            bool compared = true) {
    if (!compared) return buffer<T>(name, first, second, std::function<double(const T&)>());
    return buffer<T>(name, first, second,
                     std::function<double(const T&)>([](const T& v) { return double(v); }));
  }
  void call(std::function<void(Stream&)> work) { direct_ = std::move(work); }

  // After the build: uploads content 0 or 1, runs, reads back.
  void finish();
  void reset(Stream& stream, int content);
  void run(Stream& stream);
  std::vector<CaseResult> results(Stream& stream);

 private:
  struct Content {
    void* device;
    std::vector<char> bytes[2];
  };
  Var add_input(Shape shape, std::vector<float> first, std::vector<float> second);
  std::vector<float> draws(int64_t count, float scale, float shift);
  void record_loss();
  CaseResult read(Stream& stream, const std::string& name, Tensor t);

  Device device_;
  bool add_, differentiable_ = true;
  Random random_{17};
  std::vector<Content> contents_;
  std::vector<std::pair<Var, Content>> inputs_;
  std::vector<Var> wanted_, outputs_, sources_;  // sources: the inputs or slices that the op reads
  std::vector<Memory> memory_;
  std::vector<std::function<CaseResult(Stream&)>> readers_;
  std::function<void(Stream&)> direct_;
  std::unique_ptr<Plan> plan_;
};

// Running moments of c channels, 0 and 1 at first.
inline RunningMoments running_moments(CaseBuilder& b, int c) {
  const std::vector<float> zeros(size_t(c), 0), ones(size_t(c), 1);
  return {b.constant({1, 1, 1, c}, zeros, zeros), b.constant({1, 1, 1, c}, ones, ones)};
}

struct OpCase {
  std::string name;      // of the variation
  double reduction = 1;  // the longest sum behind a result: tolerance grows with its root
  std::function<void(CaseBuilder&)> build;
  bool same_bits = false;  // cpu and cuda agree to the last bit
  bool tf32 = false;       // on cuda with TF32: close to the cpu, and not what fp32 gives
  std::string op = {};     // the header's name; set by OpCases
};

inline void PrintTo(const OpCase& one, std::ostream* out) { *out << one.op << ' ' << one.name; }

// Registers the cases of one op.
struct OpCases {
  OpCases(const std::string& op, std::vector<OpCase> cases);
};
std::vector<OpCase>& all_op_cases();

template <class T>
T* CaseBuilder::buffer(const std::string& name, const std::vector<T>& first, const std::vector<T>& second,
                       std::function<double(const T&)> compared) {
  CHECK(first.size() == second.size() && !first.empty(), "op case: buffer ", name, " of two sizes");
  const size_t bytes = first.size() * sizeof(T), count = first.size();
  memory_.emplace_back(device_, bytes);
  T* data = static_cast<T*>(memory_.back().data());
  Content content{data, {std::vector<char>(bytes), std::vector<char>(bytes)}};
  std::copy_n(reinterpret_cast<const char*>(first.data()), bytes, content.bytes[0].data());
  std::copy_n(reinterpret_cast<const char*>(second.data()), bytes, content.bytes[1].data());
  contents_.push_back(std::move(content));
  if (compared)
    readers_.push_back([=](Stream& stream) {
      std::vector<T> values(count);
      download(stream, values.data(), data, bytes);
      CaseResult result{name, {}};
      for (const T& v : values) result.values.push_back(compared(v));
      return result;
    });
  return data;
}

}  // namespace lanas::test
