// separable_conv_ahead.h -- memory that is needed soon, asked for line by line among other work: many lines
// at once make the processor wait, and slices of channels and short rows are too much for it to foresee.
#pragma once

#include <algorithm>
#include <atomic>

#include "kernels/core/parallel.h"
#include "kernels/core/tensor.h"

namespace lanas::cpu {

class Ahead {
 public:
  // Rows [begin, end) of image n of t, if there is one. What goes beyond kRuns is left out.
  void add(const Tensor& t, int n, int begin, int end) {
    if (!t || n >= t.n) return;
    push_pixels(t, t.at(n, begin, 0), t.stride, (end - begin) * t.w);
  }
  // Of image n every step-th row and column from `first` on; of all of them the share of one of `units` units
  // that read it, of fewer everything with the last.
  void add_share(const Tensor& t, int n, int step, int first, int unit, int units) {
    if (step == 1) return add(t, n, t.h * unit / units, t.h * (unit + 1) / units);
    if (!t || n >= t.n || unit + 1 < units) return;
    for (int row = first; row < t.h; row += step)
      push_pixels(t, t.at(n, row, first), step * t.stride, (t.w - first + step - 1) / step);
  }
  // Memory whose lines a loop asks for itself, one each turn: a call between its turns takes registers.
  void stretch(const float* from, int64_t floats) { line_ = from, lines_ = (floats + kLine - 1) / kLine; }
  bool stretches() const { return lines_ > 0; }
  // The first line of `turns` more, step floats apart: 0 when all have been asked for.
  LANAS_INLINE const float* take(int turns, ptrdiff_t& step) {
    const float* line = line_;
    step = stretches() ? kLine : 0;
    if (stretches()) lines_ -= turns, line_ += ptrdiff_t(turns) * kLine;
    return line;
  }
  // After the last add(): everything added is asked for while so many vectors are multiplied and added.
  void pace(int64_t work) {
    if (total_ == 0) return;
    rate_ = work > 0 ? total_ * kOne / work + 1 : 0;
    run_ = runs_[begin_++];
  }
  // The lines that go with so many of them.
  LANAS_INLINE void some(int work) {
    credit_ += rate_ * work;
    const int lines = int(credit_ / kOne);
    credit_ %= kOne;
    if (lines < run_.left)
      run_.ask(lines);
    else
      cross(lines);
  }
  // Asks for the lines that go with so many of them now, if they are few.
  __attribute__((noinline)) bool at_once(int work) {
    if (rate_ * uint64_t(work) >= kFew * kOne) return false;
    some(work);
    return true;
  }
  // Asks for the rest, and begins anew. A pace that fits the work leaves nothing: the processor drops most of
  // many lines at once, so they are counted for a test.
  void rest() {
    asked_ += int64_t(total_);
    if (run_.at) {
      late_ += run_.left;
      for (int i = begin_; i < end_; ++i) late_ += runs_[i].left;
      cross(int(total_));
    }
    begin_ = end_ = 0, total_ = 0;
  }
  ~Ahead() {
    if (asked_ == 0) return;
    lines_asked.fetch_add(asked_, std::memory_order_relaxed);
    lines_late.fetch_add(late_, std::memory_order_relaxed);
  }
  static inline std::atomic<int64_t> lines_asked{0}, lines_late{0};

 private:
  static constexpr int kLine = 16;  // floats
  static constexpr int kRuns = 256;
  static constexpr uint64_t kFew = 24;  // lines; more at once make the processor wait
  static constexpr uint64_t kOne = uint64_t{1} << 24;
  struct Run {  // lines `step` floats apart
    const float* at;
    ptrdiff_t step;
    int left;
    LANAS_INLINE void ask(int lines) {
      prefetch_lines(at, step, lines);
      at += step * lines, left -= lines;
    }
  };
  // Pixels `step` floats apart.
  void push_pixels(const Tensor& t, const float* at, int step, int pixels) {
    if (step <= 2 * kLine || step == t.c)  // few lines between the pixels, or none
      return push(at, kLine, (pixels * step + kLine - 1) / kLine);
    for (int c = 0; c < t.c; c += kLine) push(at + c, step, pixels);
  }
  void push(const float* at, int step, int count) {
    if (end_ == kRuns) return;
    runs_[end_++] = {at, step, count};
    total_ += uint64_t(count);
  }
  // So many lines of this run and the next ones.
  __attribute__((noinline)) void cross(int lines) {
    for (;;) {
      const int n = std::min(lines, run_.left);
      run_.ask(n);
      if ((lines -= n) == 0) return;
      if (begin_ == end_) break;
      run_ = runs_[begin_++];
    }
    rate_ = credit_ = 0, run_ = {nullptr, 0, 1};  // the end: see below
  }

  // run_: the one under way; of the empty one, at a rate of 0, some() asks for none of its one line.
  Run runs_[kRuns], run_{nullptr, 0, 1};
  int begin_ = 0, end_ = 0;
  uint64_t total_ = 0, rate_ = 0, credit_ = 0;  // lines; lines / kOne for a multiply-add, not yet asked for
  const float* line_ = nullptr;
  int64_t lines_ = 0;
  int64_t asked_ = 0, late_ = 0;
};

}  // namespace lanas::cpu
