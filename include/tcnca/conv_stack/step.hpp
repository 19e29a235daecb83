// The step kernel for short calls. Each sample reads only the taps that it needs from the state and stores its own
// inputs there: layers * taps multiply-adds per sample and channel, however long the receptive field is.
#pragma once
#include "../arch/opaque.hpp"
#include "../block/agent.hpp"
#include "../block/packed.hpp"
#include "../block/unroll.hpp"
#include "residual.hpp"
#include "state.hpp"
#include "tuning.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of the step kernel, common to all groups.
template <element T, int Layers, element Weight = T>
struct conv_stack_step_params {
  sequence_view<T const> x;
  tensor_view<Weight const, 3> weight;
  tensor_view<Weight const, 2> bias;
  tensor_view<Weight const, 1> omega;
  sequence_view<accumulate_t<T> const> state_in;
  sequence_view<T> y;
  sequence_view<accumulate_t<T>> state_out;
  conv_stack_slots<Layers> slots = {};
  sequence_table sequences = {};
  index_t step_limit = 0;  // see use_step_kernel()
};

namespace detail {

/// A layer's part of a state, in slots.
struct layer_slots {
  index_t first;
  uint32 dilation, history;
  template <conv_stack_shape Shape>
  TCNCA_HOST_DEVICE static constexpr layer_slots of(int l) {
    return {Shape.history_before(l), uint32(Shape.dilation(l)), uint32(Shape.history(l))};
  }
};
template <conv_stack_shape Shape>
struct layer_slots_table {
  array<layer_slots, Shape.layers()> at = {};
  constexpr layer_slots_table() {
    for (int l = 0; l < Shape.layers(); l++) at[l] = layer_slots::of<Shape>(l);
  }
};
template <conv_stack_shape Shape>
inline constexpr layer_slots_table<Shape> step_layers;

}  // namespace detail

/// Agent of a short causal forward pass, with the state in state_out. Results have the bits of the forward agent. A
/// pack is several channels of one sequence, in any layout; on a GPU it is one channel. An item is one pack per thread
/// of a GPU, and on the CPU so many packs that a second thread is worth its start.
///
/// Bytes of state per sample and channel: layers * (taps - 1) elements read, `layers` elements written. If channels are
/// contiguous, neighbouring threads access neighbouring elements. If slots are contiguous, each element is a 32-byte
/// sector of its own where the dilation is 8 or more, and neighbouring samples of a call share these sectors. A state
/// that is not updated in place is copied first.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_step_agent {
  using A = accumulate_t<T>;
  using Weight = parameter_t<T, Shape.weights>;
  using group_type = Group;
  using params_type = conv_stack_step_params<T, Shape.layers(), Weight>;
  static constexpr int layers = Shape.layers(), taps = Shape.taps;
  static constexpr int blocks_per_multiprocessor = 4;
  static constexpr int width = Group::size() > 1 ? 1 : Policy.width;
  using value = pack<A, width>;

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE conv_stack_step_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  /// The parameters of a call with the arguments of conv_stack::forward. Sequences of step_limit positions or more are
  /// left to another kernel.
  template <class Args>
  static params_type make_params(Args const& args, sequence_table const& sequences, index_t step_limit) {
    return {.x = args.x,
            .weight = args.weight,
            .bias = args.bias,
            .omega = args.omega,
            .state_in = args.state_in,
            .y = args.y,
            .state_out = args.state_out,
            .slots = conv_stack_slots<layers>::template of<Shape>(args.position, 0),
            .sequences = sequences,
            .step_limit = step_limit};
  }
  TCNCA_HOST_DEVICE static constexpr index_t packs_per_sequence(params_type const& p) {
    return divide_up(p.x.extent[1], index_t(width));
  }
  /// Packs of channels of all sequences.
  TCNCA_HOST_DEVICE static constexpr index_t packs(params_type const& p) {
    return p.sequences.count * packs_per_sequence(p);
  }
  TCNCA_HOST_DEVICE static constexpr index_t packs_per_item(params_type const& p) {
    if (Group::size() > 1) return Group::size();
    index_t const terms = max_of(index_t(1), p.sequences.max_length) * layers * taps;  // of a pack
    return max_of(index_t(1), terms_per_item / terms);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return divide_up(packs(p), packs_per_item(p));
  }
  static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const first = item * packs_per_item(params), last = min_of(first + packs_per_item(params), packs(params));
    bool const in_place = params.state_in.data == params.state_out.data;
    if (slots_are_contiguous && !in_place) {
      for (index_t i = first; i < last; i++) copy_rows(channels_of(i));
      group.sync();
    }
    for (index_t i = first + group.rank(); i < last; i += group.size()) {
      some_channels const c = channels_of(i);
      if (!slots_are_contiguous && !in_place) copy_slots(c);
      detail::array<uint32, layers> slot;
      for (int l = 0; l < layers; l++) slot[l] = params.slots.begin[l];
      if (params.sequences.positions.present()) {
        auto const own = conv_stack_slots<layers>::template of<Shape>(c.place.position, 0);
        for (int l = 0; l < layers; l++) slot[l] = own.begin[l];
      }
      for (index_t t = c.place.begin; t < c.place.begin + c.place.length; t++) {
        value const in = load(params.x.at(c.place.batch, c.first, t), params.x.stride[1], c);
        store(params.y.at(c.place.batch, c.first, t), params.y.stride[1], c, step(in, slot, c));
      }
    }
  }

 private:
  /// On a GPU the old taps of several layers, up to this many, are loaded before the first sum: their addresses depend
  /// only on the position.
  static constexpr int max_preloaded = 24;
  static constexpr bool preloads = Group::size() > 1 && taps - 1 <= max_preloaded;
  /// The end of the layers from `first` on whose old taps are loaded together.
  TCNCA_HOST_DEVICE static constexpr int stage_end(int first) {
    return min_of(layers, first + max_of(1, max_preloaded / max_of(1, taps - 1)));
  }

  static constexpr bool slots_are_contiguous = Shape.order == layout::batch_channels_length;
  static constexpr index_t slots = Shape.receptive_field() - 1;
  /// Multiply-adds of packs, in an item on the CPU: a few microseconds.
  static constexpr index_t terms_per_item = 1024;

  /// The channels of a pack.
  struct some_channels {
    sequence_place place;  // of no length if another kernel takes the sequence
    index_t first, count;
    A* state;  // slot 0 of the first channel; null: the sequence has no state, or another kernel takes it
  };
  TCNCA_HOST_DEVICE some_channels channels_of(index_t i) const {
    index_t const per_sequence = packs_per_sequence(params), number = i / per_sequence,
                  first = (i - number * per_sequence) * width;
    some_channels c{params.sequences[number], first, min_of(index_t(width), params.x.extent[1] - first), nullptr};
    if (!use_step_kernel(c.place, params.step_limit)) c.place.length = 0;
    else if (c.place.slot >= 0) c.state = params.state_out.at(c.place.slot, first, 0);
    return c;
  }
  /// One element of each channel, `stride` elements apart.
  template <class U>
  TCNCA_HOST_DEVICE static value load(U const* p, index_t stride, some_channels const& c) {
    if constexpr (width == 1) {
      return tcnca::load<1>(p);
    } else {
      if (c.count < width) return load_few(p, stride, int(c.count));
      if (stride == 1) return tcnca::load<width>(p);
      detail::array<U, width> elements;
      unroll<0, width>([&](auto i) TCNCA_INLINE { elements[i] = p[i * stride]; });
      return tcnca::load<width>(elements);
    }
  }
  template <class U>
  TCNCA_HOST_DEVICE static void store(U* p, index_t stride, some_channels const& c, value v) {
    if constexpr (width == 1) {
      tcnca::store<1>(p, v);
    } else {
      if (c.count < width) return store_few(p, stride, int(c.count), v);
      if (stride == 1) return tcnca::store<width>(p, v);
      detail::array<U, width> elements;
      tcnca::store<width>(elements, v);
      unroll<0, width>([&](auto i) TCNCA_INLINE { p[i * stride] = elements[i]; });
    }
  }

  template <class U>
  TCNCA_NOINLINE static value load_few(U const* p, index_t stride, int n) {
    detail::array<U, width> elements = {};
    for (int i = 0; i < n; i++) elements[i] = p[i * stride];
    return tcnca::load<width>(elements);
  }
  template <class U>
  TCNCA_NOINLINE static void store_few(U* p, index_t stride, int n, value v) {
    detail::array<U, width> elements;
    tcnca::store<width>(elements, v);
    for (int i = 0; i < n; i++) p[i * stride] = elements[i];
  }

  /// Copies the state of a pack of channels from state_in, or sets it to zero; slots are contiguous. Called by all
  /// threads of the group; does not synchronize.
  TCNCA_HOST_DEVICE void copy_rows(some_channels const& c) const {
    bool const present = params.state_in.present();
    for (index_t i = 0; i < (c.state ? c.count : 0); i++) {
      A* const to = params.state_out.at(c.place.slot, c.first + i, 0);
      A const* const from = params.state_in.at(c.place.slot, c.first + i, 0);
      for (index_t s = group.rank(); s < slots; s += group.size()) to[s] = present ? from[s] : A(0);
    }
  }
  /// The same by one thread; channels are contiguous.
  TCNCA_HOST_DEVICE void copy_slots(some_channels const& c) const {
    bool const present = params.state_in.present();
    for (index_t s = 0; s < (c.state ? slots : 0); s++) {
      A const* const from = params.state_in.at(c.place.slot, c.first, s);
      store(params.state_out.at(c.place.slot, c.first, s), 1, c, present ? load(from, 1, c) : broadcast<width>(A(0)));
    }
  }

  TCNCA_HOST_DEVICE static detail::layer_slots slots_of(int l) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
    return detail::layer_slots::of<Shape>(l);  // `l` is a constant
#else
    return detail::step_layers<Shape>.at[l];
#endif
  }
  TCNCA_HOST_DEVICE A* state_at(some_channels const& c, int l, uint32 slot) const {
    return c.state + (slots_of(l).first + index_t(slot)) * params.state_out.stride[2];
  }
  /// Tap k > 0 of layer l, where the sample is in `slot` of the layer's ring.
  TCNCA_HOST_DEVICE value old_tap(some_channels const& c, int l, int k, uint32 slot) const {
    uint32 const delay = uint32(k) * slots_of(l).dilation;
    if (!c.state) return broadcast<width>(A(0));
    return load(state_at(c, l, slot < delay ? slot + slots_of(l).history - delay : slot - delay),
                params.state_out.stride[1], c);
  }
  /// Replaces the oldest input of layer l, in `slot`, by the input a. Advances the slot to the next sample's.
  TCNCA_HOST_DEVICE void store_input(int l, value a, some_channels const& c, uint32& slot) const {
    if (taps > 1 && c.state) store(state_at(c, l, slot), params.state_out.stride[1], c, a);
    slot = slot + 1 == slots_of(l).history ? 0 : slot + 1;
  }
  /// The output of layer l for the input a; old(k) is its tap k > 0. `residual` is updated where one starts.
  template <class Old>
  TCNCA_HOST_DEVICE value layer_output(int l, value a, value& residual, some_channels const& c, Old old) const {
    if (Shape.starts_residual(l)) residual = a;
    value sum = broadcast<width>(A(0));
    if constexpr (Shape.bias) { sum = load(params.bias.at(l, c.first), params.bias.stride[1], c); }
    Weight const* weight = params.weight.at(l, 0, c.first);
    sum = fma(load(weight, params.weight.stride[2], c), a, sum);
    auto const add = [&](auto k) TCNCA_INLINE {
      weight += params.weight.stride[1];
      sum = fma(load(weight, params.weight.stride[2], c), old(k), sum);
    };
    if constexpr (preloads) {
      unroll<1, taps>(add);
    } else {
#if defined(__CUDA_ARCH__)
#pragma unroll 16
#endif
      for (int k = 1; k < taps; k++) add(k);
    }
    return detail::activate_layer<Shape>(
               sum, [&](value v) TCNCA_INLINE { return Shape.ends_residual(l) ? v + residual : v; })
        .value;
  }

  /// One sample through all layers. Returns its output; advances the slots to the next sample.
  TCNCA_HOST_DEVICE value step(value in, detail::array<uint32, layers>& slot, some_channels c) const {
    c.first = detail::opaque(c.first);  // or the addresses of all weights stay in registers from sample to sample
    value a = in, residual = in;
    if constexpr (preloads) {
      run_stages<0>(a, residual, slot, c);
    } else {
      auto const run = [&](int l) TCNCA_INLINE {
        value const input = a;
        a = layer_output(l, a, residual, c, [&](int k) TCNCA_INLINE { return old_tap(c, l, k, slot[l]); });
        store_input(l, input, c, slot[l]);
      };
      if constexpr (Group::size() > 1) {
        unroll<0, layers>(run);
      } else {
        for (int l = 0; l < layers; l++) run(l);
      }
    }
    if constexpr (Shape.skip) {
      value const omega = load(params.omega.at(c.first), params.omega.stride[0], c);
      a = activate<activation::silu>(fma(omega, in, a)).value;
    }
    return a;
  }
  /// The layers from First on: replaces their input a by their output.
  template <int First>
  TCNCA_HOST_DEVICE void run_stages(value& a, value& residual, detail::array<uint32, layers>& slot,
                                    some_channels const& c) const {
    constexpr int last = stage_end(First), count = last - First;
    detail::array<value, count * taps> old;  // [layer][tap]
    unroll<0, count>([&](auto i) TCNCA_INLINE {
      unroll<1, taps>([&](auto k) TCNCA_INLINE { old[i * taps + k] = old_tap(c, First + i, k, slot[First + i]); });
    });
    // Nothing is stored before the last sum, so that the compiler may load the weights early, too.
    detail::array<value, count> input;
    unroll<0, count>([&](auto i) TCNCA_INLINE {
      input[i] = a;
      a = layer_output(First + i, a, residual, c, [&](auto k) TCNCA_INLINE { return old[i * taps + k]; });
    });
    unroll<0, count>([&](auto i) TCNCA_INLINE { store_input(First + i, input[i], c, slot[First + i]); });
    if constexpr (last < layers) { run_stages<last>(a, residual, slot, c); }
  }
};

}  // namespace tcnca
