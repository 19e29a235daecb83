// The backward kernel of short sequences: the layers of a block of rows are recomputed in registers, then the gradients
// pass them from the last to the first. With h the gradients of a layer's sums, one shift of h serves both of its sums:
//   grad_in[s] = sum_k w[k] h[s + k d - look_ahead], the newest h first, and
//   grad_w[k] += in[s] h[s + k d - look_ahead] for all s.
// Each lane keeps sums of its own for a number of sequences.
#pragma once
#include "../../block/agent.hpp"
#include "../../core/sequences.hpp"
#include "../tuning.hpp"
#include "rows.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of the backward kernel of short rows, common to all groups.
template <element T, element Weight = T>
struct conv_stack_short_rows_backward_params {
  sequence_view<T const> x;
  tensor_view<Weight const, 3> weight;
  tensor_view<Weight const, 2> bias;
  tensor_view<Weight const, 1> omega;
  sequence_view<T const> grad_y;
  sequence_view<T> grad_x;
  tensor_view<accumulate_t<T>, 3> sums;  // [partial sums, conv_stack_shape::parameters(), channels]
  bool grad_x_streaming = false;         // like y_streaming of the forward pass
  // Of a packed call; else no sequences. The extents of x are then their number and their greatest length. Those that
  // are too long for the kernel have a row of sums each, after those of the items; the rows of others become zero.
  sequence_table sequences = {};
};

/// Agent of the backward pass for sequences of at most `longest` positions without a state, with the length contiguous.
/// grad_x has the bits of the generic agent. An item is some channels of some sequences.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_short_rows_backward_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_short_rows_backward_params<T, parameter_t<T, Shape.weights>>;
  static constexpr int width = Policy.width, layers = Shape.layers(), taps = Shape.taps;
  static constexpr index_t longest = detail::row_block_vectors * width;
  static constexpr index_t channels_per_item = 16;

  params_type const& params;
  TCNCA_HOST_DEVICE conv_stack_short_rows_backward_agent(Group, params_type const& p, A* memory, A*)
      : params(p), inputs_(memory), derivatives_(inputs_ + layer_elements), sums_(derivatives_ + derivative_elements) {}

  /// Whether the kernel serves the shape.
  static constexpr bool exists = Shape.order == layout::batch_channels_length &&
                                 detail::unrolled_row_terms<Shape, width>() <= detail::most_row_terms;

  /// Whether the kernel can do a call with the arguments of conv_stack::backward.
  template <class Args>
  static bool can_run(Args const& args) {
    return args.x.extent[2] <= longest && !args.state_in.given() && !args.grad_state_out.given() &&
           !args.grad_state_in.given();
  }
  template <class Args>
  static params_type make_params(Args const& args, tensor_view<A, 3> const& sums, bool grad_x_streaming) {
    return {.x = args.x,
            .weight = args.weight,
            .bias = args.bias,
            .omega = args.omega,
            .grad_y = args.grad_y,
            .grad_x = args.grad_x,
            .sums = sums,
            .grad_x_streaming = grad_x_streaming};
  }

  /// Sequences of an item: so few that a lane sums at most 1024 positions and that many threads have items, so many
  /// that the sums of its lanes are a small part of the work.
  template <class U>
  TCNCA_HOST_DEVICE static constexpr index_t sequences_per_item(sequence_view<U> const& x) {
    index_t const most = 1024 / vectors_of(x.extent[2]),
                  even = divide_up(x.extent[0] * divide_up(x.extent[1], channels_per_item), index_t(64));
    return min_of(most, max_of(index_t(8), even));
  }
  /// The first extent of `sums`.
  template <class U>
  TCNCA_HOST_DEVICE static constexpr index_t partial_sums(sequence_view<U> const& x) {
    return divide_up(x.extent[0], sequences_per_item(x));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return partial_sums(p.x) * divide_up(p.x.extent[1], channels_per_item);
  }
  static constexpr group_memory memory(params_type const&) {
    return {.shared_memory_bytes = (layer_elements + derivative_elements + sums_elements) * sizeof(A)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    index_t const groups = divide_up(p.x.extent[1], channels_per_item), part = item / groups,
                  first = item % groups * channels_per_item,
                  channels = min_of(channels_per_item, p.x.extent[1] - first), sequences = sequences_per_item(p.x),
                  begin = part * sequences, end = min_of(begin + sequences, p.x.extent[0]);
    for (size_t i = 0; i < sums_elements; i += width) store<width>(sums_ + i, broadcast<width>(A(0)));
    if (p.sequences.count == 0) {
      run({.length = p.x.extent[2]}, begin, end, first, channels);
    } else {
      for (index_t number = begin; number < end; number++) {
        sequence_place const s = p.sequences[number];
        if (s.length > longest) continue;
        if (s.length > 0) run(s, s.batch, s.batch + 1, first, channels);
        if (index_t const row = partial_sums(p.x) + number; row < p.sums.extent[0]) clear_sums(row, first, channels);
      }
    }
    if (p.grad_x_streaming) end_streaming();
    for (int i = 0; i < Shape.parameters(); i++)
      for (index_t channel = 0; channel < channels; channel++)
        *p.sums.at(part, i, first + channel) = add_lanes(load<width>(const_cast<A const*>(sums_of(i, channel))));
  }

 private:
  using value = pack<A, width>;
  template <int V>
  using row_block = detail::row_block<T, Shape, width, V, 4>;
  static constexpr int n = detail::row_block_vectors;
  static constexpr bool has_derivative = Shape.act != activation::none,
                        bidirectional = Shape.dir == direction::bidirectional,
                        looks_ahead = Shape.dir != direction::causal;
  // Channels have sums in pairs; a channel without a partner shares its block with itself, whose sums are not read.
  static constexpr size_t vectors_per_parameter = channels_per_item + 1;
  static constexpr size_t layer_elements = size_t(layers) * n * width,
                          derivative_elements = has_derivative ? layer_elements : 0,
                          sums_elements = size_t(Shape.parameters()) * vectors_per_parameter * width;

  A *inputs_, *derivatives_;  // [layer][vector] of a block
  A* sums_;                   // [parameter][channel], a vector each

  TCNCA_HOST_DEVICE static constexpr int vectors_of(index_t length) { return length <= 4 * width ? 4 : 8; }
  /// The sums of the first row of a block for a parameter, in the order of conv_stack_shape::parameters().
  TCNCA_HOST_DEVICE A* sums_of(int parameter, index_t channel) const {
    return sums_ + (size_t(parameter) * vectors_per_parameter + size_t(channel)) * width;
  }

  TCNCA_NOINLINE void clear_sums(index_t row, index_t first, index_t channels) const {
    for (int i = 0; i < Shape.parameters(); i++)
      for (index_t channel = 0; channel < channels; channel++) *params.sums.at(row, i, first + channel) = A(0);
  }

  /// The channels from `first` on of the rows [begin, end) of the batch, from place.begin on.
  TCNCA_HOST_DEVICE void run(sequence_place const& place, index_t begin, index_t end, index_t first,
                             index_t channels) const {
    if (vectors_of(place.length) == 4) run_rows<4>(place, begin, end, first, channels);
    else run_rows<8>(place, begin, end, first, channels);
  }
  template <int V>
  TCNCA_NOINLINE void run_rows(sequence_place const& place, index_t begin, index_t end, index_t first,
                               index_t channels) const {
    auto const& p = params;
    row_block<V> rows(place.length, p.weight, p.bias);
    for (index_t batch = begin; batch < end; batch++)
      for (index_t channel = 0; channel < channels; channel += rows.count) {
        index_t const step = channel + rows.count <= channels ? 1 : 0, c = first + channel;
        rows.weight = p.weight.at(0, 0, c), rows.weight_stride = step * p.weight.stride[2];
        rows.bias = p.bias.at(0, c), rows.bias_stride = step * p.bias.stride[1];
        rows.omega = p.omega.at(c), rows.omega_stride = step * p.omega.stride[0];
        index_t const next = min_of(batch + 1, end - 1), ahead = p.sequences.count > 0 ? place.begin + place.length : 0;
        rows.prefetch_rows(p.x.at(next, c, ahead), step * p.x.stride[1]);
        rows.prefetch_rows(p.grad_y.at(next, c, ahead), step * p.grad_y.stride[1]);
        compute(rows, batch, place.begin, c, step, channel);
      }
  }

  /// The sum of all lanes; the bits of sum_lanes, in registers.
  template <int Lanes = width>
  TCNCA_HOST_DEVICE static A add_lanes(value v) {
    if constexpr (Lanes == 1) {
      return v.lane(0);
    } else {
      return add_lanes<Lanes / 2>(v + shifted<Lanes / 2>(v, v));
    }
  }

  /// A block: `channel` is the first one, `begin` its first position, `step` its channels' distance, `slot` the place
  /// of its sums.
  template <int V>
  TCNCA_HOST_DEVICE void compute(row_block<V> const& rows, index_t batch, index_t begin, index_t channel, index_t step,
                                 index_t slot) const {
    T const* const x = params.x.at(batch, channel, begin);
    index_t const x_stride = step * params.x.stride[1];
    typename row_block<V>::values g, output_grad, other;
    rows.load_rows(output_grad, params.grad_y.at(batch, channel, begin), step * params.grad_y.stride[1]);
    if constexpr (Shape.skip) {
      // The derivative of the final SiLU needs the outputs of all directions.
      typename row_block<V>::values y;
      recompute<V, 0>(rows, x, x_stride, y);
      if constexpr (bidirectional) {
        unroll<0, n>([&](auto i) TCNCA_INLINE { other[i] = y[i]; });
        recompute<V, 1>(rows, x, x_stride, y);
        unroll<0, n>([&](auto i) TCNCA_INLINE { y[i] = y[i] + other[i]; });
      }
      rows.add_skip(y, x, x_stride);
      multiply_by_derivative<activation::silu>(output_grad, y);
      rows.load_rows(y, x, x_stride);
      add_to_sums<V>(Shape.parameters() - 1, slot,
                     [&](auto i, value sum) TCNCA_INLINE { return fma(output_grad[i], y[i], sum); });
    }
    constexpr int last = Shape.directions() - 1;
    if constexpr (!Shape.skip) { recompute<V, last>(rows, x, x_stride, g); }
    unroll<0, n>([&](auto i) TCNCA_INLINE { g[i] = output_grad[i]; });
    pass_gradients<V, last>(rows, g, slot);
    if constexpr (bidirectional) {
      unroll<0, n>([&](auto i) TCNCA_INLINE { other[i] = g[i]; });
      recompute<V, 0>(rows, x, x_stride, g);
      unroll<0, n>([&](auto i) TCNCA_INLINE { g[i] = output_grad[i]; });
      pass_gradients<V, 0>(rows, g, slot);
      unroll<0, n>([&](auto i) TCNCA_INLINE { g[i] = g[i] + other[i]; });
    }
    if constexpr (Shape.skip) {
      unroll<0, n>([&](auto i) TCNCA_INLINE {
        g[i] = fma(broadcast<width>(to_accumulate(rows.omega[i / V * rows.omega_stride])), output_grad[i], g[i]);
      });
    }
    if (!params.grad_x.present()) return;
    rows.store_rows(params.grad_x.at(batch, channel, begin), step * params.grad_x.stride[1], g,
                    params.grad_x_streaming && begin * index_t(sizeof(T)) % 64 == 0);
  }

  /// sum = f(i, sum) for the vectors i of each row, where `sum` is the row's vector of a parameter.
  template <int V, class F>
  TCNCA_HOST_DEVICE void add_to_sums(int parameter, index_t slot, F f) const {
    A* const at = sums_of(parameter, slot);
    unroll<0, n / V>([&](auto r) TCNCA_INLINE {
      value sum = load<width>(const_cast<A const*>(at + r * width));
      unroll<int(r) * V, int(r) * V + V>([&](auto i) TCNCA_INLINE { sum = f(i, sum); });
      store<width>(at + r * width, sum);
    });
  }
  template <activation Activation>
  TCNCA_NOINLINE static void multiply_by_derivative(detail::array<value, n>& g, detail::array<value, n> const& sum) {
    for (int i = 0; i < n; i++) g[i] = g[i] * activate<Activation>(sum[i]).derivative;
  }
  /// The activation of a layer in place; its derivative goes to memory.
  TCNCA_NOINLINE static void activate_with_derivative(detail::array<value, n>& v, A* derivative) {
    for (int i = 0; i < n; i++) {
      auto const a = activate<Shape.act>(v[i]);
      v[i] = a.value;
      store<width>(derivative + i * width, a.derivative);
    }
  }

  /// The layers of one direction, with their inputs and derivatives in memory, and its outputs.
  template <int V, int Direction>
  TCNCA_NOINLINE void recompute(row_block<V> const& rows, T const* x, index_t x_stride,
                                typename row_block<V>::values& result) const {
    typename row_block<V>::values v, residual;
    rows.load_rows(v, x, x_stride);
    unroll<0, layers>([&](auto l) TCNCA_INLINE {
      if constexpr (Shape.starts_residual(l)) {
        unroll<0, n>([&](auto i) TCNCA_INLINE { residual[i] = v[i]; });
      }
      unroll<0, n>([&](auto i) TCNCA_INLINE { store<width>(inputs_ + (l * n + i) * width, v[i]); });
      // The outputs of the last layer are needed only for its derivative or the final SiLU.
      if constexpr (l + 1 < layers || has_derivative || Shape.skip) {
        typename row_block<V>::values sum;
        rows.template layer_sums<Direction, decltype(l)::value>(v, sum);
        A* const derivative = derivatives_ + l * n * width;
        if constexpr (has_derivative && !Shape.post_activation) { activate_with_derivative(sum, derivative); }
        unroll<0, n>([&](auto i) TCNCA_INLINE { v[i] = Shape.ends_residual(l) ? sum[i] + residual[i] : sum[i]; });
        if constexpr (has_derivative && Shape.post_activation) { activate_with_derivative(v, derivative); }
        if constexpr (looks_ahead && l + 1 < layers) { rows.clear_after_end(v); }
      }
    });
    unroll<0, n>([&](auto i) TCNCA_INLINE { result[i] = v[i]; });
  }

  /// From the gradients of one direction's outputs to those of its inputs, in place, and to the sums.
  template <int V, int Direction>
  TCNCA_NOINLINE void pass_gradients(row_block<V> const& rows, typename row_block<V>::values& gradients,
                                     index_t slot) const {
    typename row_block<V>::values g, residual;
    unroll<0, n>([&](auto i) TCNCA_INLINE { g[i] = gradients[i]; });
    unroll<0, layers>([&](auto from_last) TCNCA_INLINE {
      constexpr int l = layers - 1 - decltype(from_last)::value;
      if constexpr (Shape.ends_residual(l) && !Shape.post_activation) {
        unroll<0, n>([&](auto i) TCNCA_INLINE { residual[i] = g[i]; });
      }
      if constexpr (has_derivative) {
        unroll<0, n>([&](auto i) TCNCA_INLINE {
          g[i] = g[i] * load<width>(const_cast<A const*>(derivatives_ + (l * n + i) * width));
        });
      }
      if constexpr (Shape.ends_residual(l) && Shape.post_activation) {
        unroll<0, n>([&](auto i) TCNCA_INLINE { residual[i] = g[i]; });
      }
      // What is computed past the end of a row has no influence on its gradients.
      if constexpr (has_derivative || looks_ahead) { rows.clear_after_end(g); }
      layer_gradients<V, Direction, l>(rows, g, slot);
      if constexpr (Shape.starts_residual(l)) {
        unroll<0, n>([&](auto i) TCNCA_INLINE { g[i] = g[i] + residual[i]; });
      }
    });
    unroll<0, n>([&](auto i) TCNCA_INLINE { gradients[i] = g[i]; });
  }

  /// From the gradients h of a layer's sums to those of its inputs, in place.
  template <int V, int Direction, int Layer>
  TCNCA_HOST_DEVICE void layer_gradients(row_block<V> const& rows, typename row_block<V>::values& h,
                                         index_t slot) const {
    constexpr int first = Direction * Shape.parameters_per_direction();
    if constexpr (Shape.bias) {
      add_to_sums<V>(first + layers * taps + Layer, slot, [&](auto i, value sum) TCNCA_INLINE { return sum + h[i]; });
    }
    A const* const inputs = inputs_ + Layer * n * width;
    typename row_block<V>::values grad_in;
    unroll<0, n>([&](auto i) TCNCA_INLINE { grad_in[i] = broadcast<width>(A(0)); });
    unroll<0, taps>([&](auto k) TCNCA_INLINE {
      constexpr int tap = Direction == 1 ? int(k) : taps - 1 - k;
      constexpr index_t offset = Shape.history(Layer) - Shape.look_ahead(Layer, Direction) - k * Shape.dilation(Layer);
      if constexpr (!detail::row_offset<V, width, offset>::is_outside) {
        detail::array<value, row_block<V>::count> w, sum;
        rows.load_tap(w, Direction, Layer, tap);
        A* const sums = sums_of(first + Layer * taps + tap, slot);
        unroll<0, row_block<V>::count>(
            [&](auto r) TCNCA_INLINE { sum[r] = load<width>(const_cast<A const*>(sums + r * width)); });
        rows.template for_each_input<offset>(h, [&](auto i, value in) TCNCA_INLINE {
          grad_in[i] = fma(w[i / V], in, grad_in[i]);
          sum[i / V] = fma(load<width>(inputs + i * width), in, sum[i / V]);
        });
        unroll<0, row_block<V>::count>([&](auto r) TCNCA_INLINE { store<width>(sums + r * width, sum[r]); });
      }
    });
    unroll<0, n>([&](auto i) TCNCA_INLINE { h[i] = grad_in[i]; });
  }
};

}  // namespace tcnca
