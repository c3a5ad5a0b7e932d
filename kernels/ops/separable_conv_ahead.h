// separable_conv_ahead.h -- memory that is needed soon, asked for line by line among other work: many lines
// at once make the processor wait, and slices of channels and short rows are too much for it to foresee.
#pragma once

#include "kernels/core/parallel.h"
#include "kernels/core/tensor.h"

namespace lanas::cpu {

class Ahead {
 public:
  // Image n of t, if there is one; with `step`, every step-th row and column from `first` on. What goes
  // beyond kRuns is left out.
  void add(const Tensor& t, int n, bool write, int step = 1, int first = 0) {
    if (!t || n >= t.n) return;
    const bool whole = step * t.stride <= 2 * kLine;  // few lines between the pixels
    const int rows = step == 1 ? t.h : 1, columns = (t.w - first + step - 1) / step;
    for (int row = first; row < t.h; row += step == 1 ? t.h : step) {
      if (whole) push(t.at(n, row, 0), kLine, (rows * t.w * t.stride + kLine - 1) / kLine, write);
      for (int c = 0; !whole && c < t.c; c += kLine)
        push(t.at(n, row, first) + c, step * t.stride, rows * columns, write);
    }
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
  // Everything added is asked for within so many calls of some().
  void pace(int calls) { pace_ = calls > 0 ? (left_ + calls - 1) / calls : left_; }
  LANAS_INLINE void some() { ask(pace_); }
  void rest() { ask(left_); }

 private:
  static constexpr int kLine = 16;  // floats
  static constexpr int kRuns = 256;
  struct Run {  // lines `step` floats apart
    const float* at;
    int step, left;
    bool write;
  };
  void push(const float* at, int step, int count, bool write) {
    if (end_ == kRuns) return;
    runs_[end_++] = {at, step, count, write};
    left_ += count;
  }
  LANAS_INLINE void ask(int count) {
    while (count > 0 && begin_ < end_) {
      Run& run = runs_[begin_];
      const int n = count < run.left ? count : run.left;
      for (int i = 0; i < n; ++i, run.at += run.step)
        if (run.write)
          __builtin_prefetch(run.at, 1, 2);
        else
          __builtin_prefetch(run.at, 0, 2);
      count -= n, left_ -= n;
      if ((run.left -= n) == 0) ++begin_;
    }
  }

  Run runs_[kRuns];
  int begin_ = 0, end_ = 0, left_ = 0, pace_ = 0;
  const float* line_ = nullptr;
  int64_t lines_ = 0;
};

}  // namespace lanas::cpu
