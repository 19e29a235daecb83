// The step kernel for short calls. Each sample reads only the taps that it needs from the state and stores its own
// inputs there: layers * taps multiply-adds per sample and channel, however long the receptive field is.
#pragma once
#include "../arch/opaque.hpp"
#include "../block/activation.hpp"
#include "../block/agent.hpp"
#include "../block/sequence_lanes.hpp"
#include "../block/unroll.hpp"
#include "state.hpp"
#include "tuning.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of the step kernel, common to all groups.
template <element T, int Layers>
struct conv_stack_step_params {
  sequence_view<T const> x;
  tensor_view<T const, 3> weight;
  tensor_view<T const, 2> bias;
  tensor_view<T const, 1> omega;
  sequence_view<accumulate_t<T> const> state_in;
  sequence_view<T> y;
  sequence_view<accumulate_t<T>> state_out;
  conv_stack_slots<Layers> slots = {};
  bool vectorizable = false;  // packs of every tensor may be accessed as vectors
};

/// Agent of a short causal forward pass, with the state in state_out. Results have the bits of the forward agent. An
/// item is one pack of channels of one sequence per thread; on a GPU a pack is one channel.
///
/// Bytes of state per sample and channel: layers * (taps - 1) elements read, `layers` elements written. If channels are
/// contiguous, neighbouring threads access neighbouring elements. If slots are contiguous, each element is a 32-byte
/// sector of its own where the dilation is 8 or more, and neighbouring samples of a call share these sectors. A state
/// that is not updated in place is copied first.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_step_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_step_params<T, Shape.layers()>;
  static constexpr int layers = Shape.layers(), taps = Shape.taps;
  static constexpr int blocks_per_multiprocessor = 4;
  static constexpr bool along_length = Shape.order == layout::batch_channels_length;
  static constexpr lanes Lanes{along_length || Group::size() > 1 ? 1 : Policy.width, 1, false};
  using value = pack<A, Lanes.width>;

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE conv_stack_step_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  /// The parameters of a call with the arguments of conv_stack::forward.
  template <class Args>
  static params_type make_params(Args const& args, bool vectorizable) {
    return {.x = args.x,
            .weight = args.weight,
            .bias = args.bias,
            .omega = args.omega,
            .state_in = args.state_in,
            .y = args.y,
            .state_out = args.state_out,
            .slots = conv_stack_slots<layers>::template of<Shape>(args.position, args.x.extent[2]),
            .vectorizable = vectorizable};
  }
  /// Packs of channels of all sequences.
  TCNCA_HOST_DEVICE static constexpr index_t packs(params_type const& p) {
    return p.x.extent[0] * divide_up(p.x.extent[1], index_t(Lanes.width));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return divide_up(packs(p), index_t(Group::size()));
  }
  static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const first = item * Group::size(), i = first + group.rank();
    bool const in_place = params.state_in.data == params.state_out.data;
    if (along_length && !in_place) copy_rows(first, min_of(first + Group::size(), packs(params)));
    if (i >= packs(params)) return;
    index_t const packs_per_sequence = divide_up(params.x.extent[1], index_t(Lanes.width)),
                  batch = i / packs_per_sequence, channel = i % packs_per_sequence * Lanes.width;
    if (!along_length && !in_place) copy_slots(batch, channel);
    sequence_lanes<T const, Lanes> const x(params.x, batch, channel, vectorizable());
    sequence_lanes<T, Lanes> const y(params.y, batch, channel, vectorizable());
    sequence_lanes<A, Lanes> const state(params.state_out, batch, channel, vectorizable());
    detail::array<uint32, layers> slot;
    for (int l = 0; l < layers; l++) slot[l] = params.slots.begin[l];
    for (index_t t = 0; t < params.x.extent[2]; t++) y.store(t, 0, 1, step(x.load(t, 0, 1), state, slot, channel));
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

  TCNCA_HOST_DEVICE bool vectorizable() const { return Lanes.width == 1 || params.vectorizable; }
  /// The parameters of a pack of channels.
  TCNCA_HOST_DEVICE value load_channels(T const* p, index_t stride, index_t channel) const {
    index_t const n = min_of(index_t(Lanes.width), params.x.extent[1] - channel);
    if (Lanes.width == 1 || (vectorizable() && stride == 1 && n == Lanes.width)) return load<Lanes.width>(p);
    return load_some<Lanes.width>(p, stride, n);
  }

  /// Copies the states of the rows [first, last) (batch, channel) from state_in, or sets them to zero. Slots are
  /// contiguous. Called by all threads of the group; ends with a barrier.
  TCNCA_HOST_DEVICE void copy_rows(index_t first, index_t last) const {
    index_t const channels = params.x.extent[1];
    index_t batch = first / channels, channel = first % channels;
    for (index_t row = first; row < last; row++) {
      A* const to = params.state_out.at(batch, channel, 0);
      A const* const from = params.state_in.at(batch, channel, 0);
      bool const present = params.state_in.present();
      for (index_t s = group.rank(); s < Shape.receptive_field() - 1; s += Group::size())
        to[s] = present ? from[s] : A(0);
      if (++channel == channels) channel = 0, batch++;
    }
    group.sync();
  }
  /// The same for a pack of channels of one sequence, by one thread. Channels are contiguous.
  TCNCA_HOST_DEVICE void copy_slots(index_t batch, index_t channel) const {
    sequence_lanes<A, Lanes> const to(params.state_out, batch, channel, vectorizable());
    sequence_lanes<A const, Lanes> const from(params.state_in, batch, channel, vectorizable());
    bool const present = params.state_in.present();
    for (index_t s = 0; s < Shape.receptive_field() - 1; s++)
      to.store(s, 0, 1, present ? from.load(s, 0, 1) : broadcast<Lanes.width>(A(0)));
  }

  /// Tap k > 0 of layer l, where the sample is in `slot` of the layer's ring.
  TCNCA_HOST_DEVICE static value old_tap(sequence_lanes<A, Lanes> const& state, int l, int k, uint32 slot) {
    uint32 const delay = uint32(k) * uint32(Shape.dilation(l)), history = uint32(Shape.history(l));
    return state.load(Shape.history_before(l) + index_t(slot < delay ? slot + history - delay : slot - delay), 0, 1);
  }
  /// Replaces the oldest input of layer l, in `slot`, by the input a. Advances the slot to the next sample's.
  TCNCA_HOST_DEVICE static void store_input(int l, value a, sequence_lanes<A, Lanes> const& state, uint32& slot) {
    if (taps > 1) state.store(Shape.history_before(l) + index_t(slot), 0, 1, a);
    slot = slot + 1 == uint32(Shape.history(l)) ? 0 : slot + 1;
  }
  /// The output of layer l for the input a; old(k) is its tap k > 0. `residual` is updated where one starts.
  template <class Old>
  TCNCA_HOST_DEVICE value layer_output(int l, value a, value& residual, index_t channel, Old old) const {
    if (Shape.starts_residual(l)) residual = a;
    value sum = broadcast<Lanes.width>(A(0));
    if constexpr (Shape.bias) { sum = load_channels(params.bias.at(l, channel), params.bias.stride[1], channel); }
    T const* weight = params.weight.at(l, 0, channel);
    sum = fma(load_channels(weight, params.weight.stride[2], channel), a, sum);
    auto const add = [&](auto k) TCNCA_INLINE {
      weight += params.weight.stride[1];
      sum = fma(load_channels(weight, params.weight.stride[2], channel), old(k), sum);
    };
    if constexpr (preloads) {
      unroll<1, taps>(add);
    } else {
#if defined(__CUDA_ARCH__)
#pragma unroll 16
#endif
      for (int k = 1; k < taps; k++) add(k);
    }
    value const output = activate<Shape.act>(sum).value;
    return Shape.ends_residual(l) ? output + residual : output;
  }

  /// One sample through all layers. Returns its output; advances the slots to the next sample.
  TCNCA_HOST_DEVICE value step(value in, sequence_lanes<A, Lanes> const& state, detail::array<uint32, layers>& slot,
                               index_t channel) const {
    channel = detail::opaque(channel);  // or the addresses of all weights stay in registers from sample to sample
    value a = in, residual = in;
    if constexpr (preloads) {
      run_stages<0>(a, residual, state, slot, channel);
    } else {
      auto const run = [&](int l) TCNCA_INLINE {
        value const input = a;
        a = layer_output(l, a, residual, channel, [&](int k) TCNCA_INLINE { return old_tap(state, l, k, slot[l]); });
        store_input(l, input, state, slot[l]);
      };
      if constexpr (Group::size() > 1) {
        unroll<0, layers>(run);
      } else {
        for (int l = 0; l < layers; l++) run(l);
      }
    }
    if constexpr (Shape.skip) {
      value const omega = load_channels(params.omega.at(channel), params.omega.stride[0], channel);
      a = activate<activation::silu>(fma(omega, in, a)).value;
    }
    return a;
  }
  /// The layers from First on: replaces their input a by their output.
  template <int First>
  TCNCA_HOST_DEVICE void run_stages(value& a, value& residual, sequence_lanes<A, Lanes> const& state,
                                    detail::array<uint32, layers>& slot, index_t channel) const {
    constexpr int last = stage_end(First), count = last - First;
    detail::array<value, count * taps> old;  // [layer][tap]
    unroll<0, count>([&](auto i) TCNCA_INLINE {
      unroll<1, taps>([&](auto k) TCNCA_INLINE { old[i * taps + k] = old_tap(state, First + i, k, slot[First + i]); });
    });
    // Nothing is stored before the last sum, so that the compiler may load the weights early, too.
    detail::array<value, count> input;
    unroll<0, count>([&](auto i) TCNCA_INLINE {
      input[i] = a;
      a = layer_output(First + i, a, residual, channel, [&](auto k) TCNCA_INLINE { return old[i * taps + k]; });
    });
    unroll<0, count>([&](auto i) TCNCA_INLINE { store_input(First + i, input[i], state, slot[First + i]); });
    if constexpr (last < layers) { run_stages<last>(a, residual, state, slot, channel); }
  }
};

}  // namespace tcnca
