// What the threads of a register-phase backward kernel share: buffers in shared memory, and windows of them in
// registers.
#pragma once
#include "../../block/activation.hpp"
#include "../../block/mma.hpp"
#include "backward_plan.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// a * b + c, rounded once.
TCNCA_HOST_DEVICE float multiply_add(float a, float b, float c) {
  return fma(broadcast<1>(a), broadcast<1>(b), broadcast<1>(c)).lane(0);
}

/// One thread of the group. `Count` elements that a thread loads or stores at once are a window: with `Outputs`
/// consecutive positions each for contiguous levels, else a dilation apart (see phase_mapping).
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct phase_backward_group {
  using A = float;
  static constexpr auto plan = phase_backward_plan_of<T, Shape, Layers>;
  static constexpr int levels = Layers.count(), taps = Shape.taps, tile = plan.tile, threads = plan.threads;
  static constexpr phase_derivative derivative = phase_derivative_of(Shape);
  static constexpr bool has_residual = Shape.residuals != residual::none;
  static_assert(Group::size() == threads);

  Group group;
  A* shared;
  array<int, 3 * levels> cursor;  // of the tile's first position in rings of each length, padded

  TCNCA_HOST_DEVICE phase_backward_group(Group g, A* memory) : group(g), shared(memory) {}

  // Buffers.

  TCNCA_HOST_DEVICE void reset_cursors() {
    unroll<0, plan.cursors>([&](auto i) TCNCA_INLINE { cursor[i] = 0; });
  }
  TCNCA_HOST_DEVICE void advance_cursors() {
    unroll<0, plan.cursors>([&](auto i) TCNCA_INLINE {
      constexpr int length = plan.cursor_length[i], step = tile % length;
      if constexpr (step != 0) { cursor[i] = wrapped<length>(cursor[i] + bytes_of(step)); }
    });
  }
  /// Offset in bytes of position p >= 0 of a buffer.
  TCNCA_HOST_DEVICE static constexpr int bytes_of(int p) { return phase_padded(p) * int(sizeof(A)); }
  /// An offset below twice the length of a ring.
  template <int Length>
  TCNCA_HOST_DEVICE static int wrapped(int i) {
    return int(min_of(uint32(i), uint32(i) - uint32(bytes_of(Length))));
  }
  /// Address of the position that is `offset` = bytes_of(position) after the tile's first position - Back. Back is a
  /// multiple of 32.
  template <phase_buffer Buffer, int Back>
  TCNCA_HOST_DEVICE A* at_offset(int offset) const {
    static_assert(Back % 32 == 0 && Back <= (Buffer.cursor < 0 ? Buffer.history : Buffer.length));
    char* const bytes = reinterpret_cast<char*>(shared) + Buffer.offset * int(sizeof(A));
    if constexpr (Buffer.cursor < 0) {
      constexpr int start = bytes_of(Buffer.history - Back);
      return reinterpret_cast<A*>(bytes + start + offset);
    } else {
      constexpr int back = Back % Buffer.length, distance = bytes_of(Buffer.length - back);
      int start = cursor[Buffer.cursor];
      if constexpr (back != 0) { start = wrapped<Buffer.length>(start + distance); }
      return reinterpret_cast<A*>(bytes + wrapped<Buffer.length>(start + offset));
    }
  }
  /// Address of position p of the tile minus Back.
  template <phase_buffer Buffer, int Back>
  TCNCA_HOST_DEVICE A* at(int p) const {
    constexpr int back = round_up(Back, 32);
    return at_offset<Buffer, back>(bytes_of(p + (back - Back)));
  }
  /// Moves the last positions of a line's tile to the history of the next tile. No other thread may access the buffer
  /// between the barriers before and after.
  template <phase_buffer Buffer>
  TCNCA_HOST_DEVICE void carry() const {
    if constexpr (Buffer.cursor < 0) {
      static_assert(2 * Buffer.history <= tile);
      A* const to = shared + Buffer.offset;
      for (int i = group.rank() * 4; i < Buffer.history; i += threads * 4) {
        int const p = phase_padded(i);
        store<4>(to + p, load<4>(static_cast<A const*>(to + phase_padded(tile) + p)));
      }
    }
  }

  // Positions of a thread's windows.

  /// Outputs of a window of a level.
  TCNCA_HOST_DEVICE static constexpr int window_outputs(int level) {
    return plan.level[level].mapping == phase_mapping::single ? 1 : phase_outputs;
  }

  /// First position in the tile of window w of a level; windows have N outputs.
  template <int I, int N>
  TCNCA_HOST_DEVICE int first_of(int w) const {
    constexpr phase_backward_level level = plan.level[I];
    if constexpr (level.mapping == phase_mapping::contiguous) {
      // Eight consecutive threads have windows 32 positions apart: vectors at any distance from them are in different
      // banks. The four groups of eight cover whole sectors of grad_x.
      int const lane = group.rank() % 32;
      return (group.rank() / 32 * 8 + lane % 8) * 32 + (lane / 8 + w * 4) * N;
    } else if constexpr (level.mapping == phase_mapping::residue) {
      return group.rank() / level.dilation * (N * level.dilation) + group.rank() % level.dilation;
    } else {
      return w * threads + group.rank();
    }
  }

  /// v[i]: the position i spacings after Back before the first of window w. All loads are issued before the first use.
  template <int I, int N, phase_buffer Buffer, int Back, int Count>
  TCNCA_HOST_DEVICE void load_window(array<A, Count>& v, int w) const {
    constexpr phase_backward_level level = plan.level[I];
    constexpr int d = level.dilation;
    if constexpr (level.mapping == phase_mapping::contiguous) {
      constexpr int back = round_up(Back, N), skip = back - Back, granules = divide_up(skip + Count, N);
      int const first = first_of<I, N>(w);
      unroll<0, granules>([&](auto b) TCNCA_INLINE {
        A const* const from = at<Buffer, back>(first + int(b) * N);
        unroll<0, N / 4>([&](auto q) TCNCA_INLINE {
          constexpr int begin = decltype(b)::value * N + decltype(q)::value * 4 - skip;
          if constexpr (begin + 4 > 0 && begin < Count) {
            pack<A, 4> const four = load<4>(from + int(q) * 4);
            unroll<0, 4>([&](auto i) TCNCA_INLINE {
              constexpr int j = begin + decltype(i)::value;
              if constexpr (j >= 0 && j < Count) { v[j] = four.lane(i); }
            });
          }
        });
      });
    } else if constexpr (level.mapping == phase_mapping::residue) {
      static_assert(Back % d == 0);
      constexpr int block = N * d, back = round_up(Back, block), skip = (back - Back) / d;
      int const column = bytes_of(group.rank() % d), row = group.rank() / d;
      unroll<0, divide_up(skip + Count, N)>([&](auto b) TCNCA_INLINE {
        constexpr int begin = decltype(b)::value * N - skip;
        A const* const from = at_offset<Buffer, back>((row + int(b)) * bytes_of(block) + column);
        unroll<(begin < 0 ? -begin : 0), (Count - begin < N ? Count - begin : N)>([&](auto i) TCNCA_INLINE {
          constexpr int distance = phase_padded(decltype(i)::value * d);
          v[begin + decltype(i)::value] = from[distance];
        });
      });
    } else {
      unroll<0, Count>([&](auto i)
                           TCNCA_INLINE { v[i] = *at<Buffer, Back - decltype(i)::value * d>(first_of<I, N>(w)); });
    }
  }

  /// Writes the N outputs of window w.
  template <int I, int N, phase_buffer Buffer>
  TCNCA_HOST_DEVICE void store_window(array<A, N> const& v, int w) const {
    constexpr phase_backward_level level = plan.level[I];
    if constexpr (level.mapping == phase_mapping::contiguous) {
      A* const to = at<Buffer, 0>(first_of<I, N>(w));
      unroll<0, N / 4>([&](auto q) TCNCA_INLINE {
        pack<A, 4> four;
        unroll<0, 4>([&](auto i) TCNCA_INLINE { four.set_lane(i, v[int(q) * 4 + int(i)]); });
        store<4>(to + int(q) * 4, four);
      });
    } else if constexpr (level.mapping == phase_mapping::residue) {
      constexpr int d = level.dilation;
      A* const to = at_offset<Buffer, 0>(group.rank() / d * bytes_of(N * d) + bytes_of(group.rank() % d));
      unroll<0, N>([&](auto i) TCNCA_INLINE {
        constexpr int distance = phase_padded(decltype(i)::value * d);
        to[distance] = v[i];
      });
    } else {
      *at<Buffer, 0>(first_of<I, N>(w)) = v[0];
    }
  }

  /// The weights of level I, from shared memory.
  template <int I>
  TCNCA_HOST_DEVICE void load_weights(array<A, round_up(taps, 4)>& w) const {
    A const* const from = shared + plan.weights + I * round_up(taps, 4);
    unroll<0, round_up(taps, 4) / 4>([&](auto q) TCNCA_INLINE {
      pack<A, 4> const four = load<4>(from + int(q) * 4);
      unroll<0, 4>([&](auto i) TCNCA_INLINE { w[int(q) * 4 + int(i)] = four.lane(i); });
    });
  }
  template <int I>
  TCNCA_HOST_DEVICE A bias_of() const {
    if constexpr (Shape.bias) {
      return shared[plan.bias + I];
    } else {
      return A(0);
    }
  }

  /// The sum of level I at position p of the tile minus Back, from its inputs in shared memory.
  template <int I, int Back>
  TCNCA_HOST_DEVICE A sum_from_buffers(int p) const {
    constexpr phase_backward_level level = plan.level[I];
    array<A, round_up(taps, 4)> w;
    load_weights<I>(w);
    A sum = bias_of<I>();
    unroll<0, taps>([&](auto k) TCNCA_INLINE {
      sum = multiply_add(w[k], *at<level.x, Back + decltype(k)::value * level.dilation>(p), sum);
    });
    return sum;
  }

  // Activations.

  TCNCA_HOST_DEVICE static A activated(A sum) { return activate<Shape.act>(broadcast<1>(sum)).value.lane(0); }
  TCNCA_HOST_DEVICE static A derivative_at(A sum) { return activate<Shape.act>(broadcast<1>(sum)).derivative.lane(0); }
  /// The derivative from the activation's output.
  TCNCA_HOST_DEVICE static A derivative_from_output(A y) {
    if constexpr (Shape.act == activation::relu) {
      return y > A(0) ? A(1) : A(0);
    } else {
      return A(1) - y * y;
    }
  }
  /// The input of level I from what its buffer holds, and what the buffer holds for an output of level I - 1.
  template <int I>
  TCNCA_HOST_DEVICE static A input_of(A stored) {
    if constexpr (I > 0 && derivative == phase_derivative::sum) {
      return activated(stored);
    } else {
      return stored;
    }
  }
  TCNCA_HOST_DEVICE static A output_to_store(A sum, A residual) {
    if constexpr (derivative == phase_derivative::sum) {
      return sum;
    } else if constexpr (has_residual) {
      return activated(sum) + residual;
    } else {
      return activated(sum);
    }
  }
};

}  // namespace tcnca::detail
