// precision.h -- the one switch for TF32: whether matrix products on the cuda device (cuBLAS, cuDNN and our
// tensor core kernels) may round their operands to 10 bits of mantissa and add in fp32. Off unless set, and
// off in the tests that compare with the cpu.
#pragma once

namespace lanas {

bool tf32();
// For the whole process; work that is already recorded in a graph keeps what it was recorded with.
void set_tf32(bool on);

// On or off within its scope.
class ScopedTf32 {
 public:
  explicit ScopedTf32(bool on) { set_tf32(on); }
  ~ScopedTf32() { set_tf32(before_); }
  ScopedTf32(const ScopedTf32&) = delete;
  ScopedTf32& operator=(const ScopedTf32&) = delete;

 private:
  bool before_ = tf32();
};

}  // namespace lanas
