// The forward kernel of short sequences: a row (one channel of one sequence) is at most a block of vectors, which pass
// all layers in registers. Every tap reads a vector of its row, two neighbouring vectors shifted, or nothing.
#pragma once
#include "../../block/activation.hpp"
#include "../../block/agent.hpp"
#include "../../core/sequences.hpp"
#include "../tuning.hpp"
#include "rows.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of the kernel of short rows, common to all groups.
template <element T, element Weight = T>
struct conv_stack_short_rows_params {
  sequence_view<T const> x;
  tensor_view<Weight const, 3> weight;
  tensor_view<Weight const, 2> bias;
  tensor_view<Weight const, 1> omega;
  sequence_view<T> y;
  bool y_streaming = false;       // non-temporal stores: the rows of y are aligned, and y is larger than the caches
  sequence_table sequences = {};  // of a packed call; else no sequences
};

/// Agent of the forward pass for sequences of at most `longest` positions without a state, with the length contiguous.
/// Results have the bits of the generic agent. An item is a number of blocks; a block is one row of 5 to 8 vectors, or
/// 2 or 4 shorter rows.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_short_rows_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_short_rows_params<T, parameter_t<T, Shape.weights>>;
  static constexpr int width = Policy.width, layers = Shape.layers();
  static constexpr index_t longest = detail::row_block_vectors * width;
  static constexpr index_t blocks_per_item = 64;
  // Of a packed call: an item is some channels of some sequences, one after another along the rows.
  static constexpr index_t channels_per_item = 16, sequences_per_item = 32;

  params_type const& params;
  TCNCA_HOST_DEVICE conv_stack_short_rows_agent(Group, params_type const& p, A*, A*) : params(p) {}

  /// Whether the kernel serves the shape.
  static constexpr bool exists = Shape.order == layout::batch_channels_length &&
                                 detail::unrolled_row_terms<Shape, width>() <= detail::most_row_terms;

  /// Whether the kernel can do a call with the arguments of conv_stack::forward.
  template <class Args>
  static bool can_run(Args const& args) {
    return args.x.extent[2] <= longest && !args.state_in.given() && !args.state_out.given();
  }
  template <class Args>
  static params_type make_params(Args const& args, bool y_streaming) {
    return {.x = args.x,
            .weight = args.weight,
            .bias = args.bias,
            .omega = args.omega,
            .y = args.y,
            .y_streaming = y_streaming};
  }

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    if (p.sequences.count > 0)
      return divide_up(p.sequences.count, sequences_per_item) * divide_up(p.x.extent[1], channels_per_item);
    return p.x.extent[2] == 0 ? 0 : divide_up(row_order(p).blocks(), blocks_per_item);
  }
  static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    if (p.sequences.count > 0) return run_packed(item);
    row_order const order(p);
    index_t const first = item * blocks_per_item;
    run({.order = order,
         .length = p.x.extent[2],
         .first = first,
         .last = min_of(first + blocks_per_item, order.blocks()),
         .ahead = divide_up(prefetched, p.x.extent[2]) * p.x.stride[order.axis]});
  }

 private:
  template <int V>
  using row_block = detail::row_block<T, Shape, width, V, 2>;

  static constexpr index_t prefetched = detail::prefetched_row_bytes / index_t(sizeof(T));

  /// Vectors of a row in the kernel for this length: 2, 4 or 8.
  TCNCA_HOST_DEVICE static constexpr int vectors_of(index_t length) {
    return length <= 2 * width ? 2 : length <= 4 * width ? 4 : 8;
  }

  /// The rows of a block lie along one axis, so that one stride leads from row to row: the channels of a sequence, or
  /// the sequences of a batch where it has more of them. Rows that do not fill a block have one each.
  struct row_order {
    int axis;                        // 0: sequences, 1: channels
    index_t across;                  // extent of the other axis
    index_t complete, blocks_along;  // blocks along the axis, complete ones first
    int rows_per_block;

    TCNCA_HOST_DEVICE constexpr explicit row_order(params_type const& p)
        : row_order(p.x.extent[0], p.x.extent[1], p.x.extent[2]) {}
    TCNCA_HOST_DEVICE constexpr row_order(index_t batch, index_t channels, index_t length)
        : rows_per_block(detail::row_block_vectors / vectors_of(length)) {
      axis = channels < rows_per_block && channels < batch ? 0 : 1;
      across = axis == 1 ? batch : channels;
      index_t const along = axis == 1 ? channels : batch;
      complete = along / rows_per_block;
      blocks_along = complete + along % rows_per_block;
    }
    TCNCA_HOST_DEVICE constexpr index_t blocks() const { return across * blocks_along; }
    /// The first row of block i along the axis.
    TCNCA_HOST_DEVICE constexpr index_t first_row(index_t i) const {
      return i * rows_per_block - max_of(index_t(0), i - complete) * (rows_per_block - 1);
    }
  };

  /// The blocks [first, last) of an order, from a channel, a row of the batch and a position on.
  struct row_range {
    row_order order;
    index_t length, first, last;
    index_t ahead;  // elements from what is computed to what is prefetched
    index_t channel = 0, batch = 0, begin = 0;
  };
  TCNCA_HOST_DEVICE void run(row_range const& r) const {
    switch (vectors_of(r.length)) {
      case 2: return run_rows<2>(r);
      case 4: return run_rows<4>(r);
      default: return run_rows<8>(r);
    }
  }

  TCNCA_NOINLINE void run_packed(index_t item) const {
    auto const& p = params;
    index_t const parts = divide_up(p.sequences.count, sequences_per_item), first = item % parts * sequences_per_item,
                  channel = item / parts * channels_per_item,
                  channels = min_of(channels_per_item, p.x.extent[1] - channel);
    for (index_t number = first; number < min_of(first + sequences_per_item, p.sequences.count); number++) {
      sequence_place const s = p.sequences[number];
      if (s.length == 0 || s.length > longest) continue;
      row_order const order(1, channels, s.length);
      run({.order = order,
           .length = s.length,
           .first = 0,
           .last = order.blocks(),
           .ahead = prefetched,
           .channel = channel,
           .batch = s.batch,
           .begin = s.begin});
    }
  }

  /// A range whose rows have V vectors.
  template <int V>
  TCNCA_NOINLINE void run_rows(row_range const& r) const {
    row_order const order = r.order;
    auto const& p = params;
    row_block<V> rows(r.length, p.weight, p.bias);
    bool const streaming = p.y_streaming && r.begin * index_t(sizeof(T)) % 64 == 0;
    index_t other = r.first / order.blocks_along, along = r.first % order.blocks_along;
    for (index_t i = r.first; i < r.last; i++) {
      // A row that does not fill a block is computed several times.
      index_t const row = order.first_row(along), step = along < order.complete ? 1 : 0,
                    channel_step = order.axis == 1 ? step : 0;
      index_t const batch = r.batch + (order.axis == 1 ? other : row),
                    channel = r.channel + (order.axis == 1 ? row : other);
      rows.weight = p.weight.at(0, 0, channel), rows.weight_stride = channel_step * p.weight.stride[2];
      rows.bias = p.bias.at(0, channel), rows.bias_stride = channel_step * p.bias.stride[1];
      rows.omega = p.omega.at(channel), rows.omega_stride = channel_step * p.omega.stride[0];
      T const* const x = p.x.at(batch, channel, r.begin);
      index_t const x_stride = step * p.x.stride[order.axis];
      rows.prefetch_rows(x + r.ahead, x_stride);
      typename row_block<V>::values y;
      compute(rows, x, x_stride, y);
      rows.store_rows(p.y.at(batch, channel, r.begin), step * p.y.stride[order.axis], y, streaming);
      if (++along == order.blocks_along) along = 0, other++;
    }
    if (streaming) end_streaming();
  }

  template <int V>
  static TCNCA_HOST_DEVICE void compute(row_block<V> const& rows, T const* x, index_t x_stride,
                                        typename row_block<V>::values& y) {
    constexpr int n = detail::row_block_vectors;
    rows.load_rows(y, x, x_stride);
    run_layers<V, 0>(rows, y);
    if constexpr (Shape.dir == direction::bidirectional) {
      typename row_block<V>::values causal;
      unroll<0, n>([&](auto i) TCNCA_INLINE { causal[i] = y[i]; });
      rows.load_rows(y, x, x_stride);
      run_layers<V, 1>(rows, y);
      unroll<0, n>([&](auto i) TCNCA_INLINE { y[i] = y[i] + causal[i]; });
    }
    if constexpr (Shape.skip) {
      rows.add_skip(y, x, x_stride);
      rows.template activate_all<activation::silu>(y);
    }
  }

  /// All layers of one direction, in place.
  template <int V, int Direction>
  static TCNCA_HOST_DEVICE void run_layers(row_block<V> const& rows, typename row_block<V>::values& v) {
    constexpr int n = detail::row_block_vectors;
    typename row_block<V>::values residual;
    unroll<0, layers>([&](auto l) TCNCA_INLINE {
      if constexpr (Shape.starts_residual(l)) {
        unroll<0, n>([&](auto i) TCNCA_INLINE { residual[i] = v[i]; });
      }
      typename row_block<V>::values sum;
      rows.template layer_sums<Direction, decltype(l)::value>(v, sum);
      if constexpr (!Shape.post_activation) { rows.template activate_all<Shape.act>(sum); }
      unroll<0, n>([&](auto i) TCNCA_INLINE { v[i] = Shape.ends_residual(l) ? sum[i] + residual[i] : sum[i]; });
      if constexpr (Shape.post_activation) { rows.template activate_all<Shape.act>(v); }
      if constexpr (Shape.dir != direction::causal && l + 1 < layers) { rows.clear_after_end(v); }
    });
  }
};

}  // namespace tcnca
