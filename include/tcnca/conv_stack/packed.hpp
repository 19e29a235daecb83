// Calls whose sequences are packed, or whose states and positions are given in tables.
#pragma once
#include <type_traits>

#include "../block/packed.hpp"
#include "../launch/launch.hpp"
#include "state.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// What a sequence replaces in the parameters of an agent of the CPU, see packed_agent. The step kernel and the generic
/// kernels read the table themselves: on a GPU a packed call needs no kernels of its own.
template <conv_stack_shape Shape, class Agent>
struct conv_stack_packed_sequence {
  // Where the length is contiguous, the rows of neighbouring sequences are neighbours in memory.
  static constexpr bool sequences_first = Shape.order == layout::batch_channels_length;

  template <class Params>
  TCNCA_HOST_DEVICE static void select(Params& p, Params const& all, sequence_place const& s) {
    p.x = sequence_part(all.x, 2, s);
    if constexpr (requires { p.y; }) {
      p.y = sequence_part(all.y, 2, s);
      p.y_streaming = all.y_streaming && starts_at(s, all.y, 64 / sizeof(*all.y.data));
    } else {
      p.grad_y = sequence_part(all.grad_y, 2, s), p.grad_x = sequence_part(all.grad_x, 2, s);
      p.grad_x_streaming = all.grad_x_streaming && starts_at(s, all.grad_x, 64 / sizeof(*all.grad_x.data));
      p.sums = sequence_row(all.sums, s);
    }
    if constexpr (requires { p.segments; }) {
      p.segments = divide_up(max_of(s.length, index_t(1)), all.segment_length);
    }
    if constexpr (requires { p.state_in; }) {
      p.state_in = sequence_state(all.state_in, s);
      if constexpr (requires { p.state_out; }) {
        p.state_out = sequence_state(all.state_out, s);
      } else {
        p.grad_state_out = sequence_state(all.grad_state_out, s);
        p.grad_state_in = sequence_state(all.grad_state_in, s);
      }
      if (s.slot >= 0) p.slots = conv_stack_slots<Shape.layers()>::template of<Shape>(s.position, s.length);
    }
  }

 private:
  /// Whether the sequence starts at a multiple of so many elements.
  template <class T>
  TCNCA_HOST_DEVICE static bool starts_at(sequence_place const& s, sequence_view<T> const& v, index_t elements) {
    return s.begin * v.stride[2] % elements == 0;
  }
};

template <conv_stack_shape Shape, class Agent>
using conv_stack_packed_agent = packed_agent<Agent, conv_stack_packed_sequence<Shape, Agent>>;

/// The arguments of a call for one sequence of the greatest length, and the table of all sequences.
template <class Args>
struct conv_stack_one_sequence {
  Args one;
  sequence_table sequences;

  explicit conv_stack_one_sequence(Args const& all)
      : one(all), sequences(sequence_table::of(all, all.x.extent[0], all.x.extent[2])) {
    if constexpr (requires { one.y; }) {
      sequences.cut_to_longest(one.x, one.y);
    } else {
      sequences.cut_to_longest(one.x, one.grad_y, one.grad_x);
    }
  }
};

/// A forward call; Call is its conv_stack_forward_call. Up to three kernels are launched, each of which takes the
/// sequences of some lengths: the step kernel, on the CPU the kernel of short rows, and the walk, which is the generic
/// kernel or, on the CPU, that of vector/.
template <element T, conv_stack_shape Shape, class Call, class Args>
class conv_stack_packed_forward_call : conv_stack_one_sequence<Args>, Call {
 public:
  conv_stack_packed_forward_call(auto e, Args const& all)
      : one_sequence(all), Call(e, one_sequence::one, typename Call::only_walk{}), all_(all) {
    if (!walks()) return;
    walk_ = make_walk(1);
    split_ = walk_agent::items(walk_) < tuned::max_workers(e) ? make_walk(tuned::max_workers(e)) : walk_;
  }

  /// As conv_stack_forward_call::demand().
  workspace_bytes demand() const {
    if (!walks()) return {};
    workspace_bytes const whole = workspace_for<walk_agent>(this->executor_, walk_),
                          split = workspace_for<walk_agent>(this->executor_, split_);
    return {.least = whole.least, .all = max_of(whole.all, split.all)};
  }

  TCNCA_HIDDEN status launch(workspace scratch) const {
    status s;
    if (sequences.count == 0) return s;
    if (has_steps()) s = this->launch_steps(sequences);
    if constexpr (tuned::has_short_rows) {
      if (s.ok() && longest_row() > 0) {
        auto rows = short_agent::make_params(one, tuned::template is_streaming<Call::policy>(all_.y));
        rows.sequences = sequences;
        s = tcnca::launch<short_agent>(this->executor_, rows);
      }
    }
    if (!s.ok() || !walks()) return s;
    bool const in_place = one.state_out.present() && one.state_out.data == one.state_in.data;
    return tcnca::launch<walk_agent>(this->executor_, in_place ? walk_ : split_, scratch);
  }

 private:
  using one_sequence = conv_stack_one_sequence<Args>;
  using one_sequence::one, one_sequence::sequences;
  using typename Call::agent, typename Call::short_agent, typename Call::tuned;
  template <class Agent>
  using packed = conv_stack_packed_agent<Shape, Agent>;
  using walk_agent = std::conditional_t<tuned::forward_in_blocks, packed<agent>, agent>;
  using params = typename walk_agent::params_type;

  bool has_steps() const { return Shape.dir == direction::causal && one.state_out.given(); }
  /// The longest sequences of the kernel of short rows; 0: it takes none.
  index_t longest_row() const {
    if constexpr (tuned::has_short_rows) {
      if (!one.state_in.given() && !one.state_out.given()) return short_agent::longest;
    }
    return 0;
  }
  /// Whether there may be sequences that only the walk takes.
  bool walks() const {
    if (has_steps() && sequences.max_length < Call::step_limit)
      return sequences.slots.given() && sequences.max_length > 1;
    return sequences.max_length > longest_row();
  }

  params make_walk(index_t workers) const {
    index_t const count = max_of(index_t(1), sequences.count), limit = has_steps() ? Call::step_limit : 0;
    sequence_view<T const> all = all_.x;  // sequences of average length
    all.extent[0] = sequences.count, all.extent[2] = all_.x.extent[0] * all_.x.extent[2] / count;
    auto walk = this->make_params(divide_up(workers, count), all);
    if constexpr (tuned::forward_in_blocks) {
      walk.y_streaming = tuned::template is_streaming<Call::policy>(all_.y);
      return {.all = walk,
              .sequences = sequences,
              .shortest = longest_row() + 1,
              .longest = sequences.max_length,
              .step_limit = limit};
    } else {
      walk.x.extent[0] = sequences.count, walk.y_streaming = false;
      walk.sequences = sequences, walk.step_limit = limit;
      return walk;
    }
  }

  Args const& all_;
  params walk_, split_;  // whole sequences, and sequences split for all workers
};

/// A backward call; Call is its conv_stack_generic_backward. On the CPU the kernel of short rows runs if there are no
/// states, for the sequences that are short enough; the walk, as in the forward pass, takes the others.
template <element T, conv_stack_shape Shape, class Call, class Args>
class conv_stack_packed_backward_call : conv_stack_one_sequence<Args>, Call {
 public:
  conv_stack_packed_backward_call(auto e, Args const& all) : one_sequence(all), Call(e, one_sequence::one), all_(all) {}

  workspace_bytes demand() const {
    workspace_bytes need{.least = sums_bytes(), .all = sums_bytes()};
    auto const add = [&](workspace_bytes b) {
      need.least = max_of(need.least, b.least), need.all = max_of(need.all, b.all);
    };
    if constexpr (tuned::has_short_rows_backward) {
      if (longest_row() >= 0) add(workspace_for<short_agent>(this->executor_, short_rows({}), sums_bytes()));
    }
    if (walks()) add(workspace_for<walk_agent>(this->executor_, walk({}), sums_bytes()));
    return need;
  }

  TCNCA_HIDDEN status launch(workspace scratch) {
    auto const sums =
        contiguous(static_cast<accumulate_t<T>*>(scratch.data), sum_rows(), Shape.parameters(), one.x.extent[1]);
    workspace const rest = workspace_after(scratch, sums_bytes());
    status s;
    if constexpr (tuned::has_short_rows_backward) {
      if (longest_row() >= 0) s = tcnca::launch<short_agent>(this->executor_, short_rows(sums), rest);
    }
    auto of_walk = sums;  // after the rows of the kernel of short rows
    of_walk.data += (sums.extent[0] - sequences.count) * sums.stride[0];
    if (s.ok() && walks()) s = tcnca::launch<walk_agent>(this->executor_, walk(of_walk), rest);
    return s.ok() ? this->launch_reduce(sums) : s;
  }

 private:
  using one_sequence = conv_stack_one_sequence<Args>;
  using one_sequence::one, one_sequence::sequences;
  using typename Call::agent, typename Call::tuned;
  using short_agent = typename tuned::short_backward_agent;
  template <class Agent>
  using packed = conv_stack_packed_agent<Shape, Agent>;
  using walk_agent = std::conditional_t<tuned::backward_in_steps, packed<agent>, agent>;
  using sums_view = tensor_view<accumulate_t<T>, 3>;

  size_t sums_bytes() const {
    return workspace_part(size_t(saturating_multiply(sum_rows(), one.x.extent[1])),
                          size_t(Shape.parameters()) * sizeof(accumulate_t<T>));
  }
  /// The longest sequences of the kernel of short rows; -1: it takes none.
  index_t longest_row() const {
    if constexpr (tuned::has_short_rows_backward) {
      if (!one.state_in.given() && !one.grad_state_out.given()) return short_agent::longest;
    }
    return -1;
  }
  bool walks() const { return sequences.max_length > longest_row(); }

  bool streams() const { return tuned::template is_streaming<Call::policy>(all_.grad_x); }
  /// x with the number of sequences and their greatest length as its extents.
  sequence_view<T const> rows_of_x() const {
    auto x = one.x;
    x.extent[0] = sequences.count;
    return x;
  }
  /// Rows of partial sums: those of the kernel of short rows, then one for each sequence.
  index_t sum_rows() const {
    index_t rows = walks() ? sequences.count : 0;
    if constexpr (tuned::has_short_rows_backward) {
      if (longest_row() >= 0) rows += short_agent::partial_sums(rows_of_x());
    }
    return rows;
  }
  auto short_rows(sums_view const& sums) const {
    auto rows = short_agent::make_params(one, sums, streams());
    rows.x = rows_of_x(), rows.sequences = sequences;
    return rows;
  }
  typename walk_agent::params_type walk(sums_view const& sums) const {
    auto walk = this->make_params();
    walk.sums = sums;
    if constexpr (tuned::backward_in_steps) {
      walk.grad_x_streaming = streams();
      return {.all = walk, .sequences = sequences, .shortest = longest_row() + 1, .longest = sequences.max_length};
    } else {
      walk.x.extent[0] = sequences.count, walk.grad_x_streaming = false, walk.sequences = sequences;
      return walk;
    }
  }

  Args const& all_;
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
