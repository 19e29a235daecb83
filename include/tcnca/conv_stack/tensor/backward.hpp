// The backward pass of several levels on tensor cores, for 16-bit elements: one walk forward in time. Each step
// recomputes the levels on a new tile, and computes the gradients of each level on a window that lags behind that of
// the next level. Sequences between the levels are in shared memory only, rounded to T.
#pragma once
#include "backward_channels.hpp"
#include "backward_levels.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of a backward pass on tensor cores (sm_80). An item is a segment of a row (batch, channel).
///
///   products  a level computes Y = X W, with X blocks of 16 lines x 8 rows, rows a dilation (or a part of it) apart,
///             and W banded 8 x 8 matrices of the taps. The gradient of its input is G W' on the same and later rows;
///             that of its weights is the sum of G'X over lines, whose diagonals are summed once per item and level
///   step      phase l: level l forward on the new tile, level depth - 1 - l backward on a window of the step before.
///             The window of a level ends `lag` positions before the new tile, so that the gradients of all later
///             positions that it depends on are complete
///   memory    shared: rings of inputs and gradients of each level, a tile of grad_y, fragments of the weights
///   barriers  one per phase
///
/// Every position belongs to a segment: (segments - 1) * segment_length < length, or segments == 1. A segment's walk
/// begins `halo` positions early and continues until the gradients of all its positions are complete.
///
/// NaN and infinity: a sum contains products with the zeros of W. So an input (or a gradient) that is not finite makes
/// not only those outputs (or gradients) NaN that depend on it, but all of a level's blocks of 8 rows that contain one
/// of them. Other rows (batch, channel) are not affected.
///
/// grad_y and grad_x may be the same memory if segments == 1: grad_x at a position is stored after all threads have
/// loaded the tile of grad_y that contains it, because the first level's window lags behind the tiles of grad_y.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers, int MaxBytes = tensor_backward_bytes>
struct conv_stack_tensor_backward_agent : detail::tensor_backward_levels<Group, T, Shape, Layers, MaxBytes>,
                                          channel_cluster<Shape.order == layout::batch_length_channels> {
  using base = detail::tensor_backward_levels<Group, T, Shape, Layers, MaxBytes>;
  using typename base::address_type;
  static constexpr tensor_backward_plan plan = base::plan;
  static constexpr int tile = base::tile, depth = base::depth, taps = base::taps, threads = base::threads;
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_backward_pass_params<T, parameter_t<T, Shape.weights>>;
  template <int L>
  static constexpr tensor_backward_level level = plan.level[L];
  static constexpr tensor_backward_ring x_ring = plan.level[0].input;
  static constexpr int segment_grain = tile;
  static constexpr index_t halo = plan.halo;
  static constexpr int blocks_per_multiprocessor =
      max_of(1, min_of(8 / plan.warps, tensor_backward_bytes / (plan.bytes + 1024)));

  params_type const& params;
  TCNCA_HOST_DEVICE conv_stack_tensor_backward_agent(Group g, params_type const& p, A* shared_memory, A*)
      : base(g, shared_memory), params(p), exchange_(g, base::shared + uint32(plan.staging)) {}

  static constexpr index_t items(params_type const& p) { return p.x.extent[0] * rows(p) * p.segments; }
  static constexpr group_memory memory(params_type const&) { return {.shared_memory_bytes = size_t(plan.bytes)}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    set_item(item);
    clear();
    write_weights();
    this->group.sync();
    this->read_weights();
    this->reset_rings();
    if constexpr (channels_last) {
      exchange_.begin(this->warp, params, part_ / params.segments, row_channel_, begin_, begin_ - tile - level<0>.lag);
      exchange_.scatter_x(this->warp, this->template ring_place<x_ring, 0>());
      if constexpr (depth == 1) { exchange_.scatter_grad_y(this->template ring_place<plan.grad_y, 0>()); }
      exchange_.fetch(this->warp, true, depth == 1);
      exchange_.cluster.sync();
    } else {
      load_tile<x_ring, 0>(x_, 0);
      if constexpr (depth == 1) { load_tile<plan.grad_y, 0>(grad_y_, 0); }
      this->warp.commit();
    }
    int const steps = this->warp.uniform(divide_up(max_of(last_ - begin_, 1) + level<0>.lag, tile) + 1);
    for (int n = 0; n < steps; n++) {
      if constexpr (channels_last) {
        this->group.sync();
        exchange_.cluster.arrive();  // this group has completed the step before
      } else {
        this->warp.wait();
        this->group.sync();
        load_tiles(n);
      }
      begin_sums(n - 1);
      unroll<0, depth>([&](auto l) TCNCA_INLINE {
        if constexpr (channels_last && l == min_of(1, depth - 1)) { exchange(n); }
        if constexpr (channels_last && plan.shares_staging && l == depth - 2) { exchange_grad_y(); }
        if constexpr (channels_last && l + 1 == depth) { wait_for_grad_y(); }
        if constexpr (l > 0) {
          if constexpr (!channels_last && l + 1 == depth) { this->warp.template wait<1>(); }
          this->group.sync();
        }
        this->template phase<l>(n, [&](auto u, auto const& y) TCNCA_INLINE { store_grad_x<u>(n - 1, y); });
      });
      this->advance_rings();
      end_sums(n - 1);
    }
    this->warp.wait();
    this->group.sync();
    if constexpr (channels_last) {
      exchange_.cluster.sync();
      exchange_.store_grad_x(first_, last_);
    }
  }

 private:
  static constexpr bool channels_last = Shape.order == layout::batch_length_channels;
  detail::tensor_backward_exchange<Group, T, tile, plan.warps, plan.shares_staging, channels_last> exchange_;
  index_t row_channel_ = 0;  // channel of this group, which may not exist

  /// Rows of a batch, or groups of eight channels.
  TCNCA_HOST_DEVICE static constexpr index_t rows(params_type const& p) {
    return channels_last ? divide_up(p.x.extent[1], index_t(8)) : p.x.extent[1];
  }
  /// Channels-last, in step n, after all groups have completed the step before: the next tiles go to the rings, the
  /// last window of grad_x to memory.
  TCNCA_HOST_DEVICE void exchange(int n) {
    exchange_.cluster.wait();
    exchange_.scatter_x(this->warp, this->template ring_place<x_ring, tile>());
    if constexpr (plan.shares_staging) {
      exchange_.fetch(this->warp, false, true);
      if (n > 0) exchange_.store_grad_x(first_, last_);
    } else {
      constexpr int from = depth == 1 ? tile : 0;
      exchange_.scatter_grad_y(this->template ring_place<plan.grad_y, from>());
      exchange_.fetch(this->warp, true, true);
      if (n > 0) exchange_.store_grad_x(first_, last_);
      exchange_.cluster.arrive();
    }
  }
  /// The same for grad_y, some phases later, if it shares the staging buffer.
  TCNCA_HOST_DEVICE void exchange_grad_y() {
    this->warp.wait();
    exchange_.scatter_grad_y(this->template ring_place<plan.grad_y, 0>());
    exchange_.fetch(this->warp, true, false);
    exchange_.cluster.arrive();
  }

  /// Until all groups have stored their tiles of grad_y, and their last window of grad_x.
  TCNCA_HOST_DEVICE void wait_for_grad_y() { exchange_.cluster.wait(); }

  /// A row of x or grad_y. Tiles are loaded in order.
  struct source {
    T const *row, *next;  // `next`: this thread's first vector of the next tile
    int whole_tiles;      // of vectors only
    bool vectorizable;
  };
  source x_, grad_y_;
  T* grad_x_;               // row
  index_t part_, channel_;  // row of partial sums
  // Positions in the row: where the walk begins, the segment, the end of the row.
  int begin_, first_, last_, length_;
  int first_stored_, whole_stored_;  // the first window of level 0 that is stored as vectors as a whole; their number
  // Of all levels: the last window that is the first one of a level's sums, the first one that is the last one.
  int last_begin_, first_end_;
  bool is_first_, is_last_;  // segment of the row

  TCNCA_HOST_DEVICE void set_item(index_t item) {
    int segment;
    index_t batch;
    if constexpr (channels_last) {  // neighbouring clusters share sectors of memory, so they process the same positions
      segment = int(item / rows(params) % params.segments), batch = item / rows(params) / params.segments;
      row_channel_ = item % rows(params) * 8 + exchange_.rank();
      channel_ = min_of(row_channel_, params.x.extent[1] - 1);
    } else {
      segment = int(item % params.segments), batch = item / params.segments / params.x.extent[1];
      row_channel_ = channel_ = item / params.segments % params.x.extent[1];
    }
    part_ = batch * params.segments + segment;
    is_first_ = segment == 0, is_last_ = segment + 1 == params.segments;
    length_ = int(params.x.extent[2]);
    first_ = int(index_t(segment) * params.segment_length);
    last_ = is_last_ ? length_ : first_ + params.segment_length;
    begin_ = max_of(0, first_ - int(halo));
    x_ = source_of(params.x.at(batch, channel_, 0), params.x_vectorizable);
    grad_y_ = source_of(params.grad_y.at(batch, channel_, 0), params.grad_y_vectorizable);
    grad_x_ = params.grad_x.at(batch, channel_, 0);
    first_stored_ = this->warp.uniform(divide_up(first_ - begin_ + level<0>.lag, tile));
    int const end = params.grad_x_vectorizable && grad_x_ ? (last_ - begin_ + level<0>.lag) / tile : 0;
    whole_stored_ = this->warp.uniform(max_of(end - first_stored_, 0));
    last_begin_ = -1, first_end_ = last_window<0>();  // the sums of windows before the row are zero
    unroll<0, depth>([&](auto l) TCNCA_INLINE {
      if (!is_first_) last_begin_ = max_of(last_begin_, first_window<l>());
      first_end_ = min_of(first_end_, last_window<l>());
    });
    last_begin_ = this->warp.uniform(last_begin_), first_end_ = this->warp.uniform(first_end_);
  }

  TCNCA_HOST_DEVICE source source_of(T const* row, bool vectorizable) const {
    return {row, row + begin_ + this->group.rank() * 8, vectorizable ? (length_ - begin_) / tile : 0, vectorizable};
  }

  // Windows. Window n of a level is [n tile - lag, (n + 1) tile - lag), counted from begin_. All segments of a row have
  // the same windows. Each window adds to the sums of one segment, whose first window begins less than a tile before
  // it.

  template <int L>
  TCNCA_HOST_DEVICE int first_window() const {
    return (first_ - begin_ + level<L>.lag / tile * tile) / tile;
  }
  template <int L>
  TCNCA_HOST_DEVICE int last_window() const {
    if (is_last_) return divide_up(max_of(last_ - begin_, 1) + level<L>.lag, tile) - 1;
    return (last_ - begin_ + level<L>.lag / tile * tile) / tile - 1;
  }
  /// Called before window n. Clears the sums of levels whose first window it is.
  TCNCA_HOST_DEVICE void begin_sums(int n) {
    if (n > last_begin_) return;
    unroll<0, depth>([&](auto l) TCNCA_INLINE {
      constexpr int L = l;
      if (n == first_window<L>()) {
        unroll<0, 4 * level<L>.tiles()>([&](auto i) TCNCA_INLINE { this->sums_[level<L>.sums + i / 4][i % 4] = 0; });
        unroll<0, 4>([&](auto i) TCNCA_INLINE { this->bias_sums_[L][i] = 0; });
      }
    });
  }
  /// Called by all threads after window n. Stores the sums of levels whose last window it is.
  TCNCA_HOST_DEVICE void end_sums(int n) {
    if (n < first_end_) return;
    unroll<0, depth>([&](auto l) TCNCA_INLINE {
      if (n == last_window<l>()) store_sums<l>();
    });
  }
  /// Sums the diagonals of the tiles of all warps, in a fixed order, a few tiles at a time. Called by all threads.
  template <int L>
  TCNCA_HOST_DEVICE void store_sums() const {
    constexpr int tiles = level<L>.tiles(), sets = tiles + (Shape.bias ? 1 : 0), most = 2 * tile / (512 * plan.warps);
    int const k = this->group.rank();  // of the taps, then the bias
    address_type const scratch = this->shared + uint32(plan.scratch);
    float sum = 0;
    unroll<0, divide_up(sets, most)>([&](auto round) TCNCA_INLINE {
      constexpr int first = round * most, last = min_of(first + most, sets);
      this->group.sync();
      unroll<first, last>([&](auto set) TCNCA_INLINE {
        uint32 words[4];
        unroll<0, 4>([&](auto i) TCNCA_INLINE {
          if constexpr (set < tiles) {
            __builtin_memcpy(&words[i], &this->sums_[level<L>.sums + min_of(int(set), tiles - 1)][i], 4);
          } else {
            __builtin_memcpy(&words[i], &this->bias_sums_[L][i], 4);
          }
        });
        this->warp.store_shared(scratch + uint32(((this->warp_index * most + set - first) * 128 + this->lane * 4) * 4),
                                words);
      });
      this->group.sync();
      // Element (i, j) of a tile.
      auto const add = [&](int set, int i, int j) TCNCA_INLINE {
        for (int w = 0; w < plan.warps; w++) {
          uint32 word[1];
          float value;
          int const element = (i % 8 * 4 + j / 2) * 4 + i / 8 * 2 + j % 2;
          this->warp.load_shared(word, scratch + uint32(((w * most + set - first) * 128 + element) * 4));
          __builtin_memcpy(&value, word, 4);
          sum += value;
        }
      };
      for (int set = first; set < last; set++)
        for (int i = 0; i < 16; i++) {
          int const j = 16 * set + i - k * level<L>.step;
          if (k < taps && set < tiles && j >= 0 && j < 8) add(set, i, j);
          if (k == taps && set == tiles) add(set, i, 0);
        }
    });
    if (row_channel_ != channel_) return;
    if (k < taps) *params.sums.at(part_, L * taps + k, channel_) = sum;
    else if (Shape.bias && k == taps) *params.sums.at(part_, depth * taps + L, channel_) = sum;
  }

  /// Zeros for all that precedes the walk, and for the sums.
  TCNCA_HOST_DEVICE void clear() {
    uint32 const zeros[4] = {};
    for (int i = this->group.rank() * 16; i < plan.grad_y.offset; i += threads * 16)
      this->warp.store_shared(this->shared + uint32(i), zeros);
    this->clear_sums();
  }
  /// Fragments of the banded matrices of the levels' weights, and four times each bias.
  TCNCA_HOST_DEVICE void write_weights() const {
    unroll<0, depth>([&](auto level_number) TCNCA_INLINE {
      constexpr int L = level_number;
      constexpr tensor_backward_level v = level<L>;
      for (int i = this->group.rank(); i < 64 * (v.history + 1); i += threads) {
        int const block = i / 32, row = i % 4 * 2, column = i % 32 / 4;
        uint32 pair = 0;
        for (int e = 0; e < 2; e++) {
          int const rows = block <= v.history ? 8 * (v.history - block) + column - row - e
                                              : 8 * (block - v.history - 1) + row + e - column,
                    k = rows / v.step;
          if (rows >= 0 && rows % v.step == 0 && k < taps)
            pair |= uint32(element_bits<T>(*params.weight.at(Layers.first + L, k, channel_))) << 16 * e;
        }
        uint32 const word[1] = {pair};
        this->warp.store_shared(this->shared + uint32(plan.weights + 128 * v.products + 4 * i), word);
      }
      if constexpr (Shape.bias) {
        if (this->group.rank() == 0) {
          float const bias = to_accumulate(*params.bias.at(Layers.first + L, channel_));
          uint32 word;
          __builtin_memcpy(&word, &bias, 4);
          uint32 const words[4] = {word, word, word, word};
          this->warp.store_shared(this->shared + uint32(plan.weights + 128 * plan.products + 16 * L), words);
        }
      }
    });
  }

  // Global memory.

  /// Loads the tile of grad_y that is needed in the last phase of step n (with one level: of step n + 1), and that of x
  /// for step n + 1.
  TCNCA_HOST_DEVICE void load_tiles(int n) {
    constexpr int grad_y_tile = depth == 1, grad_y_from = grad_y_tile * tile;
    if (n + grad_y_tile < grad_y_.whole_tiles && n + 1 < x_.whole_tiles) {
      load_whole_tile<plan.grad_y, grad_y_from>(grad_y_);
      this->warp.commit();
      load_whole_tile<x_ring, tile>(x_);
    } else {
      load_tile<plan.grad_y, grad_y_from>(grad_y_, n + grad_y_tile);
      this->warp.commit();
      load_tile<x_ring, tile>(x_, n + 1);
    }
    this->warp.commit();
  }
  /// Loads the next tile of a row into the ring, From positions after the newest tile.
  template <tensor_backward_ring R, int From>
  TCNCA_HOST_DEVICE void load_whole_tile(source& row) const {
    unroll<0, tile / 8 / threads>([&](auto i) TCNCA_INLINE {
      constexpr int more = i * threads * 8;
      this->warp.copy_16(this->template address<R, From + more, tile - more>(this->group.rank() * 8), row.next + more,
                         true);
    });
    row.next += tile;
  }
  /// The same for tile n, with zeros after the end of the row.
  template <tensor_backward_ring R, int From>
  TCNCA_HOST_DEVICE void load_tile(source& row, int n) const {
    for (int offset = this->group.rank() * 8; offset < tile; offset += threads * 8)
      load_vector(this->template address<R, From>(offset), row.row, row.vectorizable, begin_ + n * tile + offset);
    row.next += tile;
  }
  TCNCA_HOST_DEVICE void load_vector(address_type to, T const* row, bool vectorizable, int t) const {
    if (vectorizable && (t >= length_ || t + 8 <= length_)) {
      this->warp.copy_16(to, t < length_ ? row + t : row, t < length_);
    } else {
      uint32 words[4] = {};
      TCNCA_UNROLL
      for (int e = 0; e < 8; e++)
        if (t + e < length_) words[e / 2] |= uint32(row[t + e].bits) << 16 * (e % 2);
      this->warp.store_shared(to, words);
    }
  }
  /// Positions from a lane's vector of gradients of inputs to its next one.
  static constexpr int vector_distance =
      plan.level[0].lines() ? 32 / plan.level[0].blocks * plan.level[0].line : 16 * plan.level[0].row;
  /// Stores the gradients of the inputs of a unit in window n, through the ring of the inputs, whose values there are
  /// not needed any more.
  template <int U>
  TCNCA_HOST_DEVICE void store_grad_x(int n, typename base::template unit_blocks<0> const& y) const {
    constexpr tensor_backward_level v = plan.level[0];
    constexpr int from = -tile - v.lag;
    this->warp.sync();
    this->template store_blocks<0, U, v.input, from>(y);
    this->warp.sync();
    // Vectors of a unit: those of a line or a row, then the next.
    int const offset =
        this->template unit_position<0>() + (v.lines() ? this->lane / v.blocks * v.line + this->lane % v.blocks * 8
                                                       : this->lane / 2 * v.row + this->lane % 2 * 8);
    int const position = begin_ + n * tile - v.lag + offset;
    bool const is_whole = unsigned(n - first_stored_) < unsigned(whole_stored_);
    detail::array<uint32[4], v.blocks / 2> words;
    unroll<0, v.blocks / 2>([&](auto i) TCNCA_INLINE {
      constexpr tensor_backward_level w = plan.level[0];
      constexpr int more = base::template unit_distance<0, U> + i * vector_distance;
      auto const at = this->template address<w.input, -tile - w.lag + more, tile - more>(offset);
      this->warp.load_shared(words[i], at);
      if constexpr (channels_last) { exchange_.send(offset, constant<more>{}, words[i]); }
    });
    if constexpr (!channels_last) {
      if (is_whole) {
        unroll<0, v.blocks / 2>([&](auto i) TCNCA_INLINE {
          base::store_vector(grad_x_ + position + (base::template unit_distance<0, U> + i * vector_distance), words[i]);
        });
      } else {
        TCNCA_UNROLL
        for (int i = 0; i < v.blocks / 2; i++)
          store_some(position + base::template unit_distance<0, U> + i * vector_distance, words[i]);
      }
    }
  }
  /// The elements of a vector at position t of the row that are in the segment.
  TCNCA_HOST_DEVICE void store_some(int t, uint32 const (&words)[4]) const {
    if (t < first_ || !grad_x_) return;
    if (params.grad_x_vectorizable && t + 8 <= last_) return base::store_vector(grad_x_ + t, words);
    TCNCA_UNROLL
    for (int e = 0; e < 8; e++)
      if (t + e < last_) grad_x_[t + e].bits = uint16(words[e / 2] >> 16 * (e % 2));
  }
};

}  // namespace tcnca
