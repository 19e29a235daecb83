// The kernels over rows of scores between cuBLAS products: a row is read once into registers, with 16-byte loads, and
// written once.
#pragma once
#include <stdexcept>

#include "../support/attention_problem.hpp"
#include "../support/convert.hpp"
#include "../support/cuda.cuh"

namespace tcnca::bench {

/// A block of rows, the same in each of several chunks: rows first .. first + rows - 1. Masked entries up to `width`
/// become 0.
template <class T>
struct score_rows {
  T* scores;           ///< [chunks, chunk, stride]: scores, then weights
  T* grad;             ///< backward: the gradient of the weights, then of the scores; else null
  float* lse;          ///< [chunks, chunk], softmax only
  float const* delta;  ///< [chunks, chunk], softmax backward only
  index_t chunk, stride, first, rows, width;
  float scale;  ///< softmax
  bool causal;
};

namespace detail {
inline constexpr int pass_threads = 128;

template <int RowThreads, class Combine>
__device__ float reduce_row(float v, Combine combine) {
  for (int lane = 16; lane > 0; lane /= 2) v = combine(v, __shfl_xor_sync(0xffffffffu, v, lane));
  if constexpr (RowThreads > 32) {
    __shared__ float parts[pass_threads / 32];
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    v = parts[0];
    for (int i = 1; i < RowThreads / 32; i++) v = combine(v, parts[i]);
  }
  return v;
}

/// 16 bytes of a row.
template <class T>
struct alignas(16) quad {
  static constexpr int count = 16 / sizeof(T);
  T value[count];
};

/// RowThreads threads per row, each with `Quads` quads in registers.
template <class T, score_function Function, bool Backward, int RowThreads, int Quads>
__global__ void __launch_bounds__(pass_threads) score_pass(score_rows<T> a) {
  constexpr int count = quad<T>::count;
  int const lane = static_cast<int>(threadIdx.x) % RowThreads;
  index_t const row = static_cast<index_t>(blockIdx.x) * (pass_threads / RowThreads) + threadIdx.x / RowThreads;
  if (row >= a.rows) return;  // uniform per warp: a warp never works on two rows
  index_t const in_chunk = a.first + row, at = static_cast<index_t>(blockIdx.y) * a.chunk + in_chunk;
  index_t const valid = a.causal ? in_chunk + 1 : a.width;
  auto* const scores = reinterpret_cast<quad<T>*>(a.scores + at * a.stride);
  auto* const grad = reinterpret_cast<quad<T>*>(a.grad + at * a.stride);
  float s[Quads][count];
#pragma unroll
  for (int i = 0; i < Quads; i++) {
    index_t const j = i * RowThreads + lane;
    quad<T> const q = j * count < valid ? scores[j] : quad<T>{};
#pragma unroll
    for (int c = 0; c < count; c++) s[i][c] = to_float(q.value[c]);
  }
  auto const each = [&](auto const& body) {
#pragma unroll
    for (int i = 0; i < Quads; i++) {
#pragma unroll
      for (int c = 0; c < count; c++) body(s[i][c], (i * RowThreads + lane) * count + c < valid);
    }
  };
  auto const write = [&](quad<T>* to, float const(&from)[Quads][count]) {
#pragma unroll
    for (int i = 0; i < Quads; i++) {
      index_t const j = i * RowThreads + lane;
      quad<T> q;
#pragma unroll
      for (int c = 0; c < count; c++) q.value[c] = from_float<T>(from[i][c]);
      if (j * count < a.width) to[j] = q;
    }
  };
  constexpr float factor = 2.50662827f, shift = 0.70710678f * factor;  // laplace: erf(factor * s - shift)
  float const scale = Function == score_function::softmax ? a.scale : 1 / static_cast<float>(valid);
  if constexpr (!Backward && Function == score_function::softmax) {
    float row_max = -INFINITY, sum = 0;
    each([&](float& v, bool ok) { row_max = ok ? fmaxf(row_max, v) : row_max; });
    row_max = reduce_row<RowThreads>(row_max, [](float x, float y) { return fmaxf(x, y); }) * scale;
    each([&](float& v, bool ok) { v = ok ? __expf(v * scale - row_max) : 0.f, sum += v; });
    sum = reduce_row<RowThreads>(sum, [](float x, float y) { return x + y; });
    each([&](float& v, bool) { v /= sum; });
    if (lane == 0) a.lse[at] = row_max + logf(sum);
    write(scores, s);
  } else if constexpr (!Backward) {
    each([&](float& v, bool ok) { v = ok ? 0.5f + 0.5f * erff(v * scale * factor - shift) : 0.f; });
    write(scores, s);
  } else {
    float g[Quads][count];
    float const lse = Function == score_function::softmax ? a.lse[at] : 0.f,
                delta = Function == score_function::softmax ? a.delta[at] : 0.f;
#pragma unroll
    for (int i = 0; i < Quads; i++) {
      index_t const j = i * RowThreads + lane;
      quad<T> const q = j * count < valid ? grad[j] : quad<T>{};
#pragma unroll
      for (int c = 0; c < count; c++) {
        bool const ok = j * count + c < valid;
        float const v = s[i][c], of_weight = to_float(q.value[c]);
        if constexpr (Function == score_function::softmax) {
          float const p = __expf(v * scale - lse);
          s[i][c] = ok ? p : 0.f, g[i][c] = ok ? p * (of_weight - delta) * scale : 0.f;
        } else {
          float const u = v * scale * factor - shift;
          s[i][c] = ok ? 0.5f + 0.5f * erff(u) : 0.f;
          g[i][c] = ok ? of_weight * scale * 1.41421356f * __expf(-u * u) : 0.f;
        }
      }
    }
    write(scores, s), write(grad, g);
  }
}

template <class T, score_function Function, bool Backward, int RowThreads, int Quads>
void launch_score_pass(score_rows<T> const& a, index_t chunks) {
  constexpr index_t rows = pass_threads / RowThreads;
  dim3 const grid(static_cast<unsigned>((a.rows + rows - 1) / rows), static_cast<unsigned>(chunks));
  score_pass<T, Function, Backward, RowThreads, Quads><<<grid, pass_threads>>>(a);
}
template <class T, score_function Function, bool Backward>
void launch_score_pass(score_rows<T> const& a, index_t chunks) {
  index_t const quads = (a.width + quad<T>::count - 1) / quad<T>::count;
  if (quads <= 32) return launch_score_pass<T, Function, Backward, 32, 1>(a, chunks);
  if (quads <= 64) return launch_score_pass<T, Function, Backward, 32, 2>(a, chunks);
  if (quads <= 128) return launch_score_pass<T, Function, Backward, 128, 1>(a, chunks);
  if (quads <= 256) return launch_score_pass<T, Function, Backward, 128, 2>(a, chunks);
  if (quads <= 512) return launch_score_pass<T, Function, Backward, 128, 4>(a, chunks);
  if (quads <= 1024) return launch_score_pass<T, Function, Backward, 128, 8>(a, chunks);
  throw std::runtime_error("The cuBLAS baseline supports chunks up to 4096 rows in fp32 and 8192 in bf16.");
}

/// delta[row] = dot(grad_o[row], o[row]), one warp per row.
template <class T>
__global__ void __launch_bounds__(pass_threads)
    row_products(float* delta, T const* grad_o, T const* o, index_t rows, index_t dim) {
  index_t const row = static_cast<index_t>(blockIdx.x) * (pass_threads / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  float sum = 0;
  for (index_t c = threadIdx.x % 32; c < dim; c += 32)
    sum += to_float(grad_o[row * dim + c]) * to_float(o[row * dim + c]);
  sum = reduce_row<32>(sum, [](float x, float y) { return x + y; });
  if (threadIdx.x % 32 == 0) delta[row] = sum;
}
}  // namespace detail

template <class T, bool Backward>
void score_pass(score_function function, score_rows<T> const& a, index_t chunks) {
  if (function == score_function::softmax) detail::launch_score_pass<T, score_function::softmax, Backward>(a, chunks);
  else detail::launch_score_pass<T, score_function::laplace, Backward>(a, chunks);
}

}  // namespace tcnca::bench
