// The skip connection of a stack, y = silu(stack(x) + omega x), as a pass over memory after those of the layers.
#pragma once
#include "../block/activation.hpp"
#include "../block/agent.hpp"
#include "../block/pack.hpp"
#include "../core/tensor.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {

/// Packs of a sequence along its contiguous axis. A line is a channel or a position: all elements along that axis. On a
/// GPU a pack is 16 bytes of T.
template <class Group, element T, layout Order>
struct line_packs {
  using A = accumulate_t<T>;
  static constexpr bool along_length = Order == layout::batch_channels_length;
  static constexpr int width = Group::size() == 1 ? native_lanes<A> : int(16 / sizeof(T));
  using value = pack<A, width>;

  index_t lines, elements;  // lines of a sequence, elements of a line
  bool vectorizable;        // complete packs may be accessed as vectors

  template <class U>
  TCNCA_HOST_DEVICE constexpr line_packs(sequence_view<U> const& v, bool aligned)
      : lines(v.extent[along_length ? 1 : 2]), elements(v.extent[along_length ? 2 : 1]), vectorizable(aligned) {}

  TCNCA_HOST_DEVICE constexpr index_t per_line() const { return divide_up(elements, index_t(width)); }
  template <class U>
  TCNCA_HOST_DEVICE static U* at(sequence_view<U> const& v, index_t batch, index_t line, index_t first) {
    return along_length ? v.at(batch, line, first) : v.at(batch, first, line);
  }
  /// The elements [first, first + width) of a line; those after its end are zero.
  TCNCA_HOST_DEVICE value load(sequence_view<T const> const& v, index_t batch, index_t line, index_t first) const {
    T const* const from = at(v, batch, line, first);
    if (vectorizable && first + width <= elements) return tcnca::load<width>(from);
    return load_some<width>(from, 1, elements - first);
  }
  TCNCA_HOST_DEVICE void store(sequence_view<T> const& v, index_t batch, index_t line, index_t first, value x) const {
    T* const to = at(v, batch, line, first);
    if (vectorizable && first + width <= elements) tcnca::store<width>(to, x);
    else store_some<width>(to, 1, elements - first, x);
  }
  /// The parameters of the channels of these elements.
  template <element Weight>
  TCNCA_HOST_DEVICE value load_channels(tensor_view<Weight const, 1> const& v, index_t line, index_t first) const {
    if constexpr (along_length) {
      return broadcast<width>(to_accumulate(*v.at(line)));
    } else {
      if (v.stride[0] == 1 && first + width <= elements) return load_anywhere<width>(v.at(first));
      return load_some<width>(v.at(first), v.stride[0], elements - first);
    }
  }
};

}  // namespace detail

/// Parameters of conv_stack_skip_agent.
template <element T, element Weight = T>
struct conv_stack_skip_params {
  sequence_view<T const> x;
  tensor_view<Weight const, 1> omega;
  sequence_view<T> y;
  bool vectorizable = false;  // vectors of 16 bytes of x and y are aligned
};

/// Agent of y = silu(y + omega x), the last pass forward. In place on y. A non-finite element affects only its own
/// result. An item is a number of consecutive packs.
template <class Group, element T, conv_stack_shape Shape>
struct conv_stack_skip_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_skip_params<T, parameter_t<T, Shape.weights>>;
  using packs = detail::line_packs<Group, T, Shape.order>;
  static constexpr index_t packs_per_item = Group::size() == 1 ? 1024 : 8 * Group::size();

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE conv_stack_skip_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE static constexpr index_t count(params_type const& params) {
    packs const p(params.x, false);
    return params.x.extent[0] * p.lines * p.per_line();
  }
  static constexpr index_t items(params_type const& params) { return divide_up(count(params), packs_per_item); }
  static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    packs const p(params.x, params.vectorizable);
    index_t const per_line = p.per_line(), last = min_of(count(params), (item + 1) * packs_per_item);
    index_t i = item * packs_per_item + group.rank(), line = i / per_line, at = i % per_line, batch = line / p.lines;
    line -= batch * p.lines;
    index_t const line_step = Group::size() / per_line, step = Group::size() % per_line;
    for (; i < last; i += Group::size()) {
      index_t const first = at * p.width;
      auto const sum = fma(p.load_channels(params.omega, line, first), p.load(params.x, batch, line, first),
                           p.load(params.y, batch, line, first));
      p.store(params.y, batch, line, first, activate<activation::silu>(sum).value);
      at += step, line += line_step;
      if (at >= per_line) at -= per_line, line++;
      for (; line >= p.lines; line -= p.lines) batch++;
    }
  }
};

}  // namespace tcnca
