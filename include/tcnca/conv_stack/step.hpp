// The step kernel for short calls. Each sample reads only the taps that it needs from the state and stores its own
// inputs there: layers * taps multiply-adds per sample and channel, however long the receptive field is.
#pragma once
#include "../block/activation.hpp"
#include "../block/agent.hpp"
#include "../block/sequence_lanes.hpp"
#include "plan.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of a short causal forward pass, with the state in state_out. Takes the parameters of the forward agent without
/// a plan; results have the same bits. An item is one pack of channels of one sequence per thread.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_step_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_forward_params<T, Shape.layers()>;
  static constexpr bool along_length = Shape.order == layout::batch_channels_length;
  static constexpr lanes Lanes{along_length ? 1 : Policy.width, 1, false};
  using value = pack<A, Lanes.width>;

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE conv_stack_step_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  /// Packs of channels of all sequences.
  TCNCA_HOST_DEVICE static constexpr index_t packs(params_type const& p) {
    return p.x.extent[0] * divide_up(p.x.extent[1], index_t(Lanes.width));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return divide_up(packs(p), index_t(Group::size()));
  }
  static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const i = item * Group::size() + group.rank(), groups = divide_up(params.x.extent[1], index_t(Lanes.width));
    if (i >= packs(params)) return;
    index_t const batch = i / groups, channel = i % groups * Lanes.width;
    if (params.state_in.data != params.state_out.data) copy_state(batch, channel);
    for (index_t t = 0; t < params.x.extent[2]; t++) step(batch, channel, t);
  }

 private:
  template <class U>
  TCNCA_HOST_DEVICE auto lanes_of(sequence_view<U> const& v, index_t batch, index_t channel) const {
    return sequence_lanes<U, Lanes>(v, batch, channel, Lanes.width == 1 || params.all_vectorizable);
  }
  /// The parameters of a pack of channels.
  TCNCA_HOST_DEVICE value load_channels(T const* p, index_t stride, index_t channel) const {
    index_t const n = min_of(index_t(Lanes.width), params.x.extent[1] - channel);
    if (params.all_vectorizable && stride == 1 && n == Lanes.width) return load<Lanes.width>(p);
    return load_some<Lanes.width>(p, stride, n);
  }

  TCNCA_HOST_DEVICE void copy_state(index_t batch, index_t channel) const {
    auto const to = lanes_of(params.state_out, batch, channel);
    bool const state = params.state_in.present();
    for (index_t s = 0; s < Shape.receptive_field() - 1; s++)
      to.store(s, 0, 1, state ? lanes_of(params.state_in, batch, channel).load(s, 0, 1) : broadcast<Lanes.width>(A(0)));
  }

  /// One sample through all layers.
  TCNCA_HOST_DEVICE void step(index_t batch, index_t channel, index_t t) const {
    auto const x = lanes_of(params.x, batch, channel);
    auto const state = lanes_of(params.state_out, batch, channel);
    value const in = x.load(t, 0, 1);
    value a = in, residual = in;
    for (int l = 0; l < Shape.layers(); l++) {
      if (Shape.starts_residual(l)) residual = a;
      value sum = broadcast<Lanes.width>(A(0));
      if constexpr (Shape.bias) { sum = load_channels(params.bias.at(l, channel), params.bias.stride[1], channel); }
      index_t const d = Shape.dilation(l), history = Shape.history(l), ring = Shape.history_before(l);
      index_t const now = history > 0 ? (params.position + t) % history : 0;
      for (int k = 0; k < Shape.taps; k++) {
        index_t const slot = now - k * d;
        value const tap = k == 0 ? a : state.load(ring + (slot < 0 ? slot + history : slot), 0, 1);
        sum = fma(load_channels(params.weight.at(l, k, channel), params.weight.stride[2], channel), tap, sum);
      }
      if (history > 0) state.store(ring + now, 0, 1, a);
      a = activate<Shape.act>(sum).value;
      if (Shape.ends_residual(l)) a = a + residual;
    }
    if constexpr (Shape.skip) {
      value const omega = load_channels(params.omega.at(channel), params.omega.stride[0], channel);
      a = activate<activation::silu>(fma(omega, in, a)).value;
    }
    lanes_of(params.y, batch, channel).store(t, 0, 1, a);
  }
};

}  // namespace tcnca
