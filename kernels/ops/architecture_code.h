// architecture_code.h -- architecture parameters of one cell kind into the latency predictor's encoding: one
// row of `ops` numbers per edge that sums to 1, `none` (op 0) holding the chance that the edge is not used.
// Per edge e:  lp = log_softmax(alpha[e]);  u_o = lp_o + noise;  q = softmax(u_1.. / temperature);
//              z_e = max over o >= 1 of lp_o + log_softmax(beta over the node's edges)_e + edge noise.
// Per node:    r = softmax(z / temperature);  p_e = r_e + sum over j != e of r_j r_e / (1 - r_j), the chance
// of e being
//              one of two edges drawn without replacement (they sum to 2).
// Relaxed row: code[e,0] = 1 - p_e, code[e,o] = p_e q_o. This relaxation is this project's own choice, not
// the paper's.
#pragma once

#include <cstdint>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// Node i has the 2 + i consecutive edges from first_edge(i) on.
struct CellLayout {
  int nodes = 4;  // at most 8
  int ops = 8;    // with none; 2 .. 16

  constexpr int first_edge(int node) const { return node * (node + 3) / 2; }
  constexpr int edges() const { return first_edge(nodes); }
  constexpr int code_size() const { return edges() * ops; }
  constexpr int noise_size() const { return code_size() + edges(); }  // op noise, then edge noise
};

// alpha [edges*ops] in all, edge by edge, packed; beta [edges] packed, or null (no edge weights); noise
// [samples, noise_size] or null (zeros), code [samples, code_size], both may be strided. *temperature > 0
// stands in memory. hard: the two edges with the largest z (the lower index of equals) are one-hot in the op
// with the largest u, the others one-hot in none.
void architecture_code_forward(Stream& stream, Tensor code, Tensor alpha, Tensor beta, Tensor noise,
                               const float* temperature, bool hard, CellLayout layout = {});
// Gradients of the relaxed rows, also for hard codes (straight-through), summed over samples. dalpha and
// dbeta are skipped where null; each has its BLAS beta. The maximum in z passes its gradient to the first
// largest op.
void architecture_code_backward(Stream& stream, Tensor dalpha, Tensor dbeta, Tensor dcode, Tensor alpha,
                                Tensor beta, Tensor noise, const float* temperature, float beta_dalpha,
                                float beta_dbeta, CellLayout layout = {});
// noise[i] = -log(-log(u)), Gumbel(0, 1) draws of (seed, *step, i); always finite.
void gumbel_noise(Stream& stream, float* noise, int64_t count, uint64_t seed, const uint64_t* step);

namespace host {
template <class T>
void architecture_code_forward(View<T> code, View<T> alpha, View<T> beta, View<T> noise, T temperature,
                               bool hard, CellLayout layout);
template <class T>
void architecture_code_backward(View<T> dalpha, View<T> dbeta, View<T> dcode, View<T> alpha, View<T> beta,
                                View<T> noise, T temperature, T beta_dalpha, T beta_dbeta, CellLayout layout);
}  // namespace host

}  // namespace lanas
