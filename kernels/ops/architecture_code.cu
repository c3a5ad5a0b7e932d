// architecture_code.cu -- see architecture_code.h. Everything is a matter of microseconds: on the host nodes
// and samples run one after the other, on the device an edge has a thread. The second draw is kept as a
// softmax over the other edges, s[j][e] = r_e / (1 - r_j), which stays exact where r_j is next to 1.
#include <cmath>
#include <limits>

#include "kernels/core/random.cuh"
#include "kernels/core/reduce.cuh"
#include "kernels/ops/architecture_code.h"

namespace lanas {

namespace {

constexpr int kMaxNodes = 8;
constexpr int kMaxEdges = kMaxNodes + 1;  // of one node
constexpr int kMaxOps = 16;
constexpr uint64_t kTag = uint64_t{0xAC} << 56;  // keeps these draws apart from other ops' under one seed

template <class T>
struct Inputs {
  CellLayout layout;
  const T *alpha, *beta, *noise;  // noise of one sample; beta and noise may be null
  T temperature;
};

// One node and one sample. Three functions fill it, each over all edges before the next: score_edge,
// draw_edge, include_edge. The host loops over the edges, the device has a thread for each.
template <class T>
struct Node {
  int first, edges, ops;
  T lp[kMaxEdges][kMaxOps];  // log_softmax(alpha)
  T u[kMaxEdges][kMaxOps];   // op scores
  T q[kMaxEdges][kMaxOps];   // op distribution; q[e][0] is not used
  T lb[kMaxEdges];           // log_softmax(beta)
  T z[kMaxEdges], r[kMaxEdges], p[kMaxEdges];
  T s[kMaxEdges][kMaxEdges];  // s[j][e]: e is second given that j is first; s[j][j] = 0
  int best[kMaxEdges];        // argmax of lp over ops but none
};

template <class T>
LANAS_HOST_DEVICE int argmax(const T* x, int begin, int end) {
  int best = begin;
  for (int i = begin + 1; i < end; ++i)
    if (x[i] > x[best]) best = i;
  return best;
}

template <class T>
LANAS_HOST_DEVICE T log_sum_exp(const T* x, int count) {
  const T largest = x[argmax(x, 0, count)];
  T sum = 0;
  for (int i = 0; i < count; ++i) sum += std::exp(x[i] - largest);
  return largest + std::log(sum);
}

// out = softmax(x / temperature) over [begin, end) without `skip`, whose out is 0.
template <class T>
LANAS_HOST_DEVICE void softmax(T* out, const T* x, int begin, int end, T temperature, int skip = -1) {
  T largest = -std::numeric_limits<T>::infinity(), sum = 0;
  for (int i = begin; i < end; ++i)
    if (i != skip && x[i] > largest) largest = x[i];
  for (int i = begin; i < end; ++i)
    sum += out[i] = i == skip ? T(0) : std::exp((x[i] - largest) / temperature);
  for (int i = begin; i < end; ++i) out[i] /= sum;
}

template <class T>
LANAS_HOST_DEVICE void score_edge(Node<T>& n, const Inputs<T>& in, int e) {
  const int edge = n.first + e;
  const T* alpha = in.alpha + edge * n.ops;
  const T normaliser = log_sum_exp(alpha, n.ops);
  for (int o = 0; o < n.ops; ++o) {
    n.lp[e][o] = alpha[o] - normaliser;
    n.u[e][o] = n.lp[e][o] + (in.noise ? in.noise[edge * n.ops + o] : T(0));
  }
  softmax(n.q[e], n.u[e], 1, n.ops, in.temperature);
  n.lb[e] = in.beta ? in.beta[edge] - log_sum_exp(in.beta + n.first, n.edges) : T(0);
  n.best[e] = argmax(n.lp[e], 1, n.ops);
  n.z[e] = n.lp[e][n.best[e]] + n.lb[e] + (in.noise ? in.noise[in.layout.code_size() + edge] : T(0));
}

template <class T>
LANAS_HOST_DEVICE void draw_edge(Node<T>& n, T temperature, int j) {
  softmax(n.s[j], n.z, 0, n.edges, temperature, j);
  if (j == 0) softmax(n.r, n.z, 0, n.edges, temperature);
}

template <class T>
LANAS_HOST_DEVICE void include_edge(Node<T>& n, int e) {
  T p = n.r[e];
  for (int j = 0; j < n.edges; ++j) p += n.r[j] * n.s[j][e];
  n.p[e] = n.edges == 2 ? T(1) : p;
}

template <class T>
LANAS_HOST_DEVICE void write_relaxed(T* code, const Node<T>& n, int e) {
  T* row = code + (n.first + e) * n.ops;
  row[0] = 1 - n.p[e];
  for (int o = 1; o < n.ops; ++o) row[o] = n.p[e] * n.q[e][o];
}

template <class T>
LANAS_HOST_DEVICE void write_hard(T* code, const Node<T>& n, int e) {
  int better = 0;  // edges that come before e
  for (int j = 0; j < n.edges; ++j) better += n.z[j] > n.z[e] || (n.z[j] == n.z[e] && j < e);
  const int op = better < 2 ? argmax(n.u[e], 1, n.ops) : 0;
  T* row = code + (n.first + e) * n.ops;
  for (int o = 0; o < n.ops; ++o) row[o] = o == op;
}

// Gradients of a node: with respect to lp and lb, summed over samples, and on the way to them. Three
// functions add a sample's, each over all edges before the next: add_op_gradient, add_draw_gradient,
// add_score_gradient.
struct NodeGradient {
  double dlp[kMaxEdges][kMaxOps], dlb[kMaxEdges];
  double dp[kMaxEdges], dr[kMaxEdges], mean[kMaxEdges];
};

LANAS_HOST_DEVICE inline void clear(NodeGradient& g, int e) {
  for (int o = 0; o < kMaxOps; ++o) g.dlp[e][o] = 0;
  g.dlb[e] = 0;
}

template <class T>
LANAS_HOST_DEVICE void add_op_gradient(NodeGradient& g, const Node<T>& n, const T* dcode, T temperature,
                                       int e) {
  const T* row = dcode + (n.first + e) * n.ops;
  double dp = -double(row[0]), mean = 0;
  for (int o = 1; o < n.ops; ++o) {
    dp += double(row[o]) * double(n.q[e][o]);
    mean += double(n.q[e][o]) * (double(row[o]) * double(n.p[e]));
  }
  for (int o = 1; o < n.ops; ++o)
    g.dlp[e][o] += double(n.q[e][o]) * (double(row[o]) * double(n.p[e]) - mean) / double(temperature);
  g.dp[e] = dp;
}

// Row j of the second draw: its gradient is ds[e] = dp[e] r[j], whose mean under s[j] its softmax needs.
template <class T>
LANAS_HOST_DEVICE void add_draw_gradient(NodeGradient& g, const Node<T>& n, int j) {
  double dr = g.dp[j], mean = 0;
  for (int e = 0; e < n.edges; ++e) {
    dr += g.dp[e] * double(n.s[j][e]);
    mean += double(n.s[j][e]) * (g.dp[e] * double(n.r[j]));
  }
  g.dr[j] = dr;
  g.mean[j] = mean;
}

template <class T>
LANAS_HOST_DEVICE void add_score_gradient(NodeGradient& g, const Node<T>& n, T temperature, int e) {
  if (n.edges == 2) return;  // p is 1 whatever z is
  double dz = 0, mean = 0;
  for (int j = 0; j < n.edges; ++j) {
    dz += double(n.s[j][e]) * (g.dp[e] * double(n.r[j]) - g.mean[j]) / double(temperature);
    mean += double(n.r[j]) * g.dr[j];
  }
  dz += double(n.r[e]) * (g.dr[e] - mean) / double(temperature);
  g.dlp[e][n.best[e]] += dz;
  g.dlb[e] += dz;
}

// dx = beta dx + dy - softmax(x) sum(dy), with lp = log_softmax(x).
template <class T>
LANAS_HOST_DEVICE void log_softmax_backward(T* dx, const double* dy, const T* lp, int count, T beta) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += dy[i];
  for (int i = 0; i < count; ++i) {
    const double d = dy[i] - std::exp(double(lp[i])) * sum;
    dx[i] = beta == 0 ? T(d) : T(d + double(beta) * double(dx[i]));
  }
}

}  // namespace

namespace host {

namespace {

template <class T>
void evaluate(Node<T>& n, const Inputs<T>& in, int node) {
  n.first = in.layout.first_edge(node), n.edges = 2 + node, n.ops = in.layout.ops;
  for (int e = 0; e < n.edges; ++e) score_edge(n, in, e);
  for (int j = 0; j < n.edges; ++j) draw_edge(n, in.temperature, j);
  for (int e = 0; e < n.edges; ++e) include_edge(n, e);
}

}  // namespace

template <class T>
void architecture_code_forward(View<T> code, View<T> alpha, View<T> beta, View<T> noise, T temperature,
                               bool hard, CellLayout layout) {
  for (int64_t sample = 0; sample < code.pixels(); ++sample)
    for (int node = 0; node < layout.nodes; ++node) {
      Node<T> n{};
      evaluate(n, {layout, alpha.data, beta.data, noise ? noise.pixel(sample) : nullptr, temperature}, node);
      for (int e = 0; e < n.edges; ++e)
        hard ? write_hard(code.pixel(sample), n, e) : write_relaxed(code.pixel(sample), n, e);
    }
}

template <class T>
void architecture_code_backward(View<T> dalpha, View<T> dbeta, View<T> dcode, View<T> alpha, View<T> beta,
                                View<T> noise, T temperature, T beta_dalpha, T beta_dbeta,
                                CellLayout layout) {
  for (int node = 0; node < layout.nodes; ++node) {
    NodeGradient g{};
    Node<T> n{};
    for (int64_t sample = 0; sample < dcode.pixels(); ++sample) {
      evaluate(n, {layout, alpha.data, beta.data, noise ? noise.pixel(sample) : nullptr, temperature}, node);
      for (int e = 0; e < n.edges; ++e) add_op_gradient(g, n, dcode.pixel(sample), temperature, e);
      for (int j = 0; j < n.edges; ++j) add_draw_gradient(g, n, j);
      for (int e = 0; e < n.edges; ++e) add_score_gradient(g, n, temperature, e);
    }
    if (dalpha)
      for (int e = 0; e < n.edges; ++e)
        log_softmax_backward(dalpha.data + (n.first + e) * n.ops, g.dlp[e], n.lp[e], n.ops, beta_dalpha);
    if (dbeta) log_softmax_backward(dbeta.data + n.first, g.dlb, n.lb, n.edges, beta_dbeta);
  }
}

#define INSTANTIATE(T)                                                                                    \
  template void architecture_code_forward(View<T>, View<T>, View<T>, View<T>, T, bool, CellLayout);       \
  template void architecture_code_backward(View<T>, View<T>, View<T>, View<T>, View<T>, View<T>, T, T, T, \
                                           CellLayout);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

constexpr unsigned kThreads = 32;  // of a block: one per edge of its node

// All threads of the block call it.
__device__ void evaluate_block(Node<float>& n, const Inputs<float>& in, int node) {
  const int e = int(threadIdx.x);
  __syncthreads();  // the readers of an earlier sample are done
  if (e == 0) n.first = in.layout.first_edge(node), n.edges = 2 + node, n.ops = in.layout.ops;
  __syncthreads();
  if (e < n.edges) score_edge(n, in, e);
  __syncthreads();
  if (e < n.edges) draw_edge(n, in.temperature, e);
  __syncthreads();
  if (e < n.edges) include_edge(n, e);
  __syncthreads();
}

// Block (node, sample).
__global__ void architecture_code_forward_kernel(Tensor code, Tensor alpha, Tensor beta, Tensor noise,
                                                 const float* temperature, bool hard, CellLayout layout) {
  Node<float>& n = *static_shared<Node<float>, 1>();
  const int64_t sample = blockIdx.y;
  const float* drawn = noise ? noise.pixel(sample) : nullptr;
  evaluate_block(n, {layout, alpha.data, beta.data, drawn, *temperature}, int(blockIdx.x));
  const int e = int(threadIdx.x);
  if (e >= n.edges) return;
  hard ? write_hard(code.pixel(sample), n, e) : write_relaxed(code.pixel(sample), n, e);
}

// Block node, all samples in order.
__global__ void architecture_code_backward_kernel(Tensor dalpha, Tensor dbeta, Tensor dcode, Tensor alpha,
                                                  Tensor beta, Tensor noise, const float* temperature,
                                                  float beta_dalpha, float beta_dbeta, CellLayout layout) {
  Node<float>& n = *static_shared<Node<float>, 1>();
  NodeGradient& g = *static_shared<NodeGradient, 1>();
  const int e = int(threadIdx.x), edges = 2 + int(blockIdx.x);
  if (e < edges) clear(g, e);
  for (int64_t sample = 0; sample < dcode.pixels(); ++sample) {
    const float* drawn = noise ? noise.pixel(sample) : nullptr;
    evaluate_block(n, {layout, alpha.data, beta.data, drawn, *temperature}, int(blockIdx.x));
    if (e < edges) add_op_gradient(g, n, dcode.pixel(sample), *temperature, e);
    __syncthreads();
    if (e < edges) add_draw_gradient(g, n, e);
    __syncthreads();
    if (e < edges) add_score_gradient(g, n, *temperature, e);
  }
  __syncthreads();
  if (dalpha && e < edges)
    log_softmax_backward(dalpha.data + (n.first + e) * n.ops, g.dlp[e], n.lp[e], n.ops, beta_dalpha);
  if (dbeta && e == 0) log_softmax_backward(dbeta.data + n.first, g.dlb, n.lb, n.edges, beta_dbeta);
}

LANAS_HOST_DEVICE inline float gumbel(uint64_t seed, uint64_t step, int64_t i) {
  const uint32_t word = philox(seed, step, kTag | uint64_t(i / 4)).v[i % 4];
  const double u = (double(word) + 0.5) * 0x1p-32;  // in (0, 1), ends excluded
  return float(-std::log(-std::log(u)));
}

__global__ void gumbel_noise_kernel(float* noise, int64_t count, uint64_t seed, const uint64_t* step) {
  for (const int64_t i : grid_stride(count)) noise[i] = gumbel(seed, *step, i);
}

void check(const char* name, Tensor code, Tensor alpha, Tensor beta, Tensor noise, CellLayout layout) {
  CHECK(layout.nodes >= 1 && layout.nodes <= kMaxNodes && layout.ops >= 2 && layout.ops <= kMaxOps, name,
        ": ", layout.nodes, " nodes and ", layout.ops, " ops; at most ", kMaxNodes, " and 2 to ", kMaxOps);
  CHECK(code.pixels() > 0 && code.c == layout.code_size(), name, ": code ", code.shape(), " does not have ",
        layout.code_size(), " columns");
  CHECK(alpha && alpha.packed() && alpha.size() == layout.code_size(), name, ": alpha ", alpha.shape(),
        " is not packed with ", layout.code_size(), " numbers");
  CHECK(!beta || (beta.packed() && beta.size() == layout.edges()), name, ": beta ", beta.shape(),
        " is not packed with ", layout.edges(), " numbers");
  CHECK(!noise || (noise.pixels() == code.pixels() && noise.c == layout.noise_size()), name, ": noise ",
        noise.shape(), " does not match code ", code.shape(), " and ", layout.noise_size(), " columns");
}

}  // namespace

void architecture_code_forward(Stream& stream, Tensor code, Tensor alpha, Tensor beta, Tensor noise,
                               const float* temperature, bool hard, CellLayout layout) {
  check("architecture_code_forward", code, alpha, beta, noise, layout);
  if (stream.device() == Device::cpu) {
    CHECK(*temperature > 0, "architecture_code_forward: temperature ", *temperature, " is not positive");
    return host::architecture_code_forward(code, alpha, beta, noise, *temperature, hard, layout);
  }
  CHECK(code.pixels() <= 65535, "architecture_code_forward: ", code.pixels(), " samples, at most 65535");
  launch(architecture_code_forward_kernel, dim3(unsigned(layout.nodes), unsigned(code.pixels())), kThreads, 0,
         stream, code, alpha, beta, noise, temperature, hard, layout);
}

void architecture_code_backward(Stream& stream, Tensor dalpha, Tensor dbeta, Tensor dcode, Tensor alpha,
                                Tensor beta, Tensor noise, const float* temperature, float beta_dalpha,
                                float beta_dbeta, CellLayout layout) {
  check("architecture_code_backward", dcode, alpha, beta, noise, layout);
  CHECK(!dalpha || (dalpha.packed() && dalpha.size() == alpha.size()), "architecture_code_backward: dalpha ",
        dalpha.shape(), " does not match alpha ", alpha.shape());
  CHECK(!dbeta || (beta && dbeta.packed() && dbeta.size() == beta.size()),
        "architecture_code_backward: dbeta ", dbeta.shape(), " does not match beta ", beta.shape());
  if (stream.device() == Device::cpu)
    return host::architecture_code_backward(dalpha, dbeta, dcode, alpha, beta, noise, *temperature,
                                            beta_dalpha, beta_dbeta, layout);
  launch(architecture_code_backward_kernel, unsigned(layout.nodes), kThreads, 0, stream, dalpha, dbeta, dcode,
         alpha, beta, noise, temperature, beta_dalpha, beta_dbeta, layout);
}

void gumbel_noise(Stream& stream, float* noise, int64_t count, uint64_t seed, const uint64_t* step) {
  CHECK(count >= 0, "gumbel_noise: count ", count);
  if (stream.device() == Device::cuda) {
    launch(gumbel_noise_kernel, grid_blocks(count, 128), 128, 0, stream, noise, count, seed, step);
    return;
  }
  for (int64_t i = 0; i < count; ++i) noise[i] = gumbel(seed, *step, i);
}

}  // namespace lanas
