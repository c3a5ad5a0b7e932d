#include "kernels/core/simt_fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define LANAS_SIMT_ASAN 1
#else
#define LANAS_SIMT_ASAN 0
#endif

#if LANAS_SIMT_ASSEMBLY
// void lanas_simt_switch(void** save, void* load): System V ABI, callee-saved registers only. It jumps back
// instead of returning: the return-address predictor, which knows nothing of fibres, would always miss.
asm(R"(
.text
.globl lanas_simt_switch
.hidden lanas_simt_switch
.type lanas_simt_switch, @function
.p2align 4
lanas_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size lanas_simt_switch, .-lanas_simt_switch
)");
extern "C" void lanas_simt_switch(void** save, void* load);
#endif

namespace lanas::simt {
namespace {

constexpr size_t kStackBytes = 128 * 1024;

size_t page_bytes() {
  static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
  return bytes;
}

char* new_stack() {
  const size_t guard = page_bytes();
  void* memory = mmap(nullptr, guard + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  CHECK(memory != MAP_FAILED, "simt: no memory for a thread's stack of ", kStackBytes, " bytes");
  CHECK(mprotect(memory, guard, PROT_NONE) == 0, "simt: the guard page of a stack could not be protected");
  return static_cast<char*>(memory) + guard;
}

}  // namespace

Context::~Context() {
  if (stack_) munmap(stack_ - page_bytes(), page_bytes() + kStackBytes);
}

void Context::start(Switch kind, unsigned color, void (*entry)()) {
  if (!stack_) stack_ = new_stack();
  bottom_ = stack_;
  size_ = kStackBytes - (color % 16) * 256;
  fake_stack_ = nullptr;
  if (kind == Switch::assembly) {
    CHECK(LANAS_SIMT_ASSEMBLY, "simt: the assembly switch is for x86-64; use ucontext");
    // From the top: one unused word so that entry() finds its stack aligned as after a call, entry's address
    // for the switch's `ret`, six registers.
    void** top = reinterpret_cast<void**>(stack_ + size_) - 8;
    for (int i = 0; i < 8; ++i) top[i] = nullptr;
    top[6] = reinterpret_cast<void*>(entry);
    pointer_ = top;
    return;
  }
  if (!context_) context_ = std::make_unique<ucontext_t>();
  CHECK(getcontext(context_.get()) == 0, "simt: getcontext failed");
  context_->uc_stack.ss_sp = stack_;
  context_->uc_stack.ss_size = size_;
  context_->uc_link = nullptr;
  makecontext(context_.get(), entry, 0);
}

void Context::change([[maybe_unused]] Switch kind, Context& from, Context& to) {
#if LANAS_SIMT_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.size_);
#endif
#if LANAS_SIMT_ASSEMBLY
  if (kind == Switch::assembly) {
    lanas_simt_switch(&from.pointer_, to.pointer_);
  } else
#endif
  {
    if (!from.context_) from.context_ = std::make_unique<ucontext_t>();
    swapcontext(from.context_.get(), to.context_.get());
  }
#if LANAS_SIMT_ASAN
  // A fibre is always left for the main context and entered from it, so `to` is who came back.
  __sanitizer_finish_switch_fiber(from.fake_stack_, &to.bottom_, &to.size_);
#endif
}

void Context::arrived([[maybe_unused]] Context& previous) {
#if LANAS_SIMT_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &previous.bottom_, &previous.size_);
#endif
}

}  // namespace lanas::simt
