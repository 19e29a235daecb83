// The backward pass of the mix: an element-wise gradient, and sums over all rows for the parameters, in a fixed order.
#pragma once
#include "elementwise.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What the pass is given; the same for all groups.
template <element T>
struct mix_backward_params {
  using A = accumulate_t<T>;
  tensor_view<T const, 3> z;
  tensor_view<A const, 1> gq, gk;
  tensor_view<T const, 3> grad_q, grad_k;
  tensor_view<T, 3> grad_z;
  A* sums;  // [item][gq, mq, gk, mk][columns]
  pass_access how;
};

/// One item: some rows, their gradients, and their part in the sums.
template <class Group, element T, gated_fusion_policy Policy>
struct mix_backward_agent : detail::pass_group<Group, T, Policy> {
  using base = detail::pass_group<Group, T, Policy>;
  using typename base::A, typename base::value;
  using base::group, base::W;
  using params_type = mix_backward_params<T>;
  static constexpr int kinds = 4;
  static constexpr size_t shared_memory_elements(int columns) {
    return size_t(kinds * (Group::size() / base::across(columns))) * size_t(round_up(columns, W));
  }

  params_type const& params;
  A* shared_memory;
  TCNCA_HOST_DEVICE mix_backward_agent(Group g, params_type const& p, A* shared_memory, A*)
      : base{g, p.how}, params(p), shared_memory(shared_memory) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::items_for(p.z.extent[0] * p.z.extent[1]);
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    index_t const length = p.z.extent[1];
    int const columns = int(p.z.extent[2]), padded = round_up(columns, W), side = base::across(columns),
              down = Group::size() / side;
    A* const own = shared_memory +
                   group.rank() / side * padded;  // this thread's sums of kind n: at own + n * down * padded + column
    this->for_each_pack(columns, [&](auto c) TCNCA_INLINE {
      unroll<0, kinds>(
          [&](auto n) TCNCA_INLINE { tcnca::store<W>(own + int(n) * down * padded + c.first, broadcast<W>(A(0))); });
    });
    this->for_each_row(item, p.z.extent[0], length, columns, [&](index_t b, index_t t) TCNCA_INLINE {
      T const *const z = p.z.at(b, t, 0), *const from_q = p.grad_q.at(b, t, 0), *const from_k = p.grad_k.at(b, t, 0);
      T* const grad_z = p.grad_z.at(b, t, 0);
      this->for_each_pack(columns, [&](auto c) TCNCA_INLINE {
        auto const shared = activate<activation::silu>(base::load(z, c));
        value const grad_q = base::load(from_q, c), grad_k = base::load(from_k, c);
        this->store(grad_z, c, fma(base::load(p.gq, c), grad_q, base::load(p.gk, c) * grad_k) * shared.derivative);
        value const terms[kinds] = {grad_q * shared.value, grad_q, grad_k * shared.value, grad_k};
        unroll<0, kinds>([&](auto n) TCNCA_INLINE {
          A* const sum = own + int(n) * down * padded + c.first;
          tcnca::store<W>(sum, tcnca::load<W>(const_cast<A const*>(sum)) + terms[n]);
        });
      });
    });
    group.sync();
    for (int i = group.rank(); i < kinds * columns; i += group.size()) {
      A total = 0;
      for (int r = 0; r < down; r++) total += shared_memory[(i / columns * down + r) * padded + i % columns];
      p.sums[item * kinds * columns + i] = total;
    }
    group.sync();  // the next item reuses the memory
  }
};

/// Adds up the items' sums in their order. One item: some columns of one parameter's gradient.
template <class Group, element T>
struct mix_reduce_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  struct params_type {
    A const* sums;
    index_t items;
    tensor_view<A, 1> grad_gq, grad_mq, grad_gk, grad_mk;
  };
  static constexpr index_t block = 64;
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return 4 * divide_up(p.grad_gq.extent[0], block);
  }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE mix_reduce_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const columns = params.grad_gq.extent[0], kind = item % 4;
    auto const& to = kind == 0   ? params.grad_gq
                     : kind == 1 ? params.grad_mq
                     : kind == 2 ? params.grad_gk
                                 : params.grad_mk;
    for (index_t c = item / 4 * block + group.rank(); c < min_of(columns, (item / 4 + 1) * block); c += group.size()) {
      double total = 0;  // of many items
      for (index_t i = 0; i < params.items; i++) total += double(params.sums[(i * 4 + kind) * columns + c]);
      *to.at(c) = A(total);
    }
  }
};

}  // namespace tcnca
