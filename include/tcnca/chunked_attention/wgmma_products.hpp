// Gradients of values, keys and queries by wgmma, from weights and gradients of scores in the workspace: see
// wgmma_backward.hpp.
//
//   item      128 rows per group of the cluster of dV = P^T dO, dK = dS^T Q or dQ = dS K, and up to 256 columns. The
//             groups share dO, Q or K
//   loop      over 64 queries (dV, dK) or keys (dQ), of those that are not masked for all rows
//   warps     two warpgroups of 64 rows each; of the warpgroup that loads, one thread
//   memory    shared: four stages of 64 rows or columns of P or dS, and 64 rows of dO, Q or K
//   barriers  full and empty barriers of the stages. Where a row of dO, Q or K is masked for some rows of the item,
//             both warpgroups check it for infinities and NaN together: 0 times such an element would be NaN
#pragma once
#include "wgmma_backward.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// CUDA only. Group: 384 threads; Consumers: 256.
template <class Group, class Consumers, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_wgmma_products_agent;

#if defined(__CUDACC__)
template <class Group, class Consumers, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_wgmma_products_agent
    : detail::attention_wgmma_backward<Group, Consumers, T, Shape, Policy, 48 * 1024> {
  using base = detail::attention_wgmma_backward<Group, Consumers, T, Shape, Policy, 48 * 1024>;
  using typename base::A, typename base::params_type;
  using base::in, base::warp, base::chunk_, base::first_, base::all, base::ring, base::warpgroup, base::warpgroup_,
      base::Br, base::box, base::box_bytes, base::row_pair;
  static constexpr int columns = 256, left_bytes = 2 * box_bytes;

  __device__ __forceinline__ chunked_attention_wgmma_products_agent(Group, params_type const& p, A* shared, A*)
      : base(p, shared) {}

  // Of the gradients that are wanted.
  TCNCA_HOST_DEVICE static index_t value_tiles(params_type const& p) {
    return p.backward.wants_values() ? divide_up(index_t(p.backward.in.value_dim()), index_t(columns)) : 0;
  }
  TCNCA_HOST_DEVICE static index_t all_tiles(params_type const& p) {
    return value_tiles(p) + p.backward.wants_keys() + p.backward.wants_queries();
  }
  TCNCA_HOST_DEVICE static index_t items(params_type const& p) { return p.cluster_blocks() * p.chunks * all_tiles(p); }

  __device__ __forceinline__ void operator()(item_range range) {
    this->run(
        [&](int loader) TCNCA_INLINE {
          if (loader == 0 && this->loader_lane() == 0) load_tiles(range);
        },
        [&]() TCNCA_INLINE { compute(range); });
  }

 private:
  enum class gradient { values, keys, queries };
  gradient what_ = gradient::values;
  int chunk_number_ = 0;        // of the launch
  int column_ = 0, width_ = 0;  // columns of the result
  int panels_ = 0;              // of 64 columns that are computed: 1, 2 or 4
  // Of the sum, [begin, end), multiples of the box: what is not masked for all rows of the cluster, of the group, and
  // of this warpgroup.
  struct part {
    int begin = 0, end = 0;
  };
  part cluster_part_, group_part_, own_part_;
  int checks_ = 0;
  ring_place next_, used_;

  /// Every second item is counted from the other end of its round of groups, because items become shorter.
  __device__ __forceinline__ index_t item_of(item_range range, index_t n) const {
    return n % 2 == 0 ? range[n] : (n + 1) * range.stride - 1 - range.first;
  }
  template <class F>
  __device__ __forceinline__ void for_each_item(item_range range, F f) {
    for (index_t n = 0; n * range.stride < range.end; n++)
      if (index_t const item = item_of(range, n); item < range.end && set_item(item)) f();
  }

  __device__ __forceinline__ bool rows_are_queries() const { return what_ == gradient::queries; }
  /// Items are numbered [block][chunk][tile of dV, dK, dQ]; causal blocks from the longest sum to the shortest. Returns
  /// whether the item has rows.
  __device__ __forceinline__ bool set_item(index_t item) {
    index_t const value_tiles = this->value_tiles(all), tiles = all_tiles(all), tile = item % tiles,
                  block = item / tiles / all.chunks;
    chunk_number_ = int(item / tiles % all.chunks);
    chunk_ = this->chunk_of(all.first_chunk + chunk_number_);
    what_ = tile < value_tiles                                 ? gradient::values
            : tile == value_tiles && all.backward.wants_keys() ? gradient::keys
                                                               : gradient::queries;
    column_ = what_ == gradient::values ? int(tile) * columns : 0;
    width_ = min_of(columns, (what_ == gradient::values ? in.value_dim() : in.key_dim()) - column_);
    panels_ = width_ <= box ? 1 : width_ <= 2 * box ? 2 : 4;
    int const first = int(rows_are_queries() ? all.cluster_blocks() - 1 - block : block) * all.groups * Br;
    this->set_rows(first);
    cluster_part_ = {};
    cluster_part_ = part_of(first, all.groups * Br);
    group_part_ = part_of(first_, Br);
    own_part_ = part_of(first_ + warpgroup_ * wgmma_tile::rows, wgmma_tile::rows);
    return first < chunk_.last;
  }
  /// What of the sum some of `count` rows see; nothing, at the cluster's begin, for keys that are not valid.
  __device__ __forceinline__ part part_of(int first, int count) const {
    if (first >= (rows_are_queries() ? chunk_.last : chunk_.keys)) return {cluster_part_.begin, cluster_part_.begin};
    if (rows_are_queries()) return {0, round_up(this->visible(chunk_, min_of(first + count, chunk_.last) - 1), box)};
    return {Shape.causal ? first : 0, round_up(chunk_.last, box)};
  }
  /// Whether row `row` of the item sees `k` of the sum.
  __device__ __forceinline__ bool sees(int row, int k) const {
    return rows_are_queries() ? k < this->visible(chunk_, row) : !Shape.causal || k >= row;
  }
  /// Whether all rows of the item see the 64 of the sum from `k` on. Those after the chunk are zeros in memory.
  __device__ __forceinline__ bool all_see(int k) const {
    return rows_are_queries() ? min_of(k + box, chunk_.last) <= this->visible(chunk_, first_)
                              : !Shape.causal || k >= first_ + Br - 1;
  }

  /// Called by one thread.
  __device__ __forceinline__ void load_tiles(item_range range) {
    ring_place p;
    for_each_item(range, [&]() TCNCA_INLINE {
      for (int k = cluster_part_.begin; k < cluster_part_.end; k += box, ring.advance(p)) {
        bool const own = k >= group_part_.begin && k < group_part_.end;
        ring.wait_empty(p);
        uint32 const full = ring.full(p), left = this->stage(p), right = left + left_bytes;
        detail::mbarrier_arrive_expect(full, (own ? left_bytes : 0) + panels_ * box_bytes);
        for (int r = 0; own && r < 2; r++) {
          int const other = first_ + r * box;
          detail::load_tensor_tile(
              left + uint32(r * box_bytes), what_ == gradient::values ? &all.weight_tiles : &all.derivative_tiles,
              {rows_are_queries() ? k : other, rows_are_queries() ? other : k, chunk_number_, 0}, full);
        }
        for (int n = this->group_rank; n < panels_; n += all.groups) {
          uint32 const to = right + uint32(n * box_bytes);
          int const c = column_ + n * box;
          if (what_ == gradient::values)
            this->template load_tile<true>(to, all.grad_o, all.backward.grad_o, k, c, full);
          else if (what_ == gradient::keys) this->template load_tile<true>(to, all.q, in.q, k, c, full);
          else this->template load_tile<true>(to, all.k, in.k, k, c, full);
        }
      }
    });
  }

  __device__ __forceinline__ void compute(item_range range) {
    for_each_item(range, [&]() TCNCA_INLINE {
      if (rows_are_queries()) {
        if (panels_ == 1) multiply<1, false>();
        else if (panels_ == 2) multiply<2, false>();
        else multiply<4, false>();
      } else {
        if (panels_ == 1) multiply<1, true>();
        else if (panels_ == 2) multiply<2, true>();
        else multiply<4, true>();
      }
    });
  }

  /// Computes an item. Transposed: the sum is over the rows of P or dS.
  template <int Panels, bool Transposed>
  __device__ __forceinline__ void multiply() {
    constexpr int tiles = Panels * box / mma_fragment::columns;
    float acc[tiles][4];
    base::clear(acc);
#pragma unroll 1  // few times
    for (int k = cluster_part_.begin; k < own_part_.begin; k += box) skip(k);
    for (int k = own_part_.begin; k < own_part_.end; k += box, ring.advance(next_)) {
      ring.wait_full(next_);
      if (has_masked_non_finite(k)) {
        warpgroup.template wait_groups<0>();
        warpgroup.result(acc);
        add_non_finite<Transposed>(acc, k);
        replace_non_finite();
      }
      warpgroup.fence();
      uint32 const left = this->stage(next_), right = left + left_bytes;
      TCNCA_UNROLL
      for (int d = 0; d < box; d += wgmma_tile::depth)
        warpgroup.template multiply<T, Transposed, true>(
            acc,
            Transposed ? wgmma_tile::of_columns(left + uint32(warpgroup_ * box_bytes), box, d)
                       : wgmma_tile::of_rows(left, Br, warpgroup_ * wgmma_tile::rows, d),
            wgmma_tile::of_columns(right, box, d), true);
      warpgroup.commit();
      warpgroup.template wait_groups<1>();
      if (k > own_part_.begin) this->release(used_);
    }
    warpgroup.template wait_groups<0>();
    warpgroup.result(acc);
    if (own_part_.begin < own_part_.end) this->release(used_);
#pragma unroll 1  // few times
    for (int k = own_part_.end; k < cluster_part_.end; k += box) skip(k);
    store(acc);
  }
  /// A stage that no row of this warpgroup sees; if the other one has rows that do, both check it.
  __device__ __forceinline__ void skip(int k) {
    if (k >= group_part_.begin && k < group_part_.end && !all_see(k)) {
      ring.wait_full(next_);
      if (has_masked_non_finite(k)) replace_non_finite();
      this->release(used_);
      ring.advance(next_);
    } else {
      this->skip_stage(next_, used_);
    }
  }

  /// 0 times an infinity or NaN of a row that is masked for some rows of the item would be NaN. Adds what such elements
  /// of a stage contribute to the rows that see them; then the product takes 0 instead. Rare, so short code rather than
  /// fast. Called by a warpgroup.
  template <bool Transposed, int Tiles>
  __device__ __forceinline__ void add_non_finite(float (&acc)[Tiles][4], int k) const {
    T const *const left = elements(this->stage(next_)), *const right = elements(this->stage(next_) + left_bytes);
    for (int j = 0; j < box; j++) {
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        int const r = this->position(half) - first_;
        if (!sees(first_ + r, k + j)) continue;
        int const at = Transposed ? wgmma_tile::offset(box, j, r) : wgmma_tile::offset(Br, r, j);
        float const weight = to_accumulate(left[at]);
        TCNCA_UNROLL
        for (int n = 0; n < Tiles; n++) {
          auto const x = tcnca::load<2>(right + wgmma_tile::offset(box, j, 8 * n) + this->column());
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) acc[n][2 * half + e] += base::is_finite(x.lane(e)) ? 0.f : weight * x.lane(e);
        }
      }
    }
  }
  /// Called by all consumers after that.
  __device__ __forceinline__ void replace_non_finite() const {
    T* const right = elements(this->stage(next_) + left_bytes);
    synchronize_consumers();
    for (int i = this->rank(); i < panels_ * box * box; i += Consumers::size())
      if (!base::is_finite(to_accumulate(right[i]))) right[i] = T{0};
    warpgroup.fence_proxy_async();
    synchronize_consumers();
  }
  /// Whether the right side of a stage, of which some rows are masked for some rows of the item, holds an infinity or a
  /// NaN. Called by all consumers, which get the same.
  __device__ __forceinline__ bool has_masked_non_finite(int k) {
    if (all_see(k)) return false;
    uint32 found = 0;
    for (int i = this->rank(); i < panels_ * box_bytes / 16; i += Consumers::size()) {
      uint32 word[4];
      warp.load_shared(word, this->stage(next_) + uint32(left_bytes + 16 * i));
      TCNCA_UNROLL
      for (int n = 0; n < 4; n++) found |= base::non_finite(word[n]);
    }
    // Two sets of flags, because a warp may begin the next check while another one still reads.
    constexpr int warps = Consumers::size() / warp_size;
    int* const flags = reinterpret_cast<int*>(this->shared_memory + base::numbers_at) + checks_++ % 2 * warps;
    bool const in_warp = warp.any(found != 0);
    if (this->lane() == 0) flags[this->rank() / warp_size] = in_warp;
    synchronize_consumers();
    int any = 0;
    for (int w = 0; w < warps; w++) any |= flags[w];
    return any != 0;
  }
  __device__ __forceinline__ static void synchronize_consumers() { detail::named_barrier(1, Consumers::size()); }
  __device__ __forceinline__ T* elements(uint32 at) const {
    return reinterpret_cast<T*>(this->shared_memory + (at - this->address));
  }

  /// Gradients of keys that are not valid are zeros.
  template <int Tiles>
  __device__ __forceinline__ void store(float const (&acc)[Tiles][4]) const {
    auto const& grad = what_ == gradient::values ? all.backward.grad_v
                       : what_ == gradient::keys ? all.backward.grad_k
                                                 : all.backward.grad_q;
    A const factor = what_ == gradient::values || in.scale_by_count ? A(1) : in.scale;
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const row = this->position(half);
      bool const valid = rows_are_queries() || row < chunk_.keys;
      T* const to =
          row < chunk_.last ? grad.at(chunk_.batch, chunk_.head, this->sequence_index(chunk_, row), column_) : nullptr;
      TCNCA_UNROLL
      for (int n = 0; n < Tiles; n += 4)
        this->store_tiles(to, 8 * n, width_, [&](int t) TCNCA_INLINE {
          return valid ? row_pair(acc[n + t], half) * broadcast<2>(factor) : broadcast<2>(A(0));
        });
    }
  }
};
#endif

}  // namespace tcnca
