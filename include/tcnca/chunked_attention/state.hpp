// The state of an attention after a call. Its agent runs in a later launch, when every item has read the state before.
#pragma once
#include "../block/agent.hpp"
#include "../block/group.hpp"
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of the state agent, once for the keys and once for the values; the same for all groups.
template <element T>
struct chunked_attention_state_params {
  tensor_view<T const, 4> rows, before;  // of the sequence, and of the state before
  tensor_view<T, 4> after;
  index_t chunk = 1, position = 0;
};

/// Writes the state after a call: a copy, no barrier. Item: 64 slots of one head.
template <class Group, element T>
struct chunked_attention_state_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = chunked_attention_state_params<T>;
  static constexpr index_t block = 64;
  TCNCA_HOST_DEVICE static constexpr index_t end(params_type const& p) { return p.position + p.rows.extent[2]; }
  /// Absolute position of slot 0: the beginning of the last, incomplete chunk.
  TCNCA_HOST_DEVICE static constexpr index_t origin(params_type const& p) { return end(p) / p.chunk * p.chunk; }
  TCNCA_HOST_DEVICE static constexpr index_t blocks(params_type const& p) {
    return divide_up(end(p) - origin(p), block);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.after.extent[0] * p.after.extent[1] * blocks(p);
  }
  static group_memory memory(params_type const&) { return {}; }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_state_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    index_t const head = item / blocks(p) % p.after.extent[1], batch = item / blocks(p) / p.after.extent[1];
    index_t const retained = max_of(index_t(0), p.position - origin(p));  // slots [0, retained) keep their content
    index_t const begin = item % blocks(p) * block, end_of_block = min_of(begin + block, end(p) - origin(p));
    index_t const first = p.before.data == p.after.data ? max_of(begin, retained) : begin;
    int const count = int(max_of(index_t(0), end_of_block - first)), dim = int(p.after.extent[3]);
    for_each_pair(group, count, dim, [&](int r, int d) TCNCA_INLINE {
      index_t const slot = first + r;
      if (slot >= retained) {
        *p.after.at(batch, head, slot, d) = *p.rows.at(batch, head, origin(p) + slot - p.position, d);
      } else {
        *p.after.at(batch, head, slot, d) = *p.before.at(batch, head, slot, d);
      }
    });
  }
};

}  // namespace tcnca
