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
  A* sums = nullptr;  ///< [item][gradient of gq, mq, gk, mk][column, padded to whole packs]
  pass_access access = {};
};

/// One item: the gradients of its rows of z, and its sums for the gradients of the parameters.
template <class Group, element T, gated_fusion_policy Policy>
struct mix_backward_agent : detail::elementwise_pass<Group, T, with_parameters(Policy)> {
  using base = detail::elementwise_pass<Group, T, with_parameters(Policy)>;
  using typename base::A, typename base::value;
  using base::group, base::W;
  using params_type = mix_backward_params<T>;
  static constexpr int kinds = 4;  // of parameters

  static constexpr int blocks_per_multiprocessor = base::fewer_blocks;
  static constexpr int inputs = 3;

  params_type const& params;
  A* shared_memory;  // partial sums [kind][row group][column, padded to whole packs]
  TCNCA_HOST_DEVICE mix_backward_agent(Group g, params_type const& p, A* shared, A*)
      : base{g, p.access}, params(p), shared_memory(shared) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) { return base::items_of(params.z); }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const& params) {
    int const columns = int(params.z.extent[2]);
    return {.shared_memory_bytes =
                size_t(kinds * base::row_groups(columns)) * size_t(round_up(columns, W)) * sizeof(A)};
  }
  /// Numbers in params.sums for each item.
  TCNCA_HOST_DEVICE static constexpr index_t sums_per_item(params_type const& params) {
    return kinds * round_up(params.z.extent[2], index_t(W));
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    int const columns = int(params.z.extent[2]), padded = round_up(columns, W);
    int const row_groups = base::row_groups(columns);
    if constexpr (base::one_thread) {
      for (int i = 0; i < kinds * padded; i += W) tcnca::store<W>(shared_memory + i, broadcast<W>(A(0)));
    }
    this->process(*this, item, params.z);
    group.sync();
    // The sums over the row groups; the padding has sums of zero.
    constexpr int part = base::one_thread ? W : min_of(W, int(16 / sizeof(A)));
    A* const totals = params.sums + item * kinds * padded;
    for (int i = group.rank() * part; i < kinds * padded; i += group.size() * part) {
      A const* const first = shared_memory + i / padded * row_groups * padded + i % padded;
      auto total = tcnca::load<part>(first);
      for (int r = 1; r < row_groups; r++) total = total + tcnca::load<part>(first + r * padded);
      tcnca::store<part>(totals + i, total);
    }
    group.sync();  // the next item reuses the memory
  }

  struct columns_state {
    value gq, gk;
    detail::array<value, kinds> sums;
  };
  struct input_rows {
    T const *z, *grad_q, *grad_k;
  };
  template <class V>
  struct input {
    V z, grad_q, grad_k;
  };
  TCNCA_HOST_DEVICE input_rows sources(index_t b, index_t t) const {
    return {params.z.at(b, t, 0), params.grad_q.at(b, t, 0), params.grad_k.at(b, t, 0)};
  }
  TCNCA_HOST_DEVICE T* targets(index_t b, index_t t) const { return params.grad_z.at(b, t, 0); }
  TCNCA_HOST_DEVICE columns_state begin(auto c) const {
    columns_state s{base::load(params.gq, c), base::load(params.gk, c), {}};
    unroll<0, kinds>([&](auto n) TCNCA_INLINE {
      if constexpr (base::one_thread) {
        s.sums[n] = tcnca::load<W>(const_cast<A const*>(sums_at(n, c.first)));
      } else {
        s.sums[n] = broadcast<W>(A(0));
      }
    });
    return s;
  }
  TCNCA_HOST_DEVICE void end(auto c, columns_state const& s) const {
    unroll<0, kinds>([&](auto n) TCNCA_INLINE { tcnca::store<W>(sums_at(n, c.first), s.sums[n]); });
  }
  TCNCA_HOST_DEVICE auto read(input_rows from, auto c) const {
    return input<decltype(base::load(from.z, c))>{base::load(from.z, c), base::load(from.grad_q, c),
                                                  base::load(from.grad_k, c)};
  }
  TCNCA_HOST_DEVICE void write(index_t, index_t, T* grad_z, auto c, columns_state& s, auto const& in) const {
    value const grad_q = in.grad_q, grad_k = in.grad_k;
    auto const z = activate<activation::silu>(value(in.z));
    if (params.grad_z.present()) this->store(grad_z, c, fma(s.gq, grad_q, s.gk * grad_k) * z.derivative);
    value const one = broadcast<W>(A(1));
    s.sums[0] = fma(z.value, grad_q, s.sums[0]), s.sums[1] = fma(one, grad_q, s.sums[1]);
    s.sums[2] = fma(z.value, grad_k, s.sums[2]), s.sums[3] = fma(one, grad_k, s.sums[3]);
  }

 private:
  TCNCA_HOST_DEVICE A* sums_at(int kind, int column) const {
    int const columns = int(params.z.extent[2]), row_group = group.rank() / base::threads_per_row(columns);
    return shared_memory + (kind * base::row_groups(columns) + row_group) * round_up(columns, W) + column;
  }
};

template <class A>
struct mix_reduce_params {
  A const* sums = nullptr;  ///< as in mix_backward_params
  index_t columns = 0;
  index_t items = 0;          ///< of the mix_backward_agent
  index_t sums_per_item = 0;  ///< of the mix_backward_agent
  tensor_view<A, 1> grad_gq = {}, grad_mq = {}, grad_gk = {}, grad_mk = {};
};

/// Adds the sums of all items in fp64, in a fixed order, for the gradients that are present. One item: a block of
/// columns of one parameter's gradient. One
/// thread adds in the order of the items. In a larger group `slices` threads share a column, each with every slices-th
/// item; then one adds their sums.
template <class Group, element T, gated_fusion_policy Policy>
struct mix_reduce_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = mix_reduce_params<A>;
  static constexpr bool one_thread = Group::size() == 1;
  static constexpr int block = one_thread ? 64 : min_of(16, Group::size());
  static constexpr int slices = one_thread ? 1 : Group::size() / block;
  static constexpr int loads = 8;  // of a thread in flight

  Group group;
  params_type const& params;
  double* slice_sums;  // [slice][column]
  TCNCA_HOST_DEVICE mix_reduce_agent(Group g, params_type const& p, A* shared, A*)
      : group(g), params(p), slice_sums(reinterpret_cast<double*>(shared)) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) {
    return 4 * divide_up(params.columns, index_t(block));
  }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) {
    return {.shared_memory_bytes = one_thread ? 0 : size_t(slices * block) * sizeof(double)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const columns = params.columns, kind = item % 4, first = item / 4 * block;
    auto const& gradient = kind == 0   ? params.grad_gq
                           : kind == 1 ? params.grad_mq
                           : kind == 2 ? params.grad_gk
                                       : params.grad_mk;
    if (!gradient.present()) return;
    A const* const sums = params.sums + kind * (params.sums_per_item / 4);
    index_t const last = min_of(columns, first + block);
    if constexpr (one_thread) {
      constexpr int W = Policy.width;  // columns that it adds up at the same time
      for (index_t c = first; c < last; c += W) {
        detail::array<double, W> total = {};
        for (index_t i = 0; i < params.items; i++)
          for (int w = 0; w < W; w++) total[w] += double(sums[i * params.sums_per_item + c + w]);  // may read padding
        for (int w = 0; w < W && c + w < last; w++) *gradient.at(c + w) = A(total[w]);
      }
    } else {
      int const column = group.rank() % block, slice = group.rank() / block;
      if (slice < slices && first + column < last) {
        double total = 0;
        for (index_t i = slice; i < params.items; i += loads * slices) {
          detail::array<A, loads> part;
          unroll<0, loads>([&](auto n) {
            index_t const at = i + n * slices;
            part[n] = at < params.items ? sums[at * params.sums_per_item + first + column] : A(0);
          });
          unroll<0, loads>([&](auto n) { total += double(part[n]); });
        }
        slice_sums[slice * block + column] = total;
      }
      group.sync();
      if (slice == 0 && first + column < last) {
        double total = 0;
        for (int s = 0; s < slices; s++) total += slice_sums[s * block + column];
        *gradient.at(first + column) = A(total);
      }
      group.sync();  // the next item reuses the memory
    }
  }
};

}  // namespace tcnca
