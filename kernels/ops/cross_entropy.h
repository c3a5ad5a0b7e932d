// cross_entropy.h -- softmax cross entropy with label smoothing s, as in Szegedy et al., "Rethinking the
// Inception architecture" (CVPR 2016), mean over rows: loss = mean of (1-s) (-lp[label]) + s mean over
// classes of (-lp), with lp = log_softmax(logits). Backward: dlogits = dloss / rows (softmax(logits) - (1-s)
// onehot(label) - s / classes).
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// logits [rows, classes], labels [rows] in [0, classes), loss one number; probabilities [rows, classes]
// receives softmax(logits), which backward needs. On the cpu throws Error for a label out of range.
void cross_entropy_forward(Stream& stream, float* loss, Tensor probabilities, Tensor logits,
                           const int* labels, float smoothing);
// dloss: one number in memory, the gradient that reaches the loss. dlogits = beta dlogits + ...
void cross_entropy_backward(Stream& stream, Tensor dlogits, Tensor probabilities, const int* labels,
                            float smoothing, const float* dloss, float beta);
// The number of the first rows_used rows whose largest logit (the first of equals) is the label's; overwrites
// *correct.
void count_correct(Stream& stream, int* correct, Tensor logits, const int* labels, int rows_used);

namespace host {
template <class T>
void cross_entropy_forward(T* loss, View<T> probabilities, View<T> logits, const int* labels, T smoothing);
template <class T>
void cross_entropy_backward(View<T> dlogits, View<T> probabilities, const int* labels, T smoothing,
                            const T* dloss, T beta);
}  // namespace host

}  // namespace lanas
