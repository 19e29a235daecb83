// Backward pass over a layer of a large dilation. A thread owns columns and walks along their rows, forward in time;
// the gradient of an input is complete `taps - 1` rows after it.
#pragma once
#include "../../block/activation.hpp"
#include "../../block/agent.hpp"
#include "long_backward.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of a backward pass along columns. An item is a part of the columns of some channels of one sequence; segments
/// are not used. sums has batch * parts(params) rows, row batch * parts + part.
///
/// grad_x may be the same memory as x or grad_y: the thread that owns a column reads an element before it writes it,
/// and no other thread accesses it. The layer's sums are computed again from x, without rounding. Gradients of
/// parameters: each thread adds up to 1024 terms in accumulate_t<T>, then in fp64; the order of all additions is fixed.
/// A gradient or input that is not finite reaches only the results that depend on it.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct conv_stack_column_backward_agent {
  static_assert(has_column_backward_plan<T, Shape, Layers>, "this layer has no column plan");
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_backward_pass_params<T, parameter_t<T, Shape.weights>>;
  static constexpr conv_stack_column_plan plan = make_column_backward_plan(Shape, Layers);
  static constexpr bool along_length = Shape.order == layout::batch_channels_length;
  static constexpr index_t d = Shape.dilation(Layers.first);
  static constexpr int width = sizeof(T) == 8 || Shape.taps > 12 ? 1 : 2;  // columns of a thread
  static constexpr int parameters = Shape.taps + (Shape.bias ? 1 : 0);
  static constexpr int segment_grain = 1;
  static constexpr index_t halo = 0;
  static constexpr bool is_long = plan.shared_slots > 0;
  static constexpr int blocks_per_multiprocessor = max_of(1, (is_long           ? 256
                                                              : Shape.taps > 12 ? 384
                                                                                : 512) /
                                                                 Group::size());
  using partition = detail::column_partition<Group, along_length, width>;
  static_assert((Group::size() & (Group::size() - 1)) == 0, "the number of threads is a power of two");

  Group group;
  params_type const& params;
  double* totals;  // [parameter][lane][thread]

  TCNCA_HOST_DEVICE conv_stack_column_backward_agent(Group g, params_type const& p, A* shared, A*)
      : group(g), params(p), totals(reinterpret_cast<double*>(shared)) {}

  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) {
    return {.shared_memory_bytes = size_t(Group::size()) * (parameters * weight_lanes<width> * sizeof(double) +
                                                            2 * plan.shared_slots * sizeof(A))};
  }
  /// Rows of `sums` for each sequence of the batch: at most 1% of the bytes of x, at most 16.
  TCNCA_HOST_DEVICE static index_t parts(params_type const& p) {
    index_t const sums = parameters * index_t(sizeof(A)), x = p.x.extent[2] * index_t(sizeof(T));
    return max_of(index_t(1), min_of(min_of(index_t(16), partition_of(p).position_groups), x / (100 * sums)));
  }
  TCNCA_HOST_DEVICE static index_t items(params_type const& p) {
    return p.x.extent[0] * partition_of(p).channel_groups * parts(p);
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    partition const part = partition_of(params);
    index_t const n = parts(params), row = item / n, first = item % n;
    index_t const channel_group = row % part.channel_groups, batch = row / part.channel_groups;
    bool const vector = width > 1 && vectorizable(batch, channel_group);
    for (int i = 0; i < parameters * weight_lanes<width>; i++) totals[i * Group::size() + group.rank()] = 0;
    for (index_t position_group = first; position_group < part.position_groups; position_group += n) {
      if (vector) {
        auto const at = part.of(group.rank(), channel_group, position_group, 0, true);
        if (at.channel < params.x.extent[1] && at.column < d)
          columns_of<width>(group, params, batch, at.channel, at.column, totals).walk();
      } else {
        for (int e = 0; e < width; e++) {
          auto const at = part.of(group.rank(), channel_group, position_group, e, false);
          int const lane = along_length ? 0 : e;
          if (at.channel < params.x.extent[1] && at.column < d)
            columns_of<1>(group, params, batch, at.channel, at.column, totals + lane * parameters * Group::size())
                .walk();
        }
      }
    }
    store_sums(batch * n + first, channel_group, part.channel_threads, vector);
  }

 private:
  template <int W>
  struct columns;
  template <bool Long, int W>
  struct choose {
    using type = columns<W>;
  };
  template <int W>
  struct choose<true, W> {
    using type = detail::column_long_backward<Group, T, Shape, Layers>;
  };
  template <int W>
  using columns_of = typename choose<is_long, W>::type;

  static constexpr int taps = Shape.taps, rows = plan.rows, layer = Layers.first;
  static constexpr int history = taps - 1, slots = max_of(1, plan.register_slots);
  static constexpr bool has_derivative = Shape.act != activation::none;
  /// Neighbouring columns are positions, with the same weights, or channels.
  template <int W>
  static constexpr int weight_lanes = along_length ? 1 : W;

  TCNCA_HOST_DEVICE static partition partition_of(params_type const& p) {
    return {p.x.extent[1], d, max_of(index_t(1), min_of(d, p.x.extent[2]))};
  }
  /// Whether `width` neighbouring columns of all sequences are aligned to their size in every row.
  TCNCA_HOST_DEVICE bool vectorizable(index_t batch, index_t channel_group) const {
    constexpr size_t bytes = width * sizeof(T);
    index_t const channel = along_length ? channel_group : 0;
    auto const aligned = [&](auto const& v) TCNCA_INLINE {
      return size_t(v.at(batch, channel, 0)) % bytes == 0 && (along_length || v.stride[2] % width == 0);
    };
    if (!aligned(params.x) || !aligned(params.grad_y) || !aligned(params.grad_x)) return false;
    return along_length ? d % width == 0 && params.x.extent[2] % width == 0 : params.x.extent[1] % width == 0;
  }

  /// Adds the totals of all threads and writes those of the group's channels. Called by all threads; ends with a
  /// barrier.
  TCNCA_HOST_DEVICE void store_sums(index_t sums_row, index_t channel_group, int channel_threads, bool vector) const {
    constexpr int count = parameters * weight_lanes<width>;
    for (int half = Group::size() / 2; half >= channel_threads; half /= 2) {
      group.sync();
      for (int i = group.rank(); i < count * half; i += Group::size()) {
        double* const total = totals + i / half * Group::size() + i % half;
        *total += total[half];
      }
    }
    group.sync();
    for (int i = group.rank(); i < count * channel_threads; i += Group::size()) {
      int const thread = i % channel_threads, parameter = i / channel_threads % parameters,
                lane = i / channel_threads / parameters;
      int const offset = vector ? thread * weight_lanes<width> + lane : thread + lane * channel_threads;
      index_t const channel = along_length ? channel_group : channel_group * channel_threads * width + offset;
      if (channel < params.x.extent[1])
        *params.sums.at(sums_row, parameter, channel) =
            A(totals[(lane * parameters + parameter) * Group::size() + thread]);
    }
    group.sync();
  }

  /// Computes W neighbouring columns of one thread.
  template <int W>
  struct columns : detail::column_rows<d, rows, along_length> {
    using base = detail::column_rows<d, rows, along_length>;
    using base::begin, base::first, base::blocks, base::row_0, base::row_step;
    using value = pack<A, W>;
    static constexpr int lanes = weight_lanes<W>;
    using weight_value = pack<A, lanes>;
    static constexpr int prefetch_rows = [] {  // 24 KB of a multiprocessor
      int n = min_of(8, 24 * 1024 / (blocks_per_multiprocessor * Group::size() * int(2 * width * sizeof(T))));
      while (n > 1 && rows % n != 0) n--;
      return max_of(1, n);
    }();
    static constexpr int blocks_per_total = max_of(1, 1024 / (rows * W));

    params_type const& params;
    double* total;        // the thread's, of parameter 0
    T const *x, *grad_y;  // row 0 of the block
    T* grad_x;
    detail::array<detail::raw_elements<T, W>, prefetch_rows> next_x, next_grad_y;
    detail::array<value, slots> input,
        grad;  // rings: newest inputs, and the gradients of these inputs as far as summed
    weight_value bias;
    detail::array<weight_value, taps> weight;
    detail::array<weight_value, parameters> sum;

    TCNCA_HOST_DEVICE columns(Group g, params_type const& p, index_t batch, index_t channel, index_t column,
                              double* group_totals)
        : base(p.x.extent[2], column),
          params(p),
          total(group_totals + g.rank()),
          x(row_0(p.x, batch, channel)),
          grad_y(row_0(p.grad_y, batch, channel)),
          grad_x(row_0(p.grad_x, batch, channel)) {
      TCNCA_UNROLL
      for (int i = 0; i < lanes; i++) {
        TCNCA_UNROLL
        for (int k = 0; k < taps; k++) weight[k].set_lane(i, to_accumulate(*p.weight.at(layer, k, channel + i)));
        if constexpr (Shape.bias) { bias.set_lane(i, to_accumulate(*p.bias.at(layer, channel + i))); }
      }
    }

    TCNCA_HOST_DEVICE void walk() {
      if (params.x.extent[2] == 0) return;
      TCNCA_UNROLL
      for (int j = 0; j < prefetch_rows; j++)
        if (j >= first) load_row(j);
      TCNCA_UNROLL
      for (int s = 0; s < slots; s++) input[s] = grad[s] = broadcast<W>(A(0));
      clear_sums();
      // Some gradients of the first blocks are those of inputs before the sequence. The number is the same in all
      // threads.
      bool const whole = params.x.extent[2] == index_t(blocks) * (d * rows);
      int const heads = min_of(blocks, whole ? divide_up(history, rows) : 1 + divide_up(history, rows));
      int b = 0;
      for (; b < heads; b++) block<true>(b);
      while (b < blocks) {
        add_to_totals();
        for (int const end = min_of(blocks, b + blocks_per_total); b < end; b++) block<false>(b);
      }
      add_to_totals();
      TCNCA_UNROLL
      for (int row = -history; row < 0; row++)
        if (blocks * rows + row >= first)
          detail::store_raw<T, W>(grad_x + row * row_step(params.grad_x),
                                  detail::raw_elements<T, W>::narrow(grad[slot(row)]));
    }

    TCNCA_HOST_DEVICE void load_row(int row) {
      next_x[row % prefetch_rows] = detail::load_raw<T, W>(x + row * row_step(params.x));
      next_grad_y[row % prefetch_rows] = detail::load_raw<T, W>(grad_y + row * row_step(params.grad_y));
    }

    /// Computes `rows` rows. Head: those before `first` are not in the sequence.
    template <bool Head>
    TCNCA_HOST_DEVICE void block(int b) {
      bool const more = b + 1 < blocks;
      int const absent = first - b * rows;  // rows of this block before the sequence
      TCNCA_UNROLL
      for (int j = 0; j < rows; j++) {
        value const in = next_x[j % prefetch_rows].widen(), gradient = next_grad_y[j % prefetch_rows].widen();
        int const following = j + prefetch_rows;
        if (following < rows ? !Head || following >= absent : more) load_row(following);
        if (Head && j < absent) continue;
        value const complete = row(j, in, gradient);
        if (!Head || j - history >= absent)
          detail::store_raw<T, W>(grad_x + (j - history) * row_step(params.grad_x),
                                  detail::raw_elements<T, W>::narrow(complete));
      }
      x += rows * row_step(params.x), grad_y += rows * row_step(params.grad_y);
      grad_x += rows * row_step(params.grad_x);
    }

    /// Adds the terms of row j of a block; returns the gradient of the input of row j - history, which is complete.
    TCNCA_HOST_DEVICE value row(int j, value in, value gradient) {
      value g = gradient;
      if constexpr (has_derivative) {
        value pre = fma(widened(weight[0]), in, Shape.bias ? widened(bias) : broadcast<W>(A(0)));
        TCNCA_UNROLL
        for (int k = 1; k < taps; k++) pre = fma(widened(weight[k]), input[slot(j - k)], pre);
        g = g * activate<Shape.act>(pre).derivative;
      }
      TCNCA_UNROLL
      for (int k = 0; k < taps; k++) sum[k] = add_product(sum[k], g, k == 0 ? in : input[slot(j - k)]);
      if constexpr (Shape.bias) { sum[taps] = add(sum[taps], g); }
      TCNCA_UNROLL
      for (int k = 1; k < taps; k++) grad[slot(j - k)] = fma(widened(weight[k]), g, grad[slot(j - k)]);
      value newest = widened(weight[0]) * g;
      if constexpr (Shape.residuals == residual::level) { newest = newest + gradient; }
      if constexpr (history == 0) {
        return newest;
      } else {
        value const complete = grad[slot(j - history)];
        grad[slot(j)] = newest, input[slot(j)] = in;
        return complete;
      }
    }
    TCNCA_HOST_DEVICE static constexpr int slot(int row) { return (row % slots + slots) % slots; }
    TCNCA_HOST_DEVICE static value widened(weight_value w) {
      if constexpr (lanes == W) {
        return w;
      } else {
        return broadcast<W>(w.lane(0));
      }
    }

    /// s + a b; where the lanes are positions, the sum over them.
    TCNCA_HOST_DEVICE static weight_value add_product(weight_value s, value a, value b) {
      if constexpr (lanes == W) {
        return fma(a, b, s);
      } else {
        TCNCA_UNROLL
        for (int i = 0; i < W; i++) s = fma(pack<A, 1>{a.lane(i)}, pack<A, 1>{b.lane(i)}, s);
        return s;
      }
    }
    TCNCA_HOST_DEVICE static weight_value add(weight_value s, value a) {
      if constexpr (lanes == W) {
        return s + a;
      } else {
        TCNCA_UNROLL
        for (int i = 0; i < W; i++) s = s + pack<A, 1>{a.lane(i)};
        return s;
      }
    }
    TCNCA_HOST_DEVICE void clear_sums() {
      TCNCA_UNROLL
      for (int k = 0; k < parameters; k++) sum[k] = broadcast<lanes>(A(0));
    }
    TCNCA_HOST_DEVICE void add_to_totals() {
      TCNCA_UNROLL
      for (int k = 0; k < parameters; k++) {
        TCNCA_UNROLL
        for (int i = 0; i < lanes; i++) total[(i * parameters + k) * Group::size()] += double(sum[k].lane(i));
      }
      clear_sums();
    }
  };
};

}  // namespace tcnca
