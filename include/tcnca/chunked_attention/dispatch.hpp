// Which agents do an attention on an executor, as its tuning says.
#pragma once
#include <type_traits>

#include "../launch/executor_traits.hpp"
#include "mma_forward.hpp"
#include "mma_scores.hpp"
#include "reduce.hpp"
#include "rotary_bias.hpp"
#include "step.hpp"
#include "wgmma_forward.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {
/// The agents of an attention as tuned for an executor.
template <element T, chunked_attention_shape Shape, class Tuning, class Executor>
struct tuned_chunked_attention {
  using traits = executor_traits<Executor>;
  static constexpr chunked_attention_policy forward = Tuning::forward(traits::target);
  static constexpr chunked_attention_policy backward = Tuning::backward(traits::target);
  using forward_group = typename traits::template group<forward.threads>;
  using backward_group = typename traits::template group<backward.threads>;
  template <class Group>
  static constexpr bool on_tensor_cores(chunked_attention_policy p) {
    return p.tensor_cores && sizeof(T) == 2 && warp_of<Group>::exists && Group::size() == p.threads;
  }
  static constexpr bool tensor_cores = on_tensor_cores<forward_group>(forward),
                        backward_tensor_cores = on_tensor_cores<backward_group>(backward);
  using forward_agent =
      std::conditional_t<tensor_cores, chunked_attention_mma_forward_agent<forward_group, T, Shape, forward>,
                         chunked_attention_forward_agent<forward_group, T, Shape, forward>>;
  // Where it is supported; else the other.
  static constexpr bool clustered = tensor_cores && forward.cluster > 0;
  using cluster_agent = chunked_attention_wgmma_forward_agent<forward_group, T, Shape, forward>;
  using step_agent = chunked_attention_step_agent<forward_group, T, Shape, forward>;
  using state_agent = chunked_attention_state_agent<forward_group, T>;
  using backward_agent = chunked_attention_backward_agent<backward_group, T, Shape, backward>;
  using grad_values_agent = chunked_attention_mma_values_agent<backward_group, T, Shape, backward>;
  using grad_keys_agent = chunked_attention_mma_scores_agent<backward_group, T, Shape, backward, attention_side::keys>;
  using grad_queries_agent =
      chunked_attention_mma_scores_agent<backward_group, T, Shape, backward, attention_side::queries>;
  using grad_biases_agent = chunked_attention_mma_biases_agent<backward_group, T, Shape, backward>;
  using delta_agent = chunked_attention_delta_agent<backward_group, T, backward.width>;
  using reduce_agent = chunked_attention_reduce_agent<backward_group, T, Shape, backward>;
  using rotary_agent = rotary_bias_agent<forward_group, T>;
  using rotary_backward_agent = rotary_bias_backward_agent<forward_group, T>;
};
}  // namespace detail

}  // namespace tcnca
