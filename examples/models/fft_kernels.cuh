// The passes between the transforms of an EMA by FFT on a CUDA device. Rows are [batch, channels, stride], activations
// are [batch, length, channels], spectra are interleaved complex numbers.
#pragma once
#include <tcnca/block/activation.hpp>
#include <tcnca/core/config.hpp>

namespace tcnca::models::detail {

template <class T>
__device__ __forceinline__ auto silu_at(T v) {
  return activate<activation::silu>(broadcast<1>(v));
}
__device__ __forceinline__ index_t element() { return index_t(blockIdx.x) * blockDim.x + threadIdx.x; }

/// Lag m is at position m, lag -m at position -m of the circle of 2 n samples.
template <class T>
__global__ void lay_out_kernel(T const* kappa, T* circle, index_t channels, index_t length, index_t n,
                               bool bidirectional) {
  index_t const i = element(), c = i / (2 * n), m = i % (2 * n);
  if (c >= channels) return;
  T const* const other = kappa + (channels + c) * length;
  T v = m < length ? kappa[c * length + m] : T(0);
  if (bidirectional && m == 0) v += other[0];
  if (bidirectional && m > 0 && 2 * n - m < length) v += other[2 * n - m];
  circle[i] = v;
}
template <class T>
__global__ void take_apart(T const* circle, T* grad_kappa, T scale, index_t channels, index_t length, index_t n,
                           bool bidirectional) {
  index_t const i = element(), c = i / length, m = i % length;
  if (c >= channels) return;
  grad_kappa[i] = scale * circle[c * 2 * n + m];
  if (bidirectional) grad_kappa[channels * length + i] = scale * circle[c * 2 * n + (m == 0 ? 0 : 2 * n - m)];
}

/// Transposes tiles of 32 x 32 through shared memory, so that loads and stores are coalesced. Blocks of 32 x 8 threads.
/// With `before`: multiplies by the derivative of silu there. Rows are padded with zeros.
template <class T>
__global__ void channels_to_rows(T const* from, T const* before, T* rows, index_t length, index_t channels,
                                 index_t stride) {
  __shared__ T tile[32][33];
  index_t const t0 = index_t(blockIdx.x) * 32, c0 = index_t(blockIdx.y) * 32, b = blockIdx.z;
  for (int i = int(threadIdx.y); i < 32; i += 8) {
    index_t const t = t0 + i, c = c0 + threadIdx.x, at = (b * length + t) * channels + c;
    bool const inside = t < length && c < channels;
    T v = inside ? from[at] : T(0);
    if (inside && before != nullptr) v *= silu_at(before[at]).derivative.lane(0);
    tile[i][threadIdx.x] = v;
  }
  __syncthreads();
  for (int i = int(threadIdx.y); i < 32; i += 8) {
    index_t const c = c0 + i, t = t0 + threadIdx.x;
    if (c < channels && t < stride) rows[(b * channels + c) * stride + t] = tile[threadIdx.x][i];
  }
}
/// Calls put(offset in the activation, channel, value) for the elements of the rows.
template <class T, class Put>
__device__ __forceinline__ void rows_to_channels(T const* rows, index_t length, index_t channels, index_t stride,
                                                 Put const& put) {
  __shared__ T tile[32][33];
  index_t const t0 = index_t(blockIdx.x) * 32, c0 = index_t(blockIdx.y) * 32, b = blockIdx.z;
  for (int i = int(threadIdx.y); i < 32; i += 8) {
    index_t const c = c0 + i, t = t0 + threadIdx.x;
    if (c < channels && t < length) tile[i][threadIdx.x] = rows[(b * channels + c) * stride + t];
  }
  __syncthreads();
  for (int i = int(threadIdx.y); i < 32; i += 8) {
    index_t const t = t0 + i, c = c0 + threadIdx.x;
    if (c < channels && t < length) put((b * length + t) * channels + c, c, tile[threadIdx.x][i]);
  }
}
/// With omega: before = scale rows + omega x, y = silu(before); without: y = scale rows.
template <class T>
__global__ void rows_to_output(T const* rows, T const* x, T const* omega, T* before, T* y, T scale, index_t length,
                               index_t channels, index_t stride) {
  rows_to_channels(rows, length, channels, stride, [&](index_t at, index_t c, T v) {
    if (omega == nullptr) {
      y[at] = scale * v;
    } else {
      T const sum = scale * v + omega[c] * x[at];
      before[at] = sum;
      y[at] = silu_at(sum).value.lane(0);
    }
  });
}
template <class T>
__global__ void rows_to_gradient(T const* rows, T const* grad_y, T const* omega, T const* before, T* grad_x, T scale,
                                 index_t length, index_t channels, index_t stride) {
  rows_to_channels(rows, length, channels, stride, [&](index_t at, index_t c, T v) {
    grad_x[at] =
        omega == nullptr ? scale * v : scale * v + omega[c] * grad_y[at] * silu_at(before[at]).derivative.lane(0);
  });
}

/// out = a b, or a conj(b), where b repeats after `period` bins. `out` may alias a.
template <class T>
__global__ void multiply_rows(T const* a, T const* b, T* out, index_t count, index_t period, bool conjugate) {
  index_t const i = element();
  if (i >= count) return;
  T const ar = a[2 * i], ai = a[2 * i + 1], br = b[2 * (i % period)],
          bi = conjugate ? -b[2 * (i % period) + 1] : b[2 * (i % period) + 1];
  out[2 * i] = ar * br - ai * bi, out[2 * i + 1] = ar * bi + ai * br;
}
/// sum = sum of a conj(x) over the batch.
template <class T>
__global__ void correlate_batch(T const* a, T const* x, T* sum, index_t batch, index_t count) {
  index_t const i = element();
  if (i >= count) return;
  T re = 0, im = 0;
  for (index_t b = 0; b < batch; b++) {
    index_t const k = 2 * (b * count + i);
    re += a[k] * x[k] + a[k + 1] * x[k + 1], im += a[k + 1] * x[k] - a[k] * x[k + 1];
  }
  sum[2 * i] = re, sum[2 * i + 1] = im;
}

/// Sums over segments of positions, in a fixed order: partial is [segments, channels]. Blocks of 32 x 8 threads, one
/// segment per block row (y).
template <class T>
__global__ void sum_omega(T const* x, T const* grad_y, T const* before, T* partial, index_t rows, index_t channels) {
  __shared__ T sums[8][32];
  index_t const c = index_t(blockIdx.x) * 32 + threadIdx.x, piece = (rows + gridDim.y - 1) / gridDim.y,
                first = piece * blockIdx.y;
  T sum = 0;
  if (c < channels)
    for (index_t r = first + threadIdx.y; r < first + piece && r < rows; r += 8)
      sum += grad_y[r * channels + c] * silu_at(before[r * channels + c]).derivative.lane(0) * x[r * channels + c];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= channels) return;
  for (int i = 1; i < 8; i++) sum += sums[i][threadIdx.x];
  partial[blockIdx.y * channels + c] = sum;
}
template <class T>
__global__ void add_segments(T const* partial, T* to, index_t segments, index_t channels) {
  index_t const c = element();
  if (c >= channels) return;
  T sum = 0;
  for (index_t s = 0; s < segments; s++) sum += partial[s * channels + c];
  to[c] = sum;
}

}  // namespace tcnca::models::detail
