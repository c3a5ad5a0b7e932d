// separable_conv_cpu_inference.cpp -- separable_conv without gradients, in vectors. A thread packs a few
// images, rectified, into padded buffers and takes them along each path that reads them; the first of a
// path's two units writes what the second reads, rectified and padded too. Where there are fewer images than
// threads, an image goes in strips of rows; then the threads share what the first units write.
#include <optional>

#include "kernels/ops/separable_conv_cpu.h"
#include "kernels/ops/separable_conv_forward.h"

namespace lanas::cpu {
namespace {

// Images that go along a path together, so that weights are read once for them: as many as this many floats
// of padded input hold, 256 KB.
constexpr size_t kTogether = 65536;

// Paths that read one x. Every thread has them with tables and buffers of its own, as in training.
struct Paths {
  Tensor x;
  std::vector<Forward> first;
  std::vector<std::optional<Forward>> second;  // as many; empty where a path is one unit
  ForwardBuffers::Sizes sizes;                 // of all units, padded: of the first
  size_t half_size = 0;                        // of a second unit's padded input
  int together;
  bool few;       // images: fewer than threads
  float* shared;  // then what first units write: [n][paths][half_size]
  ForwardBuffers buffers;
  float* halves = nullptr;  // where images are not few, likewise for those that go together

  Paths(std::span<const SeparablePath> paths, Tensor input, int thread, int threads, Carver& carver)
      : x(input) {
    std::vector<SeparableConv<float>> heads, tails;
    for (const SeparablePath& path : paths) {
      heads.push_back(path.first);
      if (path.two_units()) tails.push_back(path.second);
    }
    const Common head_common(heads), tail_common(tails);
    first.reserve(paths.size()), second.reserve(paths.size());
    for (const SeparablePath& path : paths) {
      const Plan& head = first.emplace_back(path.first, x.shape(), head_common).plan;
      sizes.add(head);
      std::optional<Forward>& tail = second.emplace_back();
      if (!path.two_units()) continue;
      const Plan& plan = tail.emplace(path.second, head.y, tail_common).plan;
      sizes.add(plan, false);
      half_size = std::max(half_size, plan.padded_size());
    }
    together = int(std::clamp<size_t>(kTogether / std::max<size_t>(sizes.padded, 1), 1, size_t(x.n)));
    few = x.n < threads;
    shared = carver.take<float>(few ? size_t(x.n) * paths.size() * half_size : 0);
    const auto carve = [&](Carver& own) {
      for (Forward& unit : first) unit.carve(own);
      for (std::optional<Forward>& unit : second)
        if (unit) unit->carve(own);
      buffers = ForwardBuffers(sizes, together, own);
      halves = own.take<float>(few ? 0 : size_t(together) * half_size);
    };
    Carver own = ThreadMemory(carve, threads, carver).of(thread);
    carve(own);
  }
};

// Rows [begin, end) of image n.
struct Strip {
  int n, begin, end;
};

// The weights of a network lie in the order of its ops, those of inference as products read them. One unit
// after the other asks for as many as it reads, this many floats further on: L2 has room for 256 KB of them.
constexpr ptrdiff_t kWeightsAhead = 65536;

// relu: what is written is rectified.
template <int W>
LANAS_INLINE void unit_strip(const Forward& f, const ForwardBuffers& t, const float* padded, Tensor x,
                             const Destination& to, const Strip& s, bool relu) {
  const Plan& plan = f.plan;
  const bool weights_ahead = plan.op.transposed && s.n == 0;  // once for all images
  Ahead lines;
  if (weights_ahead) lines.stretch(plan.op.pointwise.data + kWeightsAhead, plan.op.pointwise.size());
  Ahead* const ahead = weights_ahead ? &lines : nullptr;
  if (relu)
    forward_rows<W, Then::relu>(f, t, padded, x, to, s.n, s.begin, s.end, ahead);
  else
    forward_rows<W, Then::nothing>(f, t, padded, x, to, s.n, s.begin, s.end, ahead);
}

template <int W>
LANAS_INLINE void inference_thread(const Paths& all, int thread, int threads) {
  const Plan& plan = all.first[0].plan;
  const ForwardBuffers& t = all.buffers;
  const int block = 4 * plan.step, blocks = (plan.y.h + block - 1) / block;
  const int strips = std::clamp(threads / plan.y.n, 1, blocks);
  const int64_t items = int64_t{plan.y.n} * strips, last = items * (thread + 1) / threads;
  const auto strip = [&](int64_t i) LANAS_LAMBDA {
    const int s = int(i % strips);
    return Strip{int(i / strips), blocks * s / strips * block,
                 std::min(plan.y.h, blocks * (s + 1) / strips * block)};
  };
  const auto padded = [&](int k) LANAS_LAMBDA { return t.padded + size_t(k) * all.sizes.padded; };
  const auto half = [&](int k, int n, size_t path) LANAS_LAMBDA {
    return all.few ? all.shared + (size_t(n) * all.first.size() + path) * all.half_size
                   : all.halves + size_t(k) * all.half_size;
  };
  for (int k = 0; k < all.together; ++k) clear_borders(padded(k), plan);
  const auto clear_halves = [&](int k, int n) LANAS_LAMBDA {
    for (size_t p = 0; p < all.first.size(); ++p)
      if (all.second[p]) clear_borders(half(k, n, p), all.second[p]->plan);
  };
  for (int k = 0; !all.few && k < all.together; ++k) clear_halves(k, 0);
  int64_t i = items * thread / threads;
  do {  // once also for a thread without items: where there are strips, the others wait for it
    const int count = int(std::min<int64_t>(all.together, last - i));
    for (int k = 0; k < count; ++k) {
      const Strip s = strip(i + k);
      if (plan.op.has_depthwise())
        pack_rows<W>(padded(k), plan, all.x, s.n, s.begin, s.end, all.first[0].norm, strips > 1);
      if (all.few && s.begin == 0) clear_halves(k, s.n);
    }
    for (size_t p = 0; p < all.first.size(); ++p) {
      const Forward& first = all.first[p];
      const Forward* const second = all.second[p] ? &*all.second[p] : nullptr;
      for (int k = 0; k < count; ++k) {
        const Strip s = strip(i + k);
        const Destination to =
            second ? Destination(half(k, s.n, p), second->plan) : Destination(first.y, s.n);
        unit_strip<W>(first, t, padded(k), all.x, to, s, second || first.rectified);
      }
      if (!second) continue;
      if (strips > 1) {
#pragma omp barrier
      }
      for (int k = 0; k < count; ++k) {
        const Strip s = strip(i + k);
        const float* const from = half(k, s.n, p) + ptrdiff_t(s.begin) * second->plan.pitch;
        unit_strip<W>(*second, t, from, {}, {second->y, s.n}, s, second->rectified);
      }
    }
    i += count;
  } while (i < last);
}

LANAS_TARGET_AVX512 void inference_avx512(const Paths& all, int thread, int threads) {
  inference_thread<16>(all, thread, threads);
}
LANAS_TARGET_AVX2 void inference_avx2(const Paths& all, int thread, int threads) {
  inference_thread<8>(all, thread, threads);
}
__attribute__((flatten)) void inference_base(const Paths& all, int thread, int threads) {
  inference_thread<4>(all, thread, threads);
}

}  // namespace

size_t separable_convs_inference_scratch_bytes(std::span<const SeparablePath> paths, Shape x, int threads) {
  Carver carver(nullptr);
  Paths(paths, Tensor(nullptr, x), 0, threads, carver);
  return carver.used();
}

void separable_convs_inference(std::span<const SeparablePath> paths, Tensor x, float* scratch) {
  const int most = omp_get_max_threads();
  on_threads([&](int thread, int threads) {
    Carver carver(scratch);
    Paths all(paths, x, thread, most, carver);
    for (size_t p = 0; p < paths.size(); ++p) {
      const SeparablePath& path = paths[p];
      all.first[p].fill(path.first_bias);
      if (all.second[p]) all.second[p]->fill(path.second_bias);
      Forward& last = all.second[p] ? *all.second[p] : all.first[p];
      last.y = path.y, last.added = path.added, last.rectified = path.rectified;
    }
    of_lanes(all.first[0].plan.lanes, inference_avx512, inference_avx2, inference_base)(all, thread, threads);
  });
}

}  // namespace lanas::cpu
