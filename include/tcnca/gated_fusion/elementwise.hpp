// Element-wise passes over tensors [batch, length, columns]: every element is read once and written once. Their common
// part, and the passes mix and reset.
#pragma once
#include "../arch/opaque.hpp"
#include "../block/agent.hpp"
#include "../block/gate.hpp"
#include "../core/tensor.hpp"
#include "tuning.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How a pass accesses its tensors.
struct pass_access {
  bool vectorizable = false;             ///< full packs use vector accesses
  bool parameters_vectorizable = false;  ///< GPU: parameters of full packs use vector accesses
  bool streaming = false;  ///< vector stores are non-temporal (CPU): the outputs are aligned and larger than the caches
  /// Rows follow each other without gaps and no column has a parameter: an item's rows may be processed as one (CPU).
  bool joined_rows = false;
};

namespace detail {

/// The base of the passes: the rows and columns that each thread processes. A row is one position of one sequence.
/// threads_per_row threads share a row; the group processes row_groups rows at a time.
///
/// A pass reads `inputs` tensors and has, for a row (b, t) and a column_range c,
///   sources(b, t), targets(b, t)           where the row begins in its inputs and in its outputs
///   begin(c), end(c, state)                what belongs to the columns: parameters and sums
///   read(sources, c)                       the inputs of a pack
///   write(b, t, targets, c, state, input)  its outputs
template <class Group, element T, gated_fusion_policy Policy>
struct elementwise_pass {
  using A = accumulate_t<T>;
  using group_type = Group;
  static constexpr int W = Policy.width;
  static constexpr bool one_thread = Group::size() == 1;
  using value = pack<A, W>;
  static constexpr int blocks_per_multiprocessor = Policy.blocks_per_multiprocessor;
  static constexpr int fewer_blocks = max_of(1, blocks_per_multiprocessor - 1);  // of passes that need more registers

  Group group;
  pass_access access;

  /// At most 1024, or the policy's minimum if that is larger: it bounds the error of sums over the rows in A.
  TCNCA_HOST_DEVICE static constexpr index_t rows_per_item(index_t rows) {
    return max_of(Policy.rows, min_of(divide_up(rows, Policy.items), index_t(1024)));
  }
  /// Items of a pass over v; none if v is empty.
  template <class U>
  TCNCA_HOST_DEVICE static constexpr index_t items_of(tensor_view<U, 3> const& v) {
    index_t const rows = v.extent[0] * v.extent[1];
    return v.extent[2] == 0 ? 0 : divide_up(rows, rows_per_item(rows));
  }
  /// As few as cover a row in the least number of packs a thread.
  TCNCA_HOST_DEVICE static constexpr int threads_per_row(int columns) {
    int const packs = max_of(1, divide_up(columns, W));
    return divide_up(packs, divide_up(packs, Group::size()));
  }
  TCNCA_HOST_DEVICE static constexpr int row_groups(int columns) { return Group::size() / threads_per_row(columns); }

  /// Columns [first, first + count) of a row. Full: W columns that one vector access may load or store.
  template <bool Full>
  struct column_range {
    static constexpr bool full = Full;
    int first, count;
  };
  /// visit(column_range) for the columns of a row that this thread processes.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_pack(int columns, Visit visit) const {
    int const threads = threads_per_row(columns);
    int c = group.rank() % threads * W;
    if (access.vectorizable)
      for (; c + W <= columns; c += threads * W) visit(column_range<true>{c, W});
    for (; c < columns; c += threads * W) visit(column_range<false>{c, min_of(W, columns - c)});
  }

  /// Processes the item's rows, each thread its own, in rising order.
  template <class Pass>
  TCNCA_HOST_DEVICE void process(Pass& pass, index_t item, tensor_view<T const, 3> const& like) const {
    index_t const rows = like.extent[0] * like.extent[1], count = rows_per_item(rows);
    index_t const first = item * count, last = min_of(rows, first + count), length = like.extent[1];
    if constexpr (one_thread) {
      process_by_rows(pass, first, last, length, int(like.extent[2]));
    } else {
      process_by_columns(pass, first, last, length, int(like.extent[2]));
    }
  }

#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  /// A full pack as it lies in memory. It is converted where it is used: before, it takes fewer registers.
  struct loaded {
    using convert = detail::convert<value, T, W>;
    typename convert::elements elements;
    TCNCA_HOST_DEVICE operator value() const { return convert::widened(elements); }
  };
#endif
  template <bool Full>
  TCNCA_HOST_DEVICE static auto load(T const* row, column_range<Full> at) {
    if constexpr (Full) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
      return loaded{loaded::convert::load_elements(row + at.first)};
#else
      // Hardware prefetchers stop at the end of each page.
      prefetch(reinterpret_cast<char const*>(row + at.first) + Policy.prefetch_bytes);
      return tcnca::load<W>(row + at.first);
#endif
    } else {
      return load_some<W>(row + at.first, 1, at.count);
    }
  }
  template <bool Full>
  TCNCA_HOST_DEVICE void store(T* row, column_range<Full> at, value v) const {
    if constexpr (!Full) {
      store_some<W>(row + at.first, 1, at.count, v);
    } else {
      if (access.streaming) store_streaming<W>(row + at.first, v);
      else tcnca::store_global<W>(row + at.first, v);
    }
  }
  /// One parameter for each column.
  template <bool Full>
  TCNCA_HOST_DEVICE value load(tensor_view<A const, 1> const& v, column_range<Full> at) const {
    if constexpr (!one_thread) {
      if (Full && access.parameters_vectorizable) {
        constexpr int part = min_of(W, int(16 / sizeof(A)));
        value all;
        for (int i = 0; i < W; i += part) {
          auto const some = tcnca::load<part>(v.data + at.first + i);
          for (int j = 0; j < part; j++) all.set_lane(i + j, some.lane(j));
        }
        return all;
      }
    } else {
      if (v.stride[0] == 1 && at.count == W) return load_anywhere<W>(v.data + at.first);
    }
    return load_some<W>(v.at(at.first), v.stride[0], at.count);
  }

 private:
  /// One thread: it accesses memory in the order of the addresses.
  template <class Pass>
  TCNCA_HOST_DEVICE void process_by_rows(Pass& pass, index_t row, index_t last, index_t length, int columns) const {
    auto const process_row = [&](index_t b, index_t t, int n) TCNCA_INLINE {
      auto const sources = pass.sources(b, t);
      auto const targets = pass.targets(b, t);
      for_each_pack(n, [&](auto c) TCNCA_INLINE {
        auto state = pass.begin(c);
        pass.write(b, t, targets, c, state, pass.read(sources, c));
        pass.end(c, state);
      });
    };
    index_t b = row / length, t = row % length;
    if (access.joined_rows) {
      process_row(b, t, int(last - row) * columns);
    } else {
      for (; row < last; row++) {
        process_row(b, t, columns);
        if (++t == length) b++, t = 0;
      }
    }
    if (access.streaming) end_streaming();
  }

  /// Row number `row` of all, which is position t of sequence b.
  struct row_index {
    index_t row, b, t;
    TCNCA_HOST_DEVICE void advance(int rows, index_t length) {
      row += rows;
      for (t += rows; t >= length; t -= length) b++;
    }
  };
  /// Threads of a GPU: each keeps what belongs to its columns in registers, and reads several rows before it writes, so
  /// that several loads are in flight.
  template <class Pass>
  TCNCA_HOST_DEVICE void process_by_columns(Pass& pass, index_t first, index_t last, index_t length,
                                            int columns) const {
    int const step = row_groups(columns), row_group = group.rank() / threads_per_row(columns);
    index_t const row = first + row_group;
    if (row_group >= step) return;
    row_index const begin{row, row / length, row % length};
    for_each_pack(columns, [&](auto c) {
      constexpr int rows = decltype(c)::full && Policy.loads_in_flight > 1
                               ? min_of(max_of(Policy.loads_in_flight / Pass::inputs, 2), 4)
                               : 1;
      auto state = pass.begin(c);
      for (row_index at = begin; at.row < last;) {
        detail::array<decltype(pass.read(pass.sources(0, 0), c)), rows> input;
        row_index to = at;
        unroll<0, rows>([&](auto i) {
          input[i] = pass.read(pass.sources(at.b, at.t), c);
          if (at.row + step < last) at.advance(step, length);  // else the same row again, and not used
        });
        to.t = detail::opaque(to.t);  // or the compiler keeps the indices of all rows in registers
        unroll<0, rows>([&](auto i) {
          if (to.row < last) pass.write(to.b, to.t, pass.targets(to.b, to.t), c, state, input[i]);
          to.advance(step, length);
        });
        at = to;
      }
      pass.end(c, state);
    });
  }
};

/// The state of a pass whose columns have none.
struct no_state {};

}  // namespace detail

template <element T>
struct mix_params {
  using A = accumulate_t<T>;
  tensor_view<T const, 3> z = {};
  tensor_view<A const, 1> gq = {}, mq = {}, gk = {}, mk = {};
  tensor_view<T, 3> q = {}, k = {};
  pass_access access = {};
};

/// Queries and keys from the shared representation.
template <class Group, element T, gated_fusion_policy Policy>
struct mix_agent : detail::elementwise_pass<Group, T, with_parameters(Policy)> {
  using base = detail::elementwise_pass<Group, T, with_parameters(Policy)>;
  using typename base::A, typename base::value;
  using params_type = mix_params<T>;
  static constexpr int blocks_per_multiprocessor = base::fewer_blocks;
  static constexpr int inputs = 1;

  params_type const& params;
  TCNCA_HOST_DEVICE mix_agent(Group g, params_type const& p, A*, A*) : base{g, p.access}, params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) { return base::items_of(params.z); }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) { return {}; }
  TCNCA_HOST_DEVICE void operator()(index_t item) const { this->process(*this, item, params.z); }

  struct parameters {
    value gq, mq, gk, mk;
  };
  struct outputs {
    T *q, *k;
  };
  TCNCA_HOST_DEVICE T const* sources(index_t b, index_t t) const { return params.z.at(b, t, 0); }
  TCNCA_HOST_DEVICE outputs targets(index_t b, index_t t) const { return {params.q.at(b, t, 0), params.k.at(b, t, 0)}; }
  TCNCA_HOST_DEVICE parameters begin(auto c) const {
    return {base::load(params.gq, c), base::load(params.mq, c), base::load(params.gk, c), base::load(params.mk, c)};
  }
  TCNCA_HOST_DEVICE void end(auto, parameters const&) const {}
  TCNCA_HOST_DEVICE auto read(T const* z, auto c) const { return base::load(z, c); }
  TCNCA_HOST_DEVICE void write(index_t, index_t, outputs to, auto c, parameters const& p, value z) const {
    auto const m = gate::mix(z, p.gq, p.mq, p.gk, p.mk);
    this->store(to.q, c, m.q), this->store(to.k, c, m.k);
  }
};

/// Forward: o, r, y. Backward: o, r, grad_y, grad_o, grad_r.
template <element T>
struct reset_params {
  tensor_view<T const, 3> o = {}, r = {}, grad_y = {};
  tensor_view<T, 3> y = {}, grad_o = {}, grad_r = {};
  pass_access access = {};
};

/// The reset gate, forward or backward.
template <class Group, element T, gated_fusion_policy Policy, bool Backward>
struct reset_agent : detail::elementwise_pass<Group, T, Policy> {
  using base = detail::elementwise_pass<Group, T, Policy>;
  using typename base::A, typename base::value;
  using params_type = reset_params<T>;
  static constexpr int inputs = Backward ? 3 : 2;

  params_type const& params;
  TCNCA_HOST_DEVICE reset_agent(Group g, params_type const& p, A*, A*) : base{g, p.access}, params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) { return base::items_of(params.o); }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) { return {}; }
  TCNCA_HOST_DEVICE void operator()(index_t item) const { this->process(*this, item, params.o); }

  struct input_rows {
    T const *o, *r, *grad_y;
  };
  template <class V>
  struct input {
    V o, r, grad_y;
  };
  struct output_rows {
    T *y, *grad_o, *grad_r;
  };
  TCNCA_HOST_DEVICE input_rows sources(index_t b, index_t t) const {
    return {params.o.at(b, t, 0), params.r.at(b, t, 0), params.grad_y.at(b, t, 0)};
  }
  TCNCA_HOST_DEVICE output_rows targets(index_t b, index_t t) const {
    return {params.y.at(b, t, 0), params.grad_o.at(b, t, 0), params.grad_r.at(b, t, 0)};
  }
  TCNCA_HOST_DEVICE detail::no_state begin(auto) const { return {}; }
  TCNCA_HOST_DEVICE void end(auto, detail::no_state) const {}
  TCNCA_HOST_DEVICE auto read(input_rows from, auto c) const {
    input<decltype(base::load(from.o, c))> in{base::load(from.o, c), base::load(from.r, c), {}};
    if constexpr (Backward) { in.grad_y = base::load(from.grad_y, c); }
    return in;
  }
  TCNCA_HOST_DEVICE void write(index_t, index_t, output_rows to, auto c, detail::no_state, auto const& in) const {
    value const o = in.o, r = in.r;
    if constexpr (Backward) {
      auto const g = gate::reset_gradient(o, r, value(in.grad_y));
      if (params.grad_o.present()) this->store(to.grad_o, c, g.o);
      if (params.grad_r.present()) this->store(to.grad_r, c, g.r);
    } else {
      this->store(to.y, c, gate::reset(o, r));
    }
  }
};

}  // namespace tcnca
