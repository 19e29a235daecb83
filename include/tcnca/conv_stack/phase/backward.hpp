// The register-phase backward kernel: one block walks along a row, forward in time, in tiles. It computes the forward
// pass of a new tile level by level, and the gradients of each level for a window that lags behind those of the next
// level by what the taps look ahead. Inputs of a level wait in shared memory until that window has reached them.
#pragma once
#include "../../block/agent.hpp"
#include "backward_columns.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of a backward pass over the layers [Layers.first, Layers.last) of a causal stack, fp32 arithmetic and
/// intermediates. An item is one segment of one row (batch, channel).
///
/// For each position s of the window of a level, with g the gradients of the level's sums and x its inputs:
///   gradient of x[s] = sum_k weight[k] g[s + k d],   grad_weight[k] += g[s + k d] x[s],   grad_bias += g[s].
/// The terms of the parameters' sums belong to the segment that owns s. Each thread adds at most 1024 terms in fp32;
/// these sums are added in fp64, in a fixed order. Results do not depend on the number of blocks.
///
/// grad_y and grad_x may be the same memory if segments == 1: a block has loaded grad_y of a tile before it writes
/// grad_x of the same or earlier positions, and no other block accesses the row.
/// A non-finite value of x or grad_y reaches the elements of grad_x that depend on it by the formulas, and no others.
/// The sums of parameters of its channel may all become NaN.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct conv_stack_phase_backward_agent : detail::phase_backward_columns<Group, T, Shape, Layers> {
  using base = detail::phase_backward_columns<Group, T, Shape, Layers>;
  using base::plan, base::levels, base::taps, base::tile, base::threads, base::derivative, base::has_residual,
      base::group, base::shared, base::parameter_sum;
  using A = float;
  using group_type = Group;
  using params_type = conv_stack_backward_pass_params<T, parameter_t<T, Shape.weights>>;
  static constexpr int segment_grain = 64;
  /// Positions before a segment whose forward pass is computed again.
  static constexpr index_t halo = plan.halo;

  params_type const& params;

  TCNCA_HOST_DEVICE conv_stack_phase_backward_agent(Group g, params_type const& p, A* memory, A*)
      : base(g, memory), params(p) {}

  TCNCA_HOST_DEVICE static index_t items(params_type const& p) { return p.x.extent[0] * p.x.extent[1] * p.segments; }
  static constexpr group_memory memory(params_type const&) { return {.shared_memory_bytes = plan.bytes()}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const row = item / params.segments, batch = row / params.x.extent[1], channel = row % params.x.extent[1];
    int const segment = int(item % params.segments);
    length_ = int(params.x.extent[2]);
    begin_ = int(min_of(index_t(segment) * params.segment_length, index_t(length_)));
    end_ = params.segments == 1 ? length_ : int(min_of(index_t(begin_) + params.segment_length, index_t(length_)));
    x_ = params.x.at(batch, channel, 0), grad_y_ = params.grad_y.at(batch, channel, 0);
    grad_x_ = params.grad_x.at(batch, channel, 0);
    start_row(channel);
    if (begin_ < end_) walk();
    add_to_totals();
    index_t const sums_row = batch * params.segments + segment;
    double const* const totals = reinterpret_cast<double const*>(shared + plan.totals);
    for (int i = group.rank(); i < parameters; i += threads) *params.sums.at(sums_row, i, channel) = A(totals[i]);
    group.sync();
  }

 private:
  static constexpr int V = 16 / int(sizeof(T)), parameters = levels * (taps + (Shape.bias ? 1 : 0)),
                       first_lag = plan.level[0].lag, tiles_per_total = 1024 / phase_outputs;
  static constexpr bool has_columns = plan.first_column_level < levels, has_activation = Shape.act != activation::none;

  using weights = detail::array<A, round_up(taps, 4)>;

  int length_, begin_, end_;
  T const *x_, *grad_y_;
  T* grad_x_;

  TCNCA_HOST_DEVICE void start_row(index_t channel) {
    for (int i = group.rank() * 4; i < plan.buffers; i += threads * 4) store<4>(shared + i, broadcast<4>(A(0)));
    constexpr int stride = round_up(taps, 4);
    for (int i = group.rank(); i < levels * stride; i += threads) {
      int const l = i / stride, k = i % stride;
      shared[plan.weights + i] = k < taps ? to_accumulate(*params.weight.at(Layers.first + l, k, channel)) : A(0);
    }
    if constexpr (Shape.bias) {
      for (int l = group.rank(); l < levels; l += threads)
        shared[plan.bias + l] = to_accumulate(*params.bias.at(Layers.first + l, channel));
    }
    double* const totals = reinterpret_cast<double*>(shared + plan.totals);
    for (int i = group.rank(); i < parameters; i += threads) totals[i] = 0;
    clear_sums();
    this->clear_history();
    this->reset_cursors();
    group.sync();
  }
  TCNCA_HOST_DEVICE void clear_sums() {
    unroll<0, levels*(taps + 1)>([&](auto i) TCNCA_INLINE { parameter_sum[i] = A(0); });
  }

  /// All tiles of the segment.
  TCNCA_HOST_DEVICE void walk() {
    int const start = max_of(0, begin_ - plan.halo);
    A x[phase_outputs], grad_y[phase_outputs];
    load_x(x, start);
    load_grad_y(grad_y, start);
    int tiles = 0;
    for (int t = start; t - first_lag < end_; t += tile) {
      store_vectors<plan.level[0].x>(x);
      constexpr phase_buffer out_ring =
          base::derivative == phase_derivative::taps ? plan.level[levels - 1].out : plan.level[levels - 1].grad;
      if constexpr (!has_columns) { store_vectors<out_ring>(grad_y); }
      group.sync();
      load_x(x, t + tile);
      constexpr int forward = min_of(plan.first_column_level, levels - 1);
      if (t < length_) {
        unroll<0, forward>([&](auto i) TCNCA_INLINE {
          forward_level<decltype(i)::value>();
          group.sync();
        });
      }
      if constexpr (has_columns) {
        this->column_levels(grad_y, t, length_, begin_, end_, [&](int p, A g) TCNCA_INLINE {
          int const s = t - first_lag + p;
          if (s >= begin_ && s < end_ && grad_x_) grad_x_[s] = from_accumulate<T>(g);
        });
        group.sync();
      } else if constexpr (has_activation) {
        last_level_gradient(t);
        group.sync();
      }
      load_grad_y(grad_y, t + tile);
      unroll<0, plan.first_column_level>([&](auto i) TCNCA_INLINE {
        constexpr int level = base::plan.first_column_level - 1 - decltype(i)::value;
        backward_level<level>(t);
        if constexpr (level + 1 < base::plan.first_column_level) { carry_gradients<level + 1>(); }
        group.sync();
      });
      if constexpr (plan.first_column_level > 0) {
        carry_gradients<0>();
        if constexpr (levels == 1) { group.sync(); }
      }
      this->advance_cursors();
      if (++tiles % tiles_per_total == 0) add_to_totals();
    }
  }

  // Global memory. A tile's vectors are divided among the threads in order.

  TCNCA_HOST_DEVICE void load_vectors(A (&v)[phase_outputs], T const* row, bool vectorizable, int begin) const {
    bool const whole = vectorizable && begin + tile <= length_;
    unroll<0, phase_outputs / V>([&](auto q) TCNCA_INLINE {
      int const t = begin + (int(q) * threads + group.rank()) * V;
      if (whole) {
        auto const vector = load<V>(row + t);
        unroll<0, V>([&](auto i) TCNCA_INLINE { v[int(q) * V + int(i)] = vector.lane(i); });
      } else {
        unroll<0, V>([&](auto i) TCNCA_INLINE {
          v[int(q) * V + int(i)] = t + int(i) < length_ ? to_accumulate(row[t + int(i)]) : A(0);
        });
      }
    });
  }
  template <phase_buffer Buffer>
  TCNCA_HOST_DEVICE void store_vectors(A const (&v)[phase_outputs]) const {
    unroll<0, phase_outputs / V>([&](auto q) TCNCA_INLINE {
      A* const to = this->template at<Buffer, 0>((int(q) * threads + group.rank()) * V);
      unroll<0, V / 4>([&](auto h) TCNCA_INLINE {
        pack<A, 4> four;
        unroll<0, 4>([&](auto i) TCNCA_INLINE { four.set_lane(i, v[int(q) * V + int(h) * 4 + int(i)]); });
        store<4>(to + int(h) * 4, four);
      });
    });
  }
  TCNCA_HOST_DEVICE void load_x(A (&x)[phase_outputs], int begin) const {
    load_vectors(x, x_, params.x_vectorizable, begin);
  }
  /// Gradients of the outputs: of a thread's columns, or vectors like x.
  TCNCA_HOST_DEVICE void load_grad_y(A (&g)[phase_outputs], int begin) const {
    if constexpr (has_columns) {
      bool const whole = begin + tile <= length_;
      unroll<0, phase_outputs>([&](auto i) TCNCA_INLINE {
        constexpr int c = decltype(i)::value / plan.rows, row = decltype(i)::value % plan.rows;
        int const t = begin + group.rank() + c * threads + row * plan.columns;
        g[i] = whole || t < length_ ? to_accumulate(grad_y_[t]) : A(0);
      });
    } else {
      load_vectors(g, grad_y_, params.grad_y_vectorizable, begin);
    }
  }

  // Levels.

  /// Elements of a window of level I with N outputs.
  template <int I, int N>
  static constexpr int window = N + (taps - 1) * plan.level[I].tap_step();

  /// sum[o]: the sums of window w of level I; out[o]: its inputs at the same positions.
  template <int I, int N, int Count>
  TCNCA_HOST_DEVICE void sums_of(detail::array<A, N>& sum, detail::array<A, N>& in, int w) const {
    constexpr phase_backward_level level = plan.level[I];
    constexpr int step = level.tap_step();
    detail::array<A, Count> x;
    weights weight;
    this->template load_weights<I>(weight);
    this->template load_window<I, N, level.x, level.history>(x, w);
    unroll<0, Count>([&](auto i) TCNCA_INLINE { x[i] = base::template input_of<I>(x[i]); });
    A const bias = this->template bias_of<I>();
    unroll<0, N>([&](auto o) TCNCA_INLINE {
      constexpr int newest = decltype(o)::value + (taps - 1) * step;
      A s = bias;
      unroll<0, taps>([&](auto k) TCNCA_INLINE {
        constexpr int j = newest - decltype(k)::value * step;
        s = detail::multiply_add(weight[k], x[j], s);
      });
      sum[o] = s, in[o] = x[newest];
    });
  }

  /// The inputs of level I + 1 for the new tile.
  template <int I>
  TCNCA_HOST_DEVICE void forward_level() const {
    constexpr int N = base::window_outputs(I);
    unroll<0, phase_outputs / N>([&](auto w) TCNCA_INLINE {
      detail::array<A, N> sum, in;
      sums_of<I, N, window<I, N>>(sum, in, w);
      unroll<0, N>([&](auto o) TCNCA_INLINE { sum[o] = base::output_to_store(sum[o], in[o]); });
      this->template store_window<I, N, plan.level[I + 1].x>(sum, w);
    });
  }

  /// The gradients of the sums of the last level for the new tile. The gradients of the outputs are in the ring of the
  /// gradients of the sums, or of those of the outputs if that exists.
  TCNCA_HOST_DEVICE void last_level_gradient(int t) const {
    constexpr int I = levels - 1, N = base::window_outputs(I);
    constexpr phase_buffer to = plan.level[I].grad,
                           from = base::derivative == phase_derivative::taps ? plan.level[I].out : to;
    bool const interior = t + tile <= length_;
    unroll<0, phase_outputs / N>([&](auto w) TCNCA_INLINE {
      detail::array<A, N> sum, in, grad;
      sums_of<I, N, window<I, N>>(sum, in, w);
      this->template load_window<I, N, from, 0>(grad, w);
      unroll<0, N>([&](auto o) TCNCA_INLINE { grad[o] = grad[o] * base::derivative_at(sum[o]); });
      if (!interior) keep_positions<I, N>(grad, w, t, 0, length_);
      this->template store_window<I, N, to>(grad, w);
    });
  }

  template <int I>
  TCNCA_HOST_DEVICE void carry_gradients() const {
    this->template carry<plan.level[I].grad>();
    if constexpr (base::derivative == phase_derivative::taps) { this->template carry<plan.level[I].out>(); }
  }

  /// Sets the elements of a window of the tile that begins at t to 0 outside of [begin, end).
  template <int I, int N>
  TCNCA_HOST_DEVICE void keep_positions(detail::array<A, N>& v, int w, int t, int begin, int end) const {
    int const begin_of_window = t + this->template first_of<I, N>(w);
    unroll<0, N>([&](auto o) TCNCA_INLINE {
      int const s = begin_of_window + int(o) * plan.level[I].spacing();
      if (s < begin || s >= end) v[o] = A(0);
    });
  }

  /// The gradients of the inputs of level I, those of its parameters, and the gradients of the sums of level I - 1, for
  /// the window of the tile that begins at t.
  template <int I>
  TCNCA_HOST_DEVICE void backward_level(int t) {
    // The outputs of level 0 are vectors of grad_x.
    constexpr bool vectors = I == 0 && plan.level[I].mapping == phase_mapping::contiguous;
    constexpr int N = vectors ? V : base::window_outputs(I);
    int const begin = t - plan.level[I].lag;
    if (begin + tile <= begin_) return;
    bool const interior = begin >= begin_ && begin + tile <= end_;
    weights weight;
    this->template load_weights<I>(weight);
    unroll<0, phase_outputs / N>([&](auto w) TCNCA_INLINE { backward_window<I, N>(w, begin, interior, weight); });
  }
  template <int I, int N>
  TCNCA_HOST_DEVICE void backward_window(int w, int begin, bool interior, weights const& weight) {
    constexpr phase_backward_level level = plan.level[I];
    constexpr int step = level.tap_step();
    detail::array<A, window<I, N>> g;
    detail::array<A, N> x, grad;
    this->template load_window<I, N, level.grad, level.delay>(g, w);
    this->template load_window<I, N, level.x, level.lag>(x, w);
    unroll<0, N>([&](auto o) TCNCA_INLINE {
      A sum = A(0);
      unroll<0, base::taps>([&](auto k) TCNCA_INLINE {
        constexpr int j = decltype(o)::value + decltype(k)::value * step;
        sum = detail::multiply_add(weight[k], g[j], sum);
      });
      grad[o] = sum;
    });
    if constexpr (has_residual && derivative == phase_derivative::taps) {
      detail::array<A, N> out;
      this->template load_window<I, N, level.out, level.delay>(out, w);
      unroll<0, N>([&](auto o) TCNCA_INLINE { grad[o] = grad[o] + out[o]; });
    } else if constexpr (has_residual) {
      unroll<0, N>([&](auto o) TCNCA_INLINE { grad[o] = grad[o] + g[o]; });
    }
    if constexpr (I == 0) {
      if (grad_x_) store_grad_x<N>(grad, w, begin, interior);
    } else {
      constexpr phase_backward_level previous = plan.level[I - 1];
      if constexpr (derivative == phase_derivative::taps) { this->template store_window<I, N, previous.out>(grad, w); }
      multiply_by_derivative<I, N>(grad, x, w);
      if (derivative != phase_derivative::one && !interior) keep_positions<I, N>(grad, w, begin, 0, length_);
      this->template store_window<I, N, previous.grad>(grad, w);
    }
    if (!interior) keep_positions<I, N>(x, w, begin, begin_, end_);
    unroll<0, N>([&](auto o) TCNCA_INLINE {
      unroll<0, base::taps>([&](auto k) TCNCA_INLINE {
        constexpr int j = decltype(o)::value + decltype(k)::value * step, s = I * base::taps + decltype(k)::value;
        parameter_sum[s] = detail::multiply_add(g[j], x[o], parameter_sum[s]);
      });
    });
    if constexpr (Shape.bias) {
      constexpr int s = levels * taps + I;
      unroll<0, N>([&](auto o) TCNCA_INLINE { grad[o] = g[o]; });
      if (!interior) keep_positions<I, N>(grad, w, begin, begin_, end_);
      unroll<0, N>([&](auto o) TCNCA_INLINE { parameter_sum[s] += grad[o]; });
    }
  }

  /// Multiplies the gradients of the outputs of level I - 1 by the derivatives of the activation. stored: what the
  /// buffer of the inputs of level I holds; becomes the inputs.
  template <int I, int N>
  TCNCA_HOST_DEVICE void multiply_by_derivative(detail::array<A, N>& grad, detail::array<A, N>& stored, int w) const {
    if constexpr (derivative == phase_derivative::output) {
      unroll<0, N>([&](auto o) TCNCA_INLINE { grad[o] = grad[o] * base::derivative_from_output(stored[o]); });
    } else if constexpr (derivative == phase_derivative::sum) {
      unroll<0, N>([&](auto o) TCNCA_INLINE {
        auto const y = activate<Shape.act>(broadcast<1>(stored[o]));
        grad[o] = grad[o] * y.derivative.lane(0), stored[o] = y.value.lane(0);
      });
    } else if constexpr (derivative == phase_derivative::taps) {
      constexpr int lag = plan.level[I].lag, spacing = plan.level[I].spacing();
      int const p = this->template first_of<I, N>(w);
      unroll<0, N>([&](auto o) TCNCA_INLINE {
        A const sum = this->template sum_from_buffers<I - 1, lag>(p + int(o) * spacing);
        grad[o] = grad[o] * base::derivative_at(sum);
      });
    }
  }

  template <int N>
  TCNCA_HOST_DEVICE void store_grad_x(detail::array<A, N> const& grad, int w, int begin, bool interior) const {
    int const s = begin + this->template first_of<0, N>(w);
    if constexpr (N == V && plan.level[0].mapping == phase_mapping::contiguous) {
      if (interior && params.grad_x_vectorizable) {
        pack<A, V> vector;
        unroll<0, V>([&](auto i) TCNCA_INLINE { vector.set_lane(i, grad[i]); });
        return store<V>(grad_x_ + s, vector);
      }
    }
    unroll<0, N>([&](auto o) TCNCA_INLINE {
      int const position = s + int(o) * plan.level[0].spacing();
      if (position >= begin_ && position < end_) grad_x_[position] = from_accumulate<T>(grad[o]);
    });
  }

  // Parameters.

  /// Adds the sums of all threads to the totals in fp64 and clears them. Ends with a barrier.
  TCNCA_HOST_DEVICE void add_to_totals() {
    warp_of<Group> const warp{};
    constexpr int warps = threads / warp_size;
    A* const partial = shared + plan.partial;
    unroll<0, parameters>([&](auto i) TCNCA_INLINE {
      A s = parameter_sum[i];
      unroll<0, 5>([&](auto j) TCNCA_INLINE { s += warp.shuffle_xor(s, 1 << int(j)); });
      if (group.rank() % warp_size == 0) partial[group.rank() / warp_size * parameters + int(i)] = s;
    });
    clear_sums();
    group.sync();
    double* const totals = reinterpret_cast<double*>(shared + plan.totals);
    for (int i = group.rank(); i < parameters; i += threads)
      for (int j = 0; j < warps; j++) totals[i] += double(partial[j * parameters + i]);
    group.sync();
  }
};

}  // namespace tcnca
