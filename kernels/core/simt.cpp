// The emulator's scheduler. One Runner per host thread owns the fibres; run_block() resumes every runnable
// fibre in order, pass after pass. A fibre leaves at a barrier, at a warp collective whose lanes have not all
// arrived, and at its end. The last lane to arrive at a collective hands all lanes their results.
#include "kernels/core/simt.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <string>

#include "kernels/core/simt_fiber.h"
#include "kernels/core/simt_shared.h"

namespace lanas::simt {
namespace {

struct Cancelled {};  // unwinds a fibre of a block that has failed

std::string hex(unsigned mask) {
  std::ostringstream text;
  text << "0x" << std::hex << mask;
  return text.str();
}

const char* collective_name(Collective kind) {
  return kind == Collective::sync ? "__syncwarp" : kind == Collective::shuffle ? "shuffle" : "vote";
}

enum class State : unsigned char { ready, at_barrier, at_warp, finished };

struct Fiber {
  Context context;
  State state = State::finished;
  bool started = false;  // has entered the kernel in this block
  Collective kind = Collective::sync;
  unsigned thread = 0, lane = 0, warp = 0;
  unsigned mask = 0;
  int source = 0;
  uint64_t value = 0, result = 0;
  const char* file = "";
  int line = 0;
  uint3 index{};

  std::string place() const { return join(file, ":", line); }
};

struct Warp {
  unsigned waiting = 0;  // lanes at a collective
  unsigned gone = 0;     // lanes that have exited, or lie past the end of the block
};

class Runner {
 public:
  void run_grid(const Config& config, const std::function<void()>& body);
  void barrier(const char* file, int line);
  uint64_t collective(Collective kind, unsigned mask, uint64_t value, int source, const char* file, int line);
  void* dynamic_shared(const char* file, int line);
  void* static_shared(const void* key, size_t bytes);
  Fiber& current() {
    CHECK(current_, "simt: a device function was called outside a kernel");
    return *current_;
  }

  Settings settings;

 private:
  static void fiber_main();
  void start_fibers();
  void run_block();
  void resume(Fiber& fiber);
  void leave();
  void finish(Fiber& fiber);
  void resolve(Warp& warp, unsigned mask);
  void release_barrier();
  void check_shared() const;
  void cancel();
  void order(std::vector<unsigned>& items, unsigned count);
  std::string explain_stuck();
  std::string where() const {
    return join(" (block ", blockIdx.x, ",", blockIdx.y, ",", blockIdx.z, " of the launch at ", config_->file,
                ":", config_->line, ")");
  }
  template <class... Parts>
  [[noreturn]] void fault(const Parts&... parts) const {
    throw Error(join(parts..., where()));
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  Switch started_as_ = kDefaultSwitch;
  Context main_;
  std::vector<Warp> warps_;
  std::vector<unsigned> threads_;  // the order of the current pass
  std::vector<SharedBlock> shared_;
  const Config* config_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  Fiber* current_ = nullptr;
  std::exception_ptr error_;
  unsigned count_ = 0, at_barrier_ = 0, finished_ = 0;
  uint64_t random_ = 0;
  bool cancelling_ = false;
};

Runner& runner() {
  static thread_local Runner instance;
  return instance;
}

// Fills items with 0 .. count-1 in the order of the settings.
void Runner::order(std::vector<unsigned>& items, unsigned count) {
  items.resize(count);
  std::iota(items.begin(), items.end(), 0u);
  if (settings.order == Order::reverse) std::reverse(items.begin(), items.end());
  if (settings.order != Order::shuffled) return;
  for (unsigned i = count; i > 1; --i) {
    random_ = random_ * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(items[i - 1], items[unsigned(((random_ >> 32) * i) >> 32)]);
  }
}

// A fibre serves one thread of block after block, so its stack is set up once.
void Runner::fiber_main() {
  Runner& self = runner();
  Context::arrived(self.main_);
  for (;;) {
    Fiber& fiber = *self.current_;
    fiber.started = true;
    try {
      (*self.body_)();
    } catch (const Cancelled&) {
    } catch (...) {
      if (!self.error_) self.error_ = std::current_exception();
    }
    self.finish(fiber);
    Context::change(self.started_as_, fiber.context, self.main_);
  }
}

void Runner::finish(Fiber& fiber) {
  fiber.state = State::finished;
  ++finished_;
  Warp& warp = warps_[fiber.warp];
  warp.gone |= 1u << fiber.lane;
  if (!warp.waiting || cancelling_ || error_) return;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(warp.waiting >> lane & 1)) continue;
    const Fiber& other = *fibers_[fiber.warp * 32 + lane];
    if (!(other.mask >> fiber.lane & 1)) continue;
    error_ = std::make_exception_ptr(Error(join(other.place(), ": ", collective_name(other.kind), ": thread ",
                                                other.thread, " waits with mask ", hex(other.mask),
                                                " for lane ", fiber.lane, ", which has exited", where())));
    return;
  }
}

void Runner::resume(Fiber& fiber) {
  current_ = &fiber;
  threadIdx = fiber.index;
  Context::change(started_as_, main_, fiber.context);
  current_ = nullptr;
}

void Runner::leave() {
  Fiber& fiber = *current_;
  Context::change(started_as_, fiber.context, main_);
  if (cancelling_) throw Cancelled{};
}

void Runner::barrier(const char* file, int line) {
  Fiber& fiber = current();
  fiber.file = file;
  fiber.line = line;
  fiber.state = State::at_barrier;
  ++at_barrier_;
  leave();
}

uint64_t Runner::collective(Collective kind, unsigned mask, uint64_t value, int source, const char* file,
                            int line) {
  Fiber& fiber = current();
  Warp& warp = warps_[fiber.warp];
  fiber.kind = kind;
  fiber.mask = mask;
  fiber.value = value;
  fiber.source = source;
  fiber.file = file;
  fiber.line = line;
  if (!(mask >> fiber.lane & 1))
    fault(fiber.place(), ": ", collective_name(kind), ": thread ", fiber.thread, " (lane ", fiber.lane,
          ") is not in its own mask ", hex(mask));
  if (mask & warp.gone)
    fault(fiber.place(), ": ", collective_name(kind), ": mask ", hex(mask), " of thread ", fiber.thread,
          " names lane ", std::countr_zero(mask & warp.gone),
          ", which has exited or lies past the end of the block");
  if (kind == Collective::shuffle && !(mask >> source & 1))
    fault(fiber.place(), ": shuffle: thread ", fiber.thread, " reads lane ", source,
          ", which is not in mask ", hex(mask));
  warp.waiting |= 1u << fiber.lane;
  if ((warp.waiting & mask) == mask) {
    resolve(warp, mask);
  } else {
    fiber.state = State::at_warp;
    leave();
  }
  return fiber.result;
}

// All lanes of the current fibre's mask have arrived: they must stand at the same call, with the same mask.
void Runner::resolve(Warp& warp, unsigned mask) {
  const Fiber& first = *current_;
  std::unique_ptr<Fiber>* lanes = &fibers_[size_t{first.warp} * 32];
  uint64_t votes = 0;
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    const Fiber& f = *lanes[std::countr_zero(rest)];
    if (f.line != first.line || f.mask != mask || f.kind != first.kind ||
        (f.file != first.file && std::strcmp(f.file, first.file) != 0))
      fault(first.place(), ": ", collective_name(first.kind), ": thread ", first.thread, " with mask ",
            hex(mask), " meets thread ", f.thread, " of its warp at ", f.place(), " (",
            collective_name(f.kind), " with mask ", hex(f.mask), "): the warp has diverged");
    votes |= uint64_t{f.value != 0} << f.lane;
  }
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    Fiber& f = *lanes[std::countr_zero(rest)];
    f.result = f.kind == Collective::shuffle ? lanes[f.source]->value : votes;
    f.state = State::ready;
  }
  warp.waiting &= ~mask;
}

void Runner::release_barrier() {
  const Fiber& first = *fibers_[0];
  for (unsigned i = 0; i < count_; ++i) {
    Fiber& f = *fibers_[i];
    if (f.line != first.line || (f.file != first.file && std::strcmp(f.file, first.file) != 0))
      fault(first.place(), ": __syncthreads: thread 0 waits here while thread ", i, " waits at ", f.place(),
            ": divergent barrier");
    f.state = State::ready;
  }
  at_barrier_ = 0;
  if (settings.order == Order::shuffled) order(threads_, count_);
}

// No fibre can run on: says who waits where, and who does not come.
std::string Runner::explain_stuck() {
  const Fiber *waiting = nullptr, *other = nullptr;
  for (unsigned i = 0; i < count_; ++i) {
    const Fiber& f = *fibers_[i];
    if (f.state == State::at_warp && (!waiting || waiting->state != State::at_warp)) waiting = &f;
    if (f.state == State::at_barrier && !waiting) waiting = &f;
  }
  if (waiting->state == State::at_warp) {
    const unsigned missing = waiting->mask & ~warps_[waiting->warp].waiting;
    other = fibers_[waiting->warp * 32 + unsigned(std::countr_zero(missing ? missing : waiting->mask))].get();
    return join(waiting->place(), ": ", collective_name(waiting->kind), ": thread ", waiting->thread,
                " waits with mask ", hex(waiting->mask), " while thread ", other->thread,
                " of its warp waits at ", other->place(),
                other->state == State::at_barrier ? " (__syncthreads)" : "", ": the warp has diverged");
  }
  for (unsigned i = 0; i < count_ && !other; ++i)
    if (fibers_[i]->state == State::finished) other = fibers_[i].get();
  return join(waiting->place(), ": __syncthreads: ", at_barrier_, " of ", count_,
              " threads wait here, but thread ", other->thread, " has exited: divergent barrier");
}

// Unwinds the fibres of a failed block, so that nothing on their stacks outlives it.
void Runner::cancel() {
  cancelling_ = true;
  for (unsigned i = 0; i < count_; ++i)
    if (fibers_[i]->started && fibers_[i]->state != State::finished) resume(*fibers_[i]);
  cancelling_ = false;
}

void Runner::check_shared() const {
  for (const SharedBlock& block : shared_)
    if (block.overrun())
      fault(config_->file, ":", config_->line, ": launch: the kernel wrote past ",
            block.key() ? "a static shared array of " : "its dynamic shared memory of ", block.bytes(),
            " bytes");
}

void Runner::run_block() {
  for (SharedBlock& block : shared_) block.poison();
  const unsigned warps = (count_ + 31) / 32;
  warps_.assign(warps, Warp{});
  if (count_ % 32) warps_.back().gone = ~0u << count_ % 32;
  for (unsigned i = 0; i < count_; ++i) {
    fibers_[i]->state = State::ready;
    fibers_[i]->started = false;
  }
  order(threads_, count_);
  at_barrier_ = finished_ = 0;
  error_ = nullptr;
  try {
    while (finished_ < count_) {
      bool ran = false;
      for (const unsigned i : threads_) {
        Fiber& fiber = *fibers_[i];
        if (fiber.state != State::ready) continue;
        ran = true;
        resume(fiber);
        if (error_) std::rethrow_exception(error_);
      }
      if (at_barrier_ == count_)
        release_barrier();
      else if (!ran)
        fault(explain_stuck());
    }
    check_shared();
  } catch (...) {
    cancel();
    throw;
  }
}

void Runner::start_fibers() {
  if (started_as_ != settings.context) {
    fibers_.clear();
    started_as_ = settings.context;
  }
  while (fibers_.size() < count_) {
    auto fiber = std::make_unique<Fiber>();
    const unsigned i = unsigned(fibers_.size());
    fiber->thread = i;
    fiber->lane = i % 32;
    fiber->warp = i / 32;
    fiber->context.start(started_as_, i, fiber_main);
    fibers_.push_back(std::move(fiber));
  }
  const dim3& b = config_->block;
  for (unsigned i = 0; i < count_; ++i) fibers_[i]->index = {i % b.x, i / b.x % b.y, i / (b.x * b.y)};
}

void Runner::run_grid(const Config& config, const std::function<void()>& body) {
  CHECK(!config_, config.file, ":", config.line, ": launch: called inside a kernel");
  check_config(config);
  struct Reset {
    Runner& runner;
    ~Reset() {
      runner.config_ = nullptr;
      runner.shared_.clear();
    }
  } reset{*this};
  config_ = &config;
  body_ = &body;
  count_ = config.block.x * config.block.y * config.block.z;
  random_ = settings.seed * 0x9E3779B97F4A7C15ull + 1;
  start_fibers();
  if (config.shared_bytes) shared_.emplace_back(nullptr, config.shared_bytes);
  gridDim = config.grid;
  blockDim = config.block;
  const size_t blocks = size_t{config.grid.x} * config.grid.y * config.grid.z;
  std::vector<unsigned> sequence;
  order(sequence, unsigned(blocks));
  for (const unsigned i : sequence) {
    blockIdx = {i % config.grid.x, i / config.grid.x % config.grid.y, i / (config.grid.x * config.grid.y)};
    run_block();
  }
}

void* Runner::dynamic_shared(const char* file, int line) {
  current();
  if (!config_->shared_bytes) fault(file, ":", line, ": dynamic_shared: the launch asked for 0 bytes");
  return shared_.front().data();
}

void* Runner::static_shared(const void* key, size_t bytes) {
  current();
  size_t total = bytes;
  for (const SharedBlock& block : shared_) {
    if (block.key() == key) return block.data();
    if (block.key()) total += block.bytes();
  }
  if (total > kMaxStaticShared)
    fault(config_->file, ":", config_->line, ": launch: the kernel's static shared arrays take ", total,
          " bytes, the limit is ", kMaxStaticShared);
  shared_.emplace_back(key, bytes).poison();
  return shared_.back().data();
}

}  // namespace

ScopedSettings::ScopedSettings(Settings settings) : before_(runner().settings) {
  runner().settings = settings;
}
ScopedSettings::~ScopedSettings() { runner().settings = before_; }

void run_grid(const Config& config, const std::function<void()>& body) { runner().run_grid(config, body); }
void barrier(const char* file, int line) { runner().barrier(file, line); }
uint64_t collective(Collective kind, unsigned mask, uint64_t value, int source, const char* file, int line) {
  return runner().collective(kind, mask, value, source, file, line);
}
int lane() { return int(runner().current().lane); }
void* dynamic_shared(const char* file, int line) { return runner().dynamic_shared(file, line); }
void* static_shared(const void* key, size_t bytes) { return runner().static_shared(key, bytes); }

}  // namespace lanas::simt
