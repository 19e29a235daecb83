// Chains of the register-phase kernel: their values between shared memory and registers, and the layers of a phase on
// them.
#pragma once
#include "../../block/activation.hpp"
#include "group.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Up to this many taps of a layer stay in registers.
inline constexpr int most_resident_taps = 20;

/// An output of a layer. A sum starts from the bias and adds the taps in ascending order, as in the generic agents.
/// in[i] is its newest input; the taps are Step values apart.
template <conv_stack_shape Shape, int Step, class A, int Size, int Taps>
TCNCA_HOST_DEVICE pack<A, 1> layer_output(array<pack<A, 1>, Size> const& in, int i, array<pack<A, 1>, Taps> const& taps,
                                          pack<A, 1> bias) {
  pack<A, 1> sum = bias;
  TCNCA_UNROLL
  for (int k = 0; k < Shape.taps; k++) sum = fma(taps[k], in[i - k * Step], sum);
  return layer_activation<Shape>(sum, in[i]);
}

/// The parameters of a layer in registers.
template <class Base, conv_stack_shape Shape>
struct phase_taps {
  using A = typename Base::A;
  array<pack<A, 1>, round_up(Shape.taps, Base::vector)> taps;
  pack<A, 1> bias = {};

  phase_taps() = default;
  TCNCA_HOST_DEVICE phase_taps(Base const& base, int layer) {
    TCNCA_UNROLL
    for (int k = 0; k < Shape.taps; k += Base::vector) {
      auto const v = load<Base::vector>(const_cast<A const*>(base.weight(layer, k)));
      TCNCA_UNROLL
      for (int e = 0; e < Base::vector; e++) taps[k + e] = {v.lane(e)};
    }
    bias = {Shape.bias ? *base.bias(layer) : A(0)};
  }
};

/// A chain of phase I, whose layers' histories precede the tile in shared memory. x[halo_values] is the first output;
/// what precedes it in x is computed again or is history. Base is the kernel's phase_group. All members are called by
/// one thread.
template <class Base, int I, conv_stack_shape Shape>
struct phase_chain {
  using A = typename Base::A;
  using T = typename Base::T;
  using value = pack<A, 1>;
  using parameters = phase_taps<Base, Shape>;
  static constexpr conv_stack_phase_plan Plan = Base::Plan;
  static constexpr conv_stack_phase Phase = Plan.phase[I];
  static constexpr int stride = Phase.stride, outputs = Phase.outputs, layers = Phase.last - Phase.first;
  static constexpr bool is_contiguous = Phase.kind == phase_kind::contiguous;
  /// Values of a load and of a store.
  static constexpr int load_step = I == 0 ? 16 / int(sizeof(T)) : is_contiguous ? Base::vector : 1;
  static constexpr int store_step = is_contiguous ? Base::vector : 1;
  static constexpr int halo_values = round_up(Phase.halo, load_step), size = halo_values + outputs,
                       blocks = divide_up(halo_values, outputs);
  static constexpr int padded_taps = round_up(Shape.taps, Base::vector);

  Base const& base;
  int chunk, first;  // first: position of the first output
  /// Where blocks of `outputs` values of x begin: block m is the m-th before the outputs.
  array<conditional<I == 0, T, A> const*, blocks + 1> from;

  TCNCA_HOST_DEVICE phase_chain(Base const& b, int chain) : base(b) {
    constexpr int residues = min_of(stride, Base::tile);
    chunk = chain / residues, first = chunk * outputs * stride + chain % residues;
    TCNCA_UNROLL
    for (int m = 0; m <= blocks; m++) {
      if constexpr (I == 0) {
        from[m] = base.stage() + phase_stage<T>::template chain_offset<outputs>(Plan.stage_halo / outputs - m + chunk);
      } else {
        constexpr padded_layout place = Plan.buffer[I - 1];
        from[m] = base.shared + (chunk >= m ? Plan.area(I - 1) : Plan.history_offset[I - 1]) +
                  place(first - m * outputs * stride);
      }
    }
  }
  /// Whether there is such a chain.
  TCNCA_HOST_DEVICE static constexpr bool exists(int chain) {
    constexpr int chains = min_of(stride, Base::tile) * Phase.chunks;
    return chains >= Phase.chains * Base::threads || chain < chains;
  }
  /// Whether output j is in the tile for all chains.
  TCNCA_HOST_DEVICE static constexpr bool is_inside(int j) {
    return ((Phase.chunks - 1) * outputs + j + 1) * stride <= Base::tile;
  }

  /// x[i], x[i + 1], ...; i is a multiple of load_step.
  TCNCA_HOST_DEVICE pack<A, load_step> load_at(int i) const {
    int const m = i < halo_values ? (halo_values - i + outputs - 1) / outputs : 0, j = i - halo_values + m * outputs;
    if constexpr (I == 0) {
      return load<load_step>(from[m] + phase_stage<T>::offset(j));
    } else {
      constexpr padded_layout place = Plan.buffer[I - 1];
      int const p = first + (i - halo_values) * stride;
      if (m == 0 && !is_inside(j) && p >= Base::tile) return broadcast<load_step>(A(0));
      if constexpr (place.has_constant_offsets(stride, outputs)) {
        return load<load_step>(from[m] + place(j * stride));
      } else {
        return load<load_step>(const_cast<A const*>(base.template input<I>(p)));
      }
    }
  }
  /// Writes outputs j, j + 1, ... to the phase's buffer.
  TCNCA_HOST_DEVICE void store_at(int j, pack<A, store_step> y) const {
    constexpr padded_layout place = Plan.buffer[I];
    A* const to = base.shared + Plan.area(I);
    if (!is_inside(j) && first + j * stride >= Base::tile) return;
    if constexpr (place.has_constant_offsets(stride, outputs)) {
      store<store_step>(to + place(first) + place(j * stride), y);
    } else {
      store<store_step>(to + place(first + j * stride), y);
    }
  }

  /// Computes the outputs of all layers. `starts`: the tile is the first one of the walk.
  TCNCA_HOST_DEVICE void run(bool starts) const {
    if constexpr (Shape.taps <= most_resident_taps || layers == 0) {
      run_by_outputs(starts);
    } else if constexpr (I == 0) {
      starts ? run_by_taps<true>() : run_by_taps<false>();
    } else {
      run_by_taps<false>();
    }
  }

 private:
  template <int N>
  static constexpr int layer = Phase.first + N;
  template <int N>
  static constexpr int step = int(Shape.dilation(layer<N>)) / stride;
  /// The first value of x for which a layer has an output.
  template <int N>
  static constexpr int begin = halo_values - Base::template halo_after<I>(layer<N>);

  /// Before the walk a layer has inputs of its own, not the outputs of the layer before it.
  template <int N>
  TCNCA_HOST_DEVICE void start(array<value, size>& in) const {
    constexpr int before = (Shape.taps - 1) * step<N>;
    if constexpr (base_start<N>() >= 0) {
      if (first >= before * stride) return;
      TCNCA_UNROLL
      for (int i = halo_values - before; i < halo_values; i++) {
        int const p = first + (i - halo_values) * stride;
        if (outputs >= before || Phase.chunks == 1 || p < 0) in[i] = load<1>(start_at<N>(p));
      }
    }
  }
  template <int N>
  TCNCA_HOST_DEVICE static constexpr int base_start() {
    return Plan.start_offset[layer<N> - Base::first_layer];
  }
  template <int N>
  TCNCA_HOST_DEVICE A const* start_at(int p) const {
    return base.shared + base_start<N>() + int(Shape.history(layer<N>)) + p;
  }
  template <int N>
  TCNCA_HOST_DEVICE void advance(array<array<value, size>, layers + 1>& x, int i, parameters const& w) const {
    if (i >= begin<N>) x[N + 1][i] = layer_output<Shape, step<N>>(x[N], i, w.taps, w.bias);
  }

  /// One value after another through all layers: x[n][i] is an input of layer n of the phase.
  TCNCA_HOST_DEVICE void run_by_outputs(bool starts) const {
    array<array<value, size>, layers + 1> x;
    array<parameters, max_of(layers, 1)> w;
    unroll<0, layers>([&](auto n) TCNCA_INLINE { w[n] = parameters(base, layer<decltype(n)::value>); });
    TCNCA_UNROLL
    for (int i = 0; i < size; i++) {
      if (i % load_step == 0) {
        auto const v = load_at(i);
        TCNCA_UNROLL
        for (int e = 0; e < load_step; e++) x[0][i + e] = {v.lane(e)};
      }
      if (i == halo_values && starts) unroll<0, layers>([&](auto n) TCNCA_INLINE { start<decltype(n)::value>(x[n]); });
      unroll<0, layers>([&](auto n) TCNCA_INLINE { advance<decltype(n)::value>(x, i, w[n]); });
      int const j = i - halo_values + 1 - store_step;
      if (j < 0 || j % store_step != 0) continue;
      pack<A, store_step> y;
      TCNCA_UNROLL
      for (int e = 0; e < store_step; e++) y.set_lane(e, x[layers][halo_values + j + e].lane(0));
      store_at(j, y);
    }
  }
  /// One tap after another for all outputs of a phase of one layer, whose taps do not fit in registers.
  template <bool Starts>
  TCNCA_HOST_DEVICE void run_by_taps() const {
    static_assert(layers == 1 && step<0> == 1);
    array<value, size> x;
    array<value, outputs> sum;
    auto const load_values = [&](int i) TCNCA_INLINE {
      auto const v = load_at(i);
      TCNCA_UNROLL
      for (int e = 0; e < load_step; e++) {
        int const p = first + (i + e - halo_values) * stride;
        x[i + e] = {v.lane(e)};
        if (Starts && i < halo_values && p < 0 && i + e > halo_values - Shape.taps) x[i + e] = load<1>(start_at<0>(p));
      }
    };
    value const bias = {Shape.bias ? *base.bias(layer<0>) : A(0)};
    TCNCA_UNROLL
    for (int j = 0; j < outputs; j++) {
      if (j % load_step == 0) load_values(halo_values + j);
      sum[j] = bias;
    }
    TCNCA_UNROLL
    for (int k = 0; k < padded_taps; k += Base::vector) {
      auto const w = load<Base::vector>(const_cast<A const*>(base.weight(layer<0>, k)));
      TCNCA_UNROLL
      for (int e = 0; e < Base::vector; e++) {
        int const i = halo_values - (k + e);  // the newest input of output 0 for this tap
        if (k + e >= Shape.taps) break;
        if (k + e > 0 && i % load_step == load_step - 1) load_values(i + 1 - load_step);
        TCNCA_UNROLL
        for (int j = 0; j < outputs; j++) sum[j] = fma(value{w.lane(e)}, x[i + j], sum[j]);
      }
    }
    TCNCA_UNROLL
    for (int j = 0; j < outputs; j += store_step) {
      pack<A, store_step> y;
      TCNCA_UNROLL
      for (int e = 0; e < store_step; e++)
        y.set_lane(e, layer_activation<Shape>(sum[j + e], x[halo_values + j + e]).lane(0));
      store_at(j, y);
    }
  }
};

}  // namespace tcnca::detail
