// architecture_code.cu -- see architecture_code.h. Everything is a matter of microseconds, so nodes and
// samples run one after the other. The second draw is kept as a softmax over the other edges, s[j][e] = r_e /
// (1 - r_j), which stays exact where r_j is next to 1.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/random.cuh"
#include "kernels/ops/architecture_code.h"

namespace lanas {

namespace {

constexpr int kMaxNodes = 8;
constexpr int kMaxEdges = kMaxNodes + 1;  // of one node
constexpr int kMaxOps = 16;
constexpr uint64_t kTag = uint64_t{0xAC} << 56;  // keeps these draws apart from other ops' under one seed

}  // namespace

namespace host {

namespace {

// One node and one sample.
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
int argmax(const T* x, int begin, int end) {
  int best = begin;
  for (int i = begin + 1; i < end; ++i)
    if (x[i] > x[best]) best = i;
  return best;
}

template <class T>
void log_softmax(T* out, const T* x, int count) {
  const T largest = x[argmax(x, 0, count)];
  T sum = 0;
  for (int i = 0; i < count; ++i) sum += std::exp(x[i] - largest);
  for (int i = 0; i < count; ++i) out[i] = x[i] - largest - std::log(sum);
}

// out = softmax(x / temperature) over [begin, end) without `skip`, whose out is 0.
template <class T>
void softmax(T* out, const T* x, int begin, int end, T temperature, int skip = -1) {
  T largest = -std::numeric_limits<T>::infinity(), sum = 0;
  for (int i = begin; i < end; ++i)
    if (i != skip) largest = std::max(largest, x[i]);
  for (int i = begin; i < end; ++i)
    sum += out[i] = i == skip ? T(0) : std::exp((x[i] - largest) / temperature);
  for (int i = begin; i < end; ++i) out[i] /= sum;
}

template <class T>
Node<T> evaluate(CellLayout layout, int node, View<T> alpha, View<T> beta, const T* noise, T temperature) {
  Node<T> n{};
  n.first = layout.first_edge(node), n.edges = 2 + node, n.ops = layout.ops;
  if (beta) log_softmax(n.lb, beta.data + n.first, n.edges);
  for (int e = 0; e < n.edges; ++e) {
    const int edge = n.first + e;
    log_softmax(n.lp[e], alpha.data + edge * n.ops, n.ops);
    for (int o = 0; o < n.ops; ++o) n.u[e][o] = n.lp[e][o] + (noise ? noise[edge * n.ops + o] : T(0));
    softmax(n.q[e], n.u[e], 1, n.ops, temperature);
    n.best[e] = argmax(n.lp[e], 1, n.ops);
    n.z[e] = n.lp[e][n.best[e]] + n.lb[e] + (noise ? noise[layout.code_size() + edge] : T(0));
  }
  softmax(n.r, n.z, 0, n.edges, temperature);
  for (int j = 0; j < n.edges; ++j) softmax(n.s[j], n.z, 0, n.edges, temperature, j);
  for (int e = 0; e < n.edges; ++e) {
    n.p[e] = n.r[e];
    for (int j = 0; j < n.edges; ++j) n.p[e] += n.r[j] * n.s[j][e];
    if (n.edges == 2) n.p[e] = 1;
  }
  return n;
}

template <class T>
void write_relaxed(T* code, const Node<T>& n) {
  for (int e = 0; e < n.edges; ++e) {
    T* row = code + (n.first + e) * n.ops;
    row[0] = 1 - n.p[e];
    for (int o = 1; o < n.ops; ++o) row[o] = n.p[e] * n.q[e][o];
  }
}

template <class T>
void write_hard(T* code, const Node<T>& n) {
  for (int e = 0; e < n.edges; ++e) {
    int better = 0;  // edges that come before e
    for (int j = 0; j < n.edges; ++j) better += n.z[j] > n.z[e] || (n.z[j] == n.z[e] && j < e);
    const int op = better < 2 ? argmax(n.u[e], 1, n.ops) : 0;
    T* row = code + (n.first + e) * n.ops;
    for (int o = 0; o < n.ops; ++o) row[o] = o == op;
  }
}

// dx += softmax backward: y (dy - sum y dy) / temperature over [begin, end).
template <class T>
void softmax_backward(double* dx, const double* dy, const T* y, int begin, int end, T temperature) {
  double mean = 0;
  for (int i = begin; i < end; ++i) mean += double(y[i]) * dy[i];
  for (int i = begin; i < end; ++i) dx[i] += double(y[i]) * (dy[i] - mean) / double(temperature);
}

// Adds one sample's gradients with respect to lp and to the node's log_softmax(beta).
template <class T>
void accumulate(double (&dlp)[kMaxEdges][kMaxOps], double (&dlb)[kMaxEdges], const Node<T>& n, const T* dcode,
                T temperature) {
  double dp[kMaxEdges] = {}, dz[kMaxEdges] = {}, dr[kMaxEdges];
  for (int e = 0; e < n.edges; ++e) {
    const T* row = dcode + (n.first + e) * n.ops;
    double dq[kMaxOps];
    dp[e] = -double(row[0]);
    for (int o = 1; o < n.ops; ++o) {
      dp[e] += double(row[o]) * double(n.q[e][o]);
      dq[o] = double(row[o]) * double(n.p[e]);
    }
    softmax_backward(dlp[e], dq, n.q[e], 1, n.ops, temperature);
  }
  if (n.edges == 2) return;  // p is 1 whatever z is
  for (int j = 0; j < n.edges; ++j) {
    double ds[kMaxEdges];
    dr[j] = dp[j];
    for (int e = 0; e < n.edges; ++e) {
      dr[j] += dp[e] * double(n.s[j][e]);
      ds[e] = dp[e] * double(n.r[j]);
    }
    softmax_backward(dz, ds, n.s[j], 0, n.edges, temperature);
  }
  softmax_backward(dz, dr, n.r, 0, n.edges, temperature);
  for (int e = 0; e < n.edges; ++e) {
    dlp[e][n.best[e]] += dz[e];
    dlb[e] += dz[e];
  }
}

// dx = beta dx + dy - softmax(x) sum(dy), with lp = log_softmax(x).
template <class T>
void log_softmax_backward(T* dx, const double* dy, const T* lp, int count, T beta) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += dy[i];
  for (int i = 0; i < count; ++i) {
    const double d = dy[i] - std::exp(double(lp[i])) * sum;
    dx[i] = beta == 0 ? T(d) : T(d + double(beta) * double(dx[i]));
  }
}

}  // namespace

template <class T>
void architecture_code_forward(View<T> code, View<T> alpha, View<T> beta, View<T> noise, T temperature,
                               bool hard, CellLayout layout) {
  for (int64_t sample = 0; sample < code.pixels(); ++sample)
    for (int node = 0; node < layout.nodes; ++node) {
      const Node<T> n =
          evaluate(layout, node, alpha, beta, noise ? noise.pixel(sample) : nullptr, temperature);
      if (hard)
        write_hard(code.pixel(sample), n);
      else
        write_relaxed(code.pixel(sample), n);
    }
}

template <class T>
void architecture_code_backward(View<T> dalpha, View<T> dbeta, View<T> dcode, View<T> alpha, View<T> beta,
                                View<T> noise, T temperature, T beta_dalpha, T beta_dbeta,
                                CellLayout layout) {
  for (int node = 0; node < layout.nodes; ++node) {
    double dlp[kMaxEdges][kMaxOps] = {}, dlb[kMaxEdges] = {};
    Node<T> n{};
    for (int64_t sample = 0; sample < dcode.pixels(); ++sample) {
      n = evaluate(layout, node, alpha, beta, noise ? noise.pixel(sample) : nullptr, temperature);
      accumulate(dlp, dlb, n, dcode.pixel(sample), temperature);
    }
    if (dalpha)
      for (int e = 0; e < n.edges; ++e)
        log_softmax_backward(dalpha.data + (n.first + e) * n.ops, dlp[e], n.lp[e], n.ops, beta_dalpha);
    if (dbeta) log_softmax_backward(dbeta.data + n.first, dlb, n.lb, n.edges, beta_dbeta);
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
  throw Error("architecture_code_forward: no cuda kernel in this build");
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
  throw Error("architecture_code_backward: no cuda kernel in this build");
}

void gumbel_noise(Stream& stream, float* noise, int64_t count, uint64_t seed, const uint64_t* step) {
  CHECK(count >= 0, "gumbel_noise: count ", count);
  if (stream.device() != Device::cpu) throw Error("gumbel_noise: no cuda kernel in this build");
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t word = philox(seed, *step, kTag | uint64_t(i / 4)).v[i % 4];
    const double u = (double(word) + 0.5) * 0x1p-32;  // in (0, 1), ends excluded
    noise[i] = float(-std::log(-std::log(u)));
  }
}

}  // namespace lanas
