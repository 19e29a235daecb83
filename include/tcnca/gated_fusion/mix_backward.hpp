// The backward pass of the mix: an element-wise gradient of z, and sums over all rows for the gradients of the
// parameters, in a fixed order.
#pragma once
#include "elementwise.hpp"

namespace tcnca::inline TCNCA_TARGET {

template <element T>
struct mix_backward_params {
  using A = accumulate_t<T>;
  tensor_view<T const, 3> z = {};
  tensor_view<A const, 1> gq = {}, gk = {};
  tensor_view<T const, 3> grad_q = {}, grad_k = {};
  tensor_view<T, 3> grad_z = {};
  A* sums = nullptr;  ///< [item][gradient of gq, mq, gk, mk][column]
  pass_access access = {};
};

/// One item: the gradients of its rows of z, and its sums for the gradients of the parameters.
template <class Group, element T, gated_fusion_policy Policy>
struct mix_backward_agent : detail::elementwise_pass<Group, T, Policy> {
  using base = detail::elementwise_pass<Group, T, Policy>;
  using typename base::A, typename base::value;
  using base::group, base::W;
  using params_type = mix_backward_params<T>;
  static constexpr int kinds = 4;  // of parameters

  params_type const& params;
  A* shared_memory;  // partial sums [kind][row group][column, padded to whole packs]
  TCNCA_HOST_DEVICE mix_backward_agent(Group g, params_type const& p, A* shared, A*)
      : base{g, p.access}, params(p), shared_memory(shared) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) { return base::items_of(params.z); }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const& params) {
    int const columns = int(params.z.extent[2]), row_groups = Group::size() / base::threads_per_row(columns);
    return {.shared_memory_bytes = size_t(kinds * row_groups) * size_t(round_up(columns, W)) * sizeof(A)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    index_t const length = p.z.extent[1];
    int const columns = int(p.z.extent[2]), padded = round_up(columns, W), threads = base::threads_per_row(columns);
    int const row_groups = Group::size() / threads, row_group = group.rank() / threads;
    auto const sum_at = [&](int kind, int column)
                            TCNCA_INLINE { return shared_memory + (kind * row_groups + row_group) * padded + column; };
    this->for_each_pack(columns, [&](auto c) TCNCA_INLINE {
      unroll<0, kinds>([&](auto n) TCNCA_INLINE { tcnca::store<W>(sum_at(n, c.first), broadcast<W>(A(0))); });
    });
    this->for_each_row(item, p.z.extent[0], length, columns, [&](index_t b, index_t t) TCNCA_INLINE {
      T const* const z_row = p.z.at(b, t, 0);
      T const *const grad_q_row = p.grad_q.at(b, t, 0), *const grad_k_row = p.grad_k.at(b, t, 0);
      T* const grad_z = p.grad_z.at(b, t, 0);
      this->for_each_pack(columns, [&](auto c) TCNCA_INLINE {
        auto const z = activate<activation::silu>(base::load(z_row, c));
        value const grad_q = base::load(grad_q_row, c), grad_k = base::load(grad_k_row, c);
        this->store(grad_z, c, fma(base::load(p.gq, c), grad_q, base::load(p.gk, c) * grad_k) * z.derivative);
        value const terms[kinds] = {grad_q * z.value, grad_q, grad_k * z.value, grad_k};
        unroll<0, kinds>([&](auto n) TCNCA_INLINE {
          A* const sum = sum_at(n, c.first);
          tcnca::store<W>(sum, tcnca::load<W>(const_cast<A const*>(sum)) + terms[n]);
        });
      });
    });
    group.sync();
    for (int i = group.rank(); i < kinds * columns; i += group.size()) {
      A total = 0;
      for (int r = 0; r < row_groups; r++)
        total += shared_memory[(i / columns * row_groups + r) * padded + i % columns];
      p.sums[item * kinds * columns + i] = total;
    }
    group.sync();  // the next item reuses the memory
  }
};

template <class A>
struct mix_reduce_params {
  A const* sums = nullptr;  ///< as in mix_backward_params
  index_t items = 0;        ///< of the mix_backward_agent
  tensor_view<A, 1> grad_gq = {}, grad_mq = {}, grad_gk = {}, grad_mk = {};
};

/// Adds the sums of all items in fp64, in the order of the items. One item: a block of columns of one parameter's
/// gradient.
template <class Group, element T>
struct mix_reduce_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = mix_reduce_params<A>;
  static constexpr index_t block = 64;

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE mix_reduce_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) {
    return 4 * divide_up(params.grad_gq.extent[0], block);
  }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const columns = params.grad_gq.extent[0], kind = item % 4;
    auto const& gradient = kind == 0   ? params.grad_gq
                           : kind == 1 ? params.grad_mq
                           : kind == 2 ? params.grad_gk
                                       : params.grad_mk;
    for (index_t c = item / 4 * block + group.rank(); c < min_of(columns, (item / 4 + 1) * block); c += group.size()) {
      double total = 0;
      for (index_t i = 0; i < params.items; i++) total += double(params.sums[(i * 4 + kind) * columns + c]);
      *gradient.at(c) = A(total);
    }
  }
};

}  // namespace tcnca
