// An agent for sequences that are packed one after another, or whose states and positions are given in tables: it runs
// the agent of one sequence on each of them.
#pragma once
#include "../core/sequences.hpp"
#include "agent.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of packed_agent.
template <class Params>
struct packed_params {
  Params all;  ///< of the agent: the tensors of the call; extents, items and memory of one sequence of max_length
  sequence_table sequences;
  index_t shortest = 0, longest = 0;  ///< other lengths are left to another kernel
  index_t step_limit = 0;             ///< so are the sequences that use_step_kernel() takes
};

/// Whether the kernel of short calls, which works in the memory of the state, takes a sequence. Lengths from step_limit
/// on are left to others.
TCNCA_HOST_DEVICE constexpr bool use_step_kernel(sequence_place const& s, index_t step_limit) {
  return s.length < step_limit && (s.slot >= 0 || s.length <= 1);
}

/// Runs Agent on each sequence of a table, with the bits of a launch for that sequence alone. A group keeps a copy of
/// the agent's parameters, in which it replaces what depends on the sequence.
///
/// Of::select(params, all, place) does that: `params` is the copy, `all` is packed_params::all. Called by one thread.
/// Of::sequences_first: neighbouring items are neighbouring sequences, not the items of one sequence.
template <class Agent, class Of>
struct packed_agent {
  using A = typename Agent::A;
  using group_type = typename Agent::group_type;
  using inner_params = typename Agent::params_type;
  using params_type = packed_params<inner_params>;
  static constexpr int blocks_per_multiprocessor = [] {
    if constexpr (requires { Agent::blocks_per_multiprocessor; }) {
      return Agent::blocks_per_multiprocessor;
    } else {
      return 1;
    }
  }();

  TCNCA_HOST_DEVICE packed_agent(group_type g, params_type const& p, A* shared, A* scratch)
      : group_(g), params_(p), shared_(shared), scratch_(scratch) {
    if constexpr (in_shared_memory) {
      // The first item starts with a barrier.
      auto const* const from = reinterpret_cast<unsigned const*>(&p.all);
      auto* const to = reinterpret_cast<unsigned*>(shared);
      for (int i = g.rank(); i < int(sizeof(inner_params) / sizeof(unsigned)); i += g.size()) to[i] = from[i];
      shared_ = shared + copy_bytes / sizeof(A);
    } else {
      own_ = p.all;
    }
  }

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.sequences.count * Agent::items(p.all);
  }
  static constexpr group_memory memory(params_type const& p) {
    group_memory m = Agent::memory(p.all);
    m.shared_memory_bytes += copy_bytes;
    return m;
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const each = Agent::items(params_.all),
                  number = Of::sequences_first ? item % params_.sequences.count : item / each,
                  inner = Of::sequences_first ? item / params_.sequences.count : item % each;
    inner_params& own = copy();
    if (number != selected_) {
      sequence_place const place = params_.sequences[number];
      selected_ = number;
      skipped_ = place.length < params_.shortest || place.length > params_.longest ||
                 use_step_kernel(place, params_.step_limit);
      if (!skipped_) {
        group_.sync();  // the previous item no longer reads its parameters
        if (group_.rank() == 0) Of::select(own, params_.all, place);
        group_.sync();
      }
    }
    // A short sequence has fewer segments than the longest one.
    if (!skipped_ && inner < Agent::items(own)) Agent(group_, own, shared_, scratch_)(inner);
  }

 private:
  static constexpr bool in_shared_memory = group_type::size() > 1;
  static_assert(!in_shared_memory || sizeof(inner_params) % sizeof(unsigned) == 0);
  static_assert(!in_shared_memory || sizeof(inner_params) <= 2048,
                "attention on tensor cores leaves 2048 bytes for it");
  static constexpr size_t copy_bytes = in_shared_memory ? round_up(size_t(sizeof(inner_params)), size_t(128)) : 0;
  struct nothing {};
  template <bool Keep, class P>
  struct choose {
    using type = P;
  };
  template <class P>
  struct choose<false, P> {
    using type = nothing;
  };

  group_type group_;
  params_type const& params_;
  A *shared_, *scratch_;
  index_t selected_ = -1;
  bool skipped_ = false;
  [[no_unique_address]] typename choose<!in_shared_memory, inner_params>::type own_;

  TCNCA_HOST_DEVICE inner_params& copy() {
    if constexpr (in_shared_memory) {
      return *reinterpret_cast<inner_params*>(reinterpret_cast<char*>(shared_) - copy_bytes);
    } else {
      return own_;
    }
  }
};

}  // namespace tcnca
