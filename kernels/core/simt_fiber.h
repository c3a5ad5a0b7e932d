// simt_fiber.h -- the emulator's fibres: a guarded stack, and the switch from one to another.
// On x86-64 a switch saves the six callee-saved registers on the old stack and pops them from the new one;
// elsewhere, or with LANAS_SIMT_UCONTEXT, swapcontext does it. AddressSanitizer is told of every switch.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <memory>

#include "kernels/core/simt.h"

#if defined(__x86_64__) && !defined(LANAS_SIMT_UCONTEXT)
#define LANAS_SIMT_ASSEMBLY 1
#else
#define LANAS_SIMT_ASSEMBLY 0
#endif

namespace lanas::simt {

// A place that execution can be left at and come back to: a fibre's, or that of the thread that runs the
// fibres.
class Context {
 public:
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  // Makes this a new fibre that calls entry() when first switched to; entry must not return. The stack is
  // reused. `color` spreads the stacks' tops over the cache's sets.
  void start(Switch kind, unsigned color, void (*entry)());
  // Leaves `from`, which is running, for `to`; returns when someone switches back to `from`.
  static void change(Switch kind, Context& from, Context& to);
  // First thing in entry(): tells AddressSanitizer that the switch from `previous` is done.
  static void arrived(Context& previous);

 private:
  void* pointer_ = nullptr;  // saved stack pointer
  std::unique_ptr<ucontext_t> context_;
  char* stack_ = nullptr;         // lowest usable byte; the guard page lies below
  const void* bottom_ = nullptr;  // as AddressSanitizer knows the stack
  size_t size_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace lanas::simt
