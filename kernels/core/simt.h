// simt.h -- CUDA's words for g++: the types and functions that our kernels use, and an emulator that runs
// them. Each thread of a block is a fibre with its own stack; fibres run one at a time, in a chosen order,
// from one barrier or warp collective to the next, so a missing barrier gives another result in another
// order. Blocks run one after another, in the same order rule. What a kernel gets wrong (barriers that not
// all threads reach, collectives that name exited lanes, writes past shared memory, block sizes) throws
// lanas::Error with file and line. Kernels include launch.cuh, never this file. It needs no CUDA toolkit.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/core/check.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
// Static shared memory: one copy, as blocks run one after another. It keeps its old content from block to
// block and has no guard, so prefer static_shared<T, n>() and dynamic_shared<T>(), which are poisoned and
// checked.
#define __shared__ static thread_local

struct alignas(8) float2 {
  float x, y;
};
struct float3 {
  float x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(4) uchar4 {
  unsigned char x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned nx = 1, unsigned ny = 1, unsigned nz = 1) : x(nx), y(ny), z(nz) {}
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) {
  return {x, y, z, w};
}
inline double2 make_double2(double x, double y) { return {x, y}; }

// bfloat16: the upper half of a float, rounded to nearest, ties to even.
struct __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline __nv_bfloat16 __float2bfloat16(float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {uint16_t{0x7fff}};
  return {uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}
inline float __bfloat162float(__nv_bfloat16 v) { return std::bit_cast<float>(uint32_t{v.bits} << 16); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16(x), __float2bfloat16(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {__bfloat162float(v.x), __bfloat162float(v.y)}; }

inline constinit thread_local uint3 threadIdx{}, blockIdx{};
inline constinit thread_local dim3 blockDim{}, gridDim{};
inline constexpr int warpSize = 32;

inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 1 ? 1.0f : x > 0 ? x : 0.0f; }
// glibc declares functions of these names, so they are macros here.
#define rsqrt(x) (1 / std::sqrt(x))
#define __expf(x) ::expf(x)
#define __logf(x) ::logf(x)
#define __powf(x, y) ::powf(x, y)
#define __sinf(x) ::sinf(x)
#define __cosf(x) ::cosf(x)

inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline long min(long a, long b) { return b < a ? b : a; }
inline long max(long a, long b) { return a < b ? b : a; }
inline float min(float a, float b) { return ::fminf(a, b); }
inline float max(float a, float b) { return ::fmaxf(a, b); }

inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline int __popc(unsigned v) { return std::popcount(v); }
inline int __clz(int v) { return std::countl_zero(unsigned(v)); }
inline int __ffs(int v) { return v == 0 ? 0 : std::countr_zero(unsigned(v)) + 1; }
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T v) {
  *p = v;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace lanas::simt {

// In which order the threads of a block, and the blocks of a grid, run. `shuffled` draws a new order of the
// threads after every barrier; the same seed draws the same orders.
enum class Order { forward, reverse, shuffled };
// How one fibre is left for another: about 10 instructions, or <ucontext.h> with a system call per switch.
enum class Switch { assembly, ucontext };
#if defined(__x86_64__) && !defined(LANAS_SIMT_UCONTEXT)
inline constexpr Switch kDefaultSwitch = Switch::assembly;
#else
inline constexpr Switch kDefaultSwitch = Switch::ucontext;
#endif

struct Settings {
  Order order = Order::forward;
  uint64_t seed = 0;
  Switch context = kDefaultSwitch;  // assembly throws where it is not built in
};

// Applies to the launches of this thread while it lives.
class ScopedSettings {
 public:
  explicit ScopedSettings(Settings settings);
  ~ScopedSettings();
  ScopedSettings(const ScopedSettings&) = delete;
  ScopedSettings& operator=(const ScopedSettings&) = delete;

 private:
  Settings before_;
};

// The limits that a launch must respect on every device that we build for.
inline constexpr size_t kMaxDynamicShared = 227 * 1024;  // bytes a block, sm_90 with the opt-in
inline constexpr size_t kMaxStaticShared = 48 * 1024;    // bytes a block
inline constexpr unsigned kMaxBlockThreads = 1024;

struct Config {
  dim3 grid, block;
  size_t shared_bytes = 0;
  const char* file = "";  // where launch() was called
  int line = 0;
};

// CHECKs the sizes against the limits above.
void check_config(const Config& config);
// Runs body once per thread of the grid. Throws Error for what the kernel did wrong; the memory that it wrote
// before that stays written.
void run_grid(const Config& config, const std::function<void()>& body);

// A recorded list of launches, the emulated counterpart of a CUDA graph. Between begin() and end() this
// thread's launches are recorded with their arguments by value, and not run; replay() runs them in order. A
// value that is a kernel's argument is thus frozen, as it is in a graph; memory that a pointer names is read
// anew.
class LaunchList {
 public:
  LaunchList() = default;
  ~LaunchList();
  LaunchList(const LaunchList&) = delete;
  LaunchList& operator=(const LaunchList&) = delete;

  void begin();  // Error if this thread records already; forgets what the list held
  void end();
  void replay() const;  // runs now, or is recorded whole into the list being recorded
  size_t size() const { return work_.size(); }

  // The list that this thread records into, or null. Vendor twins put their calls there too.
  static LaunchList* recording();
  void add(std::function<void()> work) { work_.push_back(std::move(work)); }

 private:
  std::vector<std::function<void()>> work_;
};

enum class Collective { sync, shuffle, ballot };

// Called by running kernels only.
void barrier(const char* file, int line);
// All lanes in mask meet here. Gives the value of lane `source` (shuffle), or a bit per lane with value != 0.
uint64_t collective(Collective kind, unsigned mask, uint64_t value, int source, const char* file, int line);
int lane();
void* dynamic_shared(const char* file, int line);
void* static_shared(const void* key, size_t bytes);

template <class T>
T shuffle(unsigned mask, T value, int source, const char* file, int line) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = collective(Collective::shuffle, mask, bits, source, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <class T>
constexpr void check_atomic() {
  static_assert(
      !std::is_floating_point_v<T>,
      "float atomics are forbidden: their order, and so the result's bits, changes from run to run");
  static_assert(
      std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>,
      "atomics are for int, unsigned and unsigned long long");
}

}  // namespace lanas::simt

// Barriers and collectives note where they were called from.
#define LANAS_SIMT_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(LANAS_SIMT_CALLER) { lanas::simt::barrier(file, line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, LANAS_SIMT_CALLER) {
  lanas::simt::collective(lanas::simt::Collective::sync, mask, 0, 0, file, line);
}
// Shuffles within groups of `width` lanes (a power of two); past a group's end a lane gets its own value.
template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, LANAS_SIMT_CALLER) {
  const int group = lanas::simt::lane() & ~(width - 1);
  return lanas::simt::shuffle(mask, v, group + (source & (width - 1)), file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, LANAS_SIMT_CALLER) {
  const int lane = lanas::simt::lane(), source = lane - int(delta);
  return lanas::simt::shuffle(mask, v, source < (lane & ~(width - 1)) ? lane : source, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, LANAS_SIMT_CALLER) {
  const int lane = lanas::simt::lane(), source = lane + int(delta);
  return lanas::simt::shuffle(mask, v, source > (lane | (width - 1)) ? lane : source, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, LANAS_SIMT_CALLER) {
  const int lane = lanas::simt::lane(), source = lane ^ bits;
  return lanas::simt::shuffle(mask, v, source > (lane | (width - 1)) ? lane : source, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, LANAS_SIMT_CALLER) {
  return unsigned(
      lanas::simt::collective(lanas::simt::Collective::ballot, mask, predicate != 0, 0, file, line));
}
inline int __any_sync(unsigned mask, int predicate, LANAS_SIMT_CALLER) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, LANAS_SIMT_CALLER) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}

#undef LANAS_SIMT_CALLER

// No other thread runs between two collectives, so these need no machine atomics. Each gives the old value.
#define LANAS_SIMT_ATOMIC(name, expression) \
  template <class T>                        \
  T name(T* p, std::type_identity_t<T> v) { \
    lanas::simt::check_atomic<T>();         \
    const T old = *p;                       \
    *p = T(expression);                     \
    return old;                             \
  }
LANAS_SIMT_ATOMIC(atomicAdd, old + v)
LANAS_SIMT_ATOMIC(atomicMin, v < old ? v : old)
LANAS_SIMT_ATOMIC(atomicMax, v > old ? v : old)
LANAS_SIMT_ATOMIC(atomicOr, old | v)
LANAS_SIMT_ATOMIC(atomicAnd, old& v)
LANAS_SIMT_ATOMIC(atomicExch, v)
#undef LANAS_SIMT_ATOMIC
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> compare, std::type_identity_t<T> v) {
  lanas::simt::check_atomic<T>();
  const T old = *p;
  if (old == compare) *p = v;
  return old;
}
