// scale_segments.h -- y[r,i] = x[r,i] * s[segment(i)]: consecutive segments of every row of a [rows, cols]
// matrix, each times one factor. Partial channel connections scale the op weights of an edge by the edge's
// weight. Backward: dx[r,i] = dy[r,i] s[segment(i)]; ds[k] = sum over r and i in segment k of dy[r,i] x[r,i].
#pragma once

#include <span>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// x and y [rows, cols], s [1, number of segments]; the segments' lengths are positive and add up to cols.
void scale_segments_forward(Stream& stream, Tensor y, Tensor x, Tensor s, std::span<const int> segments);
// dx and ds are skipped where null; each has its BLAS beta.
void scale_segments_backward(Stream& stream, Tensor dx, Tensor ds, Tensor dy, Tensor x, Tensor s,
                             std::span<const int> segments, float beta_dx, float beta_ds);

namespace host {
template <class T>
void scale_segments_forward(View<T> y, View<T> x, View<T> s, std::span<const int> segments);
template <class T>
void scale_segments_backward(View<T> dx, View<T> ds, View<T> dy, View<T> x, View<T> s,
                             std::span<const int> segments, T beta_dx, T beta_ds);
}  // namespace host

}  // namespace lanas
