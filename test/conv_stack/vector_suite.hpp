// What the suites of vector_*.cpp share: a check is a name and a body, so that one test runs those of all element
// types.
#pragma once
#include <functional>

#include "vector_problem.hpp"

namespace tcnca::testing {

struct vector_check {
  std::string name;
  std::function<void()> body;
  friend std::ostream& operator<<(std::ostream& out, vector_check const& c) { return out << c.name; }
};
using vector_checks = std::vector<vector_check>;
inline vector_checks joined(std::initializer_list<vector_checks> lists) {
  vector_checks all;
  for (vector_checks const& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}
inline std::string check_name(::testing::TestParamInfo<vector_check> const& info) { return info.param.name; }

/// Numbers of threads; with few rows they share sequences.
inline std::vector<int> const thread_counts{1, 2, 3, 7};

/// Lengths about vectors of 4 to 16 lanes, blocks of 8 vectors, and several blocks.
inline constexpr index_t vector_lengths[] = {0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 1000, 4097};

/// A state of more samples than this takes longer to compare than everything else.
inline constexpr index_t long_field = 20000;

/// Extents number i for a length: batches, channels that are no multiple of a width, states, positions and placements
/// in turn.
inline extents vector_extents(conv_stack_shape const& shape, index_t length, int i) {
  constexpr index_t channels[] = {1, 3, 17, 5, 8};
  bool const causal = shape.dir == direction::causal;
  return {.batch = 1 + i % 2,
          .channels = shape.receptive_field() > long_field ? 1 : channels[i % 5],
          .length = length,
          .position = i % 3 == 2 ? (index_t(1) << 40) + i : 7 * i,
          .state_in = causal && i % 4 % 2 == 1,
          .state_out = causal && i % 4 / 2 == 1,
          .where = {.padding = i % 3 * 5 % 7, .offset = i % 7}};
}

/// Random extents with at most about 200,000 multiply-adds a layer; any arguments that the shape allows.
inline extents random_vector_extents(conv_stack_shape const& shape, random_bits& r) {
  extents e;
  e.batch = between(r, 0, 12) == 0 ? 0 : between(r, 1, 3);
  e.channels = between(r, 0, 12) == 0 ? 0 : between(r, 0, 3) == 0 ? between(r, 8, 40) : between(r, 1, 7);
  if (shape.receptive_field() > long_field) e.batch = 1, e.channels = 1 + e.channels % 2;
  index_t const most = e.channels * e.batch > 12 ? 300 : 3000;
  e.length = between(r, 0, 3) == 0   ? between(r, 0, 4)
             : between(r, 0, 1) == 0 ? between(r, 0, 300)
                                     : between(r, 0, int(most));
  e.position = between(r, 0, 1) ? between(r, 0, 100000) : (index_t(1) << 40) + between(r, 0, 1000);
  e.state_in = shape.dir == direction::causal && between(r, 0, 1);
  e.state_out = shape.dir == direction::causal && between(r, 0, 1);
  if (between(r, 0, 1)) e.where = {between(r, 0, 20), between(r, 0, 20)};
  return e;
}

/// Gives a tensor the same elements everywhere along an axis, and returns it with a stride of 0 there.
template <class T, int Rank>
tensor_view<T, Rank> make_broadcast(tensor<T, Rank>& t, int axis) {
  auto view = t.view();
  view.stride[axis] = 0;
  std::vector<T> same;
  for (index_t i = 0; i < t.count(); i++) {
    index_t at = 0, rest = i;
    for (int r = Rank - 1; r >= 0; r--) at += rest % view.extent[r] * view.stride[r], rest /= view.extent[r];
    same.push_back(view.data[at]);
  }
  for (index_t i = 0; i < t.count(); i++) *t.at(i) = same[std::size_t(i)];
  return view;
}

/// Copies a tensor to one with other strides.
template <class T, int Rank>
tensor<T, Rank> reordered(tensor<T, Rank> const& t, int const (&order)[Rank], placement where) {
  tensor<T, Rank> to(t.view().extent, order, where);
  to.assign(t.values());
  return to;
}

/// The positions where infinities and NaNs are put: both ends, about a block, and one at random.
inline std::vector<index_t> special_positions(index_t length, random_bits& r) {
  std::vector<index_t> all{0, length - 1, length / 2, between(r, 0, int(length - 1))};
  if (length > 200) all.insert(all.end(), {127, 128, 129});
  return all;
}

}  // namespace tcnca::testing
