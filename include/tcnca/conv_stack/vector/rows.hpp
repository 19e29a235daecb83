// Rows of a few vectors in registers: what the kernels of short sequences share. A row is one channel of one sequence.
#pragma once
#include "../../block/activation.hpp"
#include "../../block/pack.hpp"
#include "../../block/unroll.hpp"
#include "../../core/tensor.hpp"
#include "../shape.hpp"
#include "partial.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// A block is 8 vectors, so that 8 independent sums hide the latency of a multiply-add.
inline constexpr int row_block_vectors = 8;
/// x is prefetched at this distance.
inline constexpr index_t prefetched_row_bytes = 4096;

/// The position of inputs Offset after their outputs, in a row of V vectors of W lanes.
template <int V, int W, index_t Offset>
struct row_offset {
  static constexpr bool is_outside = Offset <= -V * W || Offset >= V * W;
  static constexpr int positions = is_outside ? 0 : int(Offset);
  // positions = vectors * W + lanes, 0 <= lanes < W
  static constexpr int vectors = (positions + V * W) / W - V, lanes = (positions + V * W) % W;

  TCNCA_HOST_DEVICE static constexpr bool exists(int u) { return u >= 0 && u < V; }
  /// Whether vector u of the outputs has inputs in the row.
  TCNCA_HOST_DEVICE static constexpr bool is_read_by(int u) {
    return exists(u + vectors) || (lanes > 0 && exists(u + vectors + 1));
  }
};

/// Multiply-adds of a layer's sums of a block, in vectors, if it is one row: all of them are unrolled.
template <conv_stack_shape Shape, int W>
constexpr index_t unrolled_row_terms() {
  constexpr int layers = Shape.layers();
  index_t n = 0;
  for (int l = 0; l < Shape.directions() * layers; l++)
    for (int k = 0; k < Shape.taps; k++) {
      index_t const distance = Shape.look_ahead(l % layers, l / layers) - k * Shape.dilation(l % layers);
      n += max_of(index_t(0), row_block_vectors - (distance < 0 ? -distance : distance) / W);
    }
  return n;
}

/// Stacks of more terms have no kernels of short rows: the time to compile them is proportional.
inline constexpr index_t most_row_terms = 256;

/// A block of rows of V vectors of W lanes: 8 / V rows, whose addresses are a stride apart. Least: the vectors of rows
/// in the kernel for the shortest rows; kernels of more vectors serve only rows of more than V / 2.
template <element T, conv_stack_shape Shape, int W, int V, int Least>
struct row_block {
  using A = accumulate_t<T>;
  using Weight = parameter_t<T, Shape.weights>;
  using value = pack<A, W>;
  static constexpr int vectors = row_block_vectors, count = vectors / V, taps = Shape.taps, layers = Shape.layers(),
                       all_taps = Shape.directions() * layers * taps;
  using values = array<value, vectors>;  // [row][vector]

  index_t length;
  array<index_t, all_taps> tap_offset;  // in the weights, [direction][layer][tap]
  index_t bias_layer_stride;
  Weight const *weight = nullptr, *bias = nullptr, *omega = nullptr;  // of the channel of the first row
  index_t weight_stride = 0, bias_stride = 0, omega_stride = 0;       // between rows

  TCNCA_HOST_DEVICE row_block(index_t row_length, tensor_view<Weight const, 3> const& w,
                              tensor_view<Weight const, 2> const& b)
      : length(row_length), bias_layer_stride(b.stride[0]) {
    for (int i = 0; i < all_taps; i++) tap_offset[i] = i / taps * w.stride[0] + i % taps * w.stride[1];
  }

  /// Whether vector u is complete in all rows of this kernel.
  TCNCA_HOST_DEVICE static constexpr bool is_complete(int u) { return V > Least && u < V / 2; }
  /// Reads rows of a sequence; positions past the end are zero.
  TCNCA_HOST_DEVICE void load_rows(values& v, T const* p, index_t stride) const {
    unroll<0, vectors>([&](auto i) TCNCA_INLINE {
      constexpr int u = decltype(i)::value % V;
      T const* const from = p + i / V * stride + u * W;
      if (is_complete(u) || (u + 1) * W <= length) v[i] = load<W>(from);
      else if (u * W < length) v[i] = load_partial<W>(from, int(length) - u * W);
      else v[i] = broadcast<W>(A(0));
    });
  }
  TCNCA_HOST_DEVICE void store_rows(T* p, index_t stride, values const& v, bool streaming) const {
    unroll<0, vectors>([&](auto i) TCNCA_INLINE {
      constexpr int u = decltype(i)::value % V;
      T* const to = p + i / V * stride + u * W;
      if (is_complete(u) || (u + 1) * W <= length) {
        if (streaming) store_streaming<W>(to, v[i]);
        else store<W>(to, v[i]);
      } else if (u * W < length) {
        store_partial<W>(to, int(length) - u * W, v[i]);
      }
    });
  }
  static TCNCA_HOST_DEVICE void prefetch_rows(T const* p, index_t stride) {
    unroll<0, count>([&](auto r) TCNCA_INLINE {
      for (int line = 0; line < V * W * int(sizeof(T)); line += 64)
        prefetch(reinterpret_cast<char const*>(p + r * stride) + line);
    });
  }
  /// Sets the positions past the end to zero.
  TCNCA_HOST_DEVICE void clear_after_end(values& v) const {
    unroll<0, V>([&](auto u) TCNCA_INLINE {
      if constexpr (!is_complete(u)) {
        auto left = broadcast<W>(A(0));  // positions from a lane's on to the end
        TCNCA_UNROLL
        for (int i = 0; i < W; i++) left.set_lane(i, A(int(length) - u * W - i));
        unroll<0, count>([&](auto r)
                             TCNCA_INLINE { v[r * V + u] = select_positive(left, v[r * V + u], broadcast<W>(A(0))); });
      }
    });
  }

  /// The activation in place. One with long code is in a function of its own, which takes the values from memory.
  template <activation Activation>
  static TCNCA_HOST_DEVICE void activate_all(values& v) {
    if constexpr (Activation == activation::none || Activation == activation::relu) {
      unroll<0, vectors>([&](auto i) TCNCA_INLINE { v[i] = activate<Activation>(v[i]).value; });
    } else {
      activate_in_memory<Activation>(v);
    }
  }
  /// Adds omega x.
  TCNCA_HOST_DEVICE void add_skip(values& v, T const* x, index_t x_stride) const {
    values in;
    load_rows(in, x, x_stride);
    unroll<0, vectors>([&](auto i) TCNCA_INLINE {
      v[i] = fma(broadcast<W>(to_accumulate(omega[i / V * omega_stride])), in[i], v[i]);
    });
  }

  /// f(i, input) for each vector i that has an input Offset positions after it.
  template <index_t Offset, class F>
  static TCNCA_HOST_DEVICE void for_each_input(values const& v, F f) {
    using input = row_offset<V, W, Offset>;
    unroll<0, vectors>([&](auto i) TCNCA_INLINE {
      constexpr int u = decltype(i)::value % V;
      if constexpr (input::is_read_by(u)) {
        value const* const from = v + i + input::vectors;
        if constexpr (input::lanes == 0) {
          f(i, *from);
        } else {
          // Positions outside of the row's vectors are zero.
          value const zero = broadcast<W>(A(0));
          f(i, shifted<input::lanes>(input::exists(u + input::vectors) ? from[0] : zero,
                                     input::exists(u + input::vectors + 1) ? from[1] : zero));
        }
      }
    });
  }
  /// One tap of all rows.
  TCNCA_HOST_DEVICE void load_tap(array<value, count>& w, int direction_index, int layer, int tap) const {
    Weight const* const at = weight + tap_offset[(direction_index * layers + layer) * taps + tap];
    unroll<0, count>([&](auto r) TCNCA_INLINE { w[r] = broadcast<W>(to_accumulate(at[r * weight_stride])); });
  }
  /// The sums of a layer.
  template <int Direction, int Layer>
  TCNCA_HOST_DEVICE void layer_sums(values const& v, values& sum) const {
    unroll<0, vectors>([&](auto i) TCNCA_INLINE {
      if constexpr (Shape.bias) {
        Weight const* const at = bias + (Direction * layers + Layer) * bias_layer_stride;
        sum[i] = broadcast<W>(to_accumulate(at[i / V * bias_stride]));
      } else {
        sum[i] = broadcast<W>(A(0));
      }
    });
    unroll<0, taps>([&](auto k) TCNCA_INLINE {
      constexpr index_t offset = Shape.look_ahead(Layer, Direction) - k * Shape.dilation(Layer);
      if constexpr (!row_offset<V, W, offset>::is_outside) {
        array<value, count> w;
        load_tap(w, Direction, Layer, Direction == 1 ? taps - 1 - k : int(k));
        for_each_input<offset>(v, [&](auto i, value in) TCNCA_INLINE { sum[i] = fma(w[i / V], in, sum[i]); });
      }
    });
  }

 private:
  template <activation Activation>
  static TCNCA_NOINLINE void activate_in_memory(values& v) {
    for (int i = 0; i < vectors; i++) v[i] = activate<Activation>(v[i]).value;
  }
};

}  // namespace tcnca::detail
