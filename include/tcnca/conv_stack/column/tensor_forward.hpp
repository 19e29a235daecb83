// Forward pass over one layer of a large dilation by tensor cores. A warp owns 32 neighbouring columns and walks along
// their rows, 8 at a time; it keeps the columns' history in registers.
//
// Rows are positions a dilation apart, a block is 8 rows. The outputs of a block are Y = sum over a of X_a T_a, where
// X_a [16 columns x 8 rows] is the block a blocks ago and T_a [8 x 8] a band of the taps: T_a[j][i] = w[8 a + i - j]. X
// is the first operand of the product, so that an output has the layout of an input.
#pragma once
#include "../../arch/global_store.hpp"
#include "../../block/activation.hpp"
#include "../../block/agent.hpp"
#include "../../block/unroll.hpp"
#include "../state.hpp"
#include "plan.hpp"
#include "rows.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of a forward pass along the columns of one layer. An item is a set of warps' columns. Segments divide the rows
/// evenly, whatever segment_length says; each one reads the taps' history again.
///
/// y may be the same memory as x if segments == 1: the warp that owns a column reads an element before it writes it,
/// and no other warp accesses it. state_out may be the same memory as state_in. Products are exact, sums are fp32 in
/// the order of the tensor cores; values of a state are rounded to T. A value that is not finite makes NaN of outputs
/// of its own column only, from the first row of its block of 8 rows on, up to 8 * slots rows.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct conv_stack_tensor_column_forward_agent {
  static_assert(has_tensor_column_forward_plan<T, Shape, Layers>, "this layer has no plan for columns on tensor cores");
  using A = float;
  using group_type = Group;
  using params_type = conv_stack_pass_params<T, parameter_t<T, Shape.weights>>;
  static constexpr index_t d = Shape.dilation(Layers.first);
  static constexpr int segment_grain = 1;
  static constexpr index_t halo = 0;
  static constexpr int warps = Group::size() / warp_size, columns = 32, rows = 8;
  static constexpr int blocks_per_multiprocessor = max_of(1, (Shape.taps > 33 ? 384 : 512) / Group::size());
  static constexpr int stages = 4, stage_bytes = rows * columns * 2;

  Group group;
  params_type const& params;
  A* shared;

  TCNCA_HOST_DEVICE conv_stack_tensor_column_forward_agent(Group g, params_type const& p, A* shared_memory, A*)
      : group(g), params(p), shared(shared_memory) {}

  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) {
    return {.shared_memory_bytes = size_t(warps) * stages * stage_bytes};
  }
  TCNCA_HOST_DEVICE static index_t items(params_type const& p) { return divide_up(units(p), index_t(warps)); }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const unit = item * warps + group.rank() / warp_size, n = column_groups(params);
    if (unit >= units(params)) return;
    int const segment = int(unit % params.segments);
    index_t const row = unit / params.segments / n, channel = row % params.x.extent[1],
                  batch = row / params.x.extent[1];
    index_t const column = first_column(params) + unit / params.segments % n * columns;
    bool const aligned = d % 8 == 0 && params.x.extent[2] % 8 == 0 && first_column(params) % 8 == 0 &&
                         size_t(params.x.at(batch, channel, 0)) % 16 == 0 &&
                         size_t(params.y.at(batch, channel, 0)) % 16 == 0;
    if (aligned) walker<true>(*this, batch, channel, column, segment).walk();
    else walker<false>(*this, batch, channel, column, segment).walk();
    warp_of<Group>().sync();  // before the memory is used again
  }

 private:
  static constexpr int taps = Shape.taps, layer = Layers.first;
  static constexpr int history = (taps - 1 + rows - 1) / rows;  // blocks that a block looks back
  static constexpr int slots = round_up(history + 1, 2);        // blocks in registers, in pairs

  /// Columns that exist are the last ones of a row. Columns without a row have a state to pass on.
  TCNCA_HOST_DEVICE static index_t first_column(params_type const& p) {
    return p.state_out.present() ? 0 : max_of(index_t(0), d - p.x.extent[2]);
  }
  TCNCA_HOST_DEVICE static index_t column_groups(params_type const& p) {
    return divide_up(d - first_column(p), index_t(columns));
  }
  TCNCA_HOST_DEVICE static index_t units(params_type const& p) {
    return p.x.extent[0] * p.x.extent[1] * column_groups(p) * p.segments;
  }

  /// A warp's walk. Aligned: 16-byte accesses; else a lane accesses one column, an element at a time.
  template <bool Aligned>
  struct walker : detail::column_rows<d, rows> {
    using detail::column_rows<d, rows>::begin, detail::column_rows<d, rows>::first,
        detail::column_rows<d, rows>::blocks;
    using warp_type = warp_of<Group>;
    using address_type = typename warp_type::address_type;
    static constexpr int ahead = Aligned ? stages - 1 : 2;  // blocks that are being loaded

    conv_stack_tensor_column_forward_agent const& agent;
    warp_type warp;
    int lane, batch, channel, column;
    bool exists;                 // whether the columns that the lane loads and stores exist
    int begin_block, end_block;  // of the segment's outputs
    T const* x;                  // what the lane loads of block 0
    T* y;
    address_type memory, matrix, own;  // of the stages; offsets of the lane's row of a matrix, of its 8 columns
    detail::array<uint32[4], slots / 2> block[2];  // of 16 columns each: the newest blocks, slot s in half s % 2
    detail::array<uint32, slots> weight[2];        // pairs of T, for an even and for an odd newest slot
    float bias[4];
    detail::array<uint16[rows], Aligned ? 1 : ahead> raw;  // elements of the next blocks, not aligned

    TCNCA_HOST_DEVICE walker(conv_stack_tensor_column_forward_agent const& a, index_t b, index_t c,
                             index_t first_column, int segment)
        : detail::column_rows<d, rows>(a.params.x.extent[2], first_column + lane_column(a.group.rank() % warp_size)),
          agent(a),
          warp(),
          lane(a.group.rank() % warp_size),
          batch(int(b)),
          channel(int(c)),
          column(int(first_column)),
          exists(column + lane_column(lane) < d) {
      int const each = round_up(divide_up(blocks, a.params.segments), slots);
      begin_block = segment * each, end_block = min_of(blocks, begin_block + each);
      index_t const start = begin + lane_row(lane) * d;
      x = a.params.x.at(b, c, 0) + start, y = a.params.y.at(b, c, 0) + start;
      memory = warp.address(a.shared) + address_type(a.group.rank() / warp_size * (stages * stage_bytes));
      matrix = address_type(offset(lane % 8, lane / 8)), own = address_type(offset(lane / 4, lane % 4));
      load_weights();
    }
    TCNCA_HOST_DEVICE static constexpr int lane_column(int lane) { return Aligned ? lane % 4 * 8 : lane; }
    TCNCA_HOST_DEVICE static constexpr int lane_row(int lane) { return Aligned ? lane / 4 : 0; }
    /// Offset in a stage of 8 columns of a row, in bytes. Neither the same vector of eight rows nor eight neighbouring
    /// vectors conflict.
    TCNCA_HOST_DEVICE static constexpr int offset(int row, int vector) {
      return row * 64 + (vector ^ row / 2 % 4) * 16;
    }
    /// The lane's own column of a row.
    TCNCA_HOST_DEVICE address_type element(int b, int row) const {
      return stage(b) + address_type(offset(row, lane / 8) + lane % 8 * 2);
    }
    TCNCA_HOST_DEVICE address_type stage(int b) const { return memory + address_type(b % stages * stage_bytes); }

    TCNCA_HOST_DEVICE void load_weights() {
      auto const& p = agent.params;
      float const b = Shape.bias ? to_accumulate(*p.bias.at(layer, channel)) : 0.f;
      TCNCA_UNROLL
      for (int i = 0; i < 4; i++) bias[i] = b;
      detail::array<uint32, slots> band;  // T_a, a blocks ago
      TCNCA_UNROLL
      for (int a = 0; a < slots; a++) {
        band[a] = 0;
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++) {
          int const k = rows * a + lane / 4 - (lane % 4 * 2 + e);
          if (k >= 0 && k < taps) band[a] |= uint32(element_bits<T>(*p.weight.at(layer, k, channel))) << (16 * e);
        }
      }
      TCNCA_UNROLL
      for (int s = 0; s < slots; s++) {
        weight[0][s] = band[(slots - s) % slots];
        // The same values in registers of their own: operands are pairs of registers, and the compiler would move a
        // value that is in two different pairs before every product. channel is not negative.
        weight[1][s] = band[(slots + 1 - s) % slots] | uint32((channel + lane) >> 31 & (s + 1));
      }
    }

    TCNCA_HOST_DEVICE void walk() {
      // A multiple of `slots` blocks before: sums are then added in the same order for any number of segments.
      int const start = max_of(begin_block - slots, 0);
      TCNCA_UNROLL
      for (int i = 0; i < slots; i++) TCNCA_UNROLL
      for (int g = 0; g < 2; g++) block[g][i / 2][i % 2 * 2] = block[g][i / 2][i % 2 * 2 + 1] = 0;
      if (start == 0 && agent.params.state_in.present()) load_history();
      if (begin_block >= end_block) return;
      if (start == 0) prefetch<0, true>(0);
      else prefetch<0, false>(start);
      unroll<1, ahead>([&](auto i) TCNCA_INLINE { prefetch<i % ahead, false>(start + i); });
      if (start == 0) step<0, true>(0);
      else step<0, false>(start);
      for (int b = start + 1; b < end_block;)
        unroll<0, slots>([&](auto i) TCNCA_INLINE {
          if (b < end_block) step<(i + 1) % slots, false>(b++);
        });
      if (end_block == blocks && agent.params.state_out.present()) store_history((blocks - 1 - start) % slots);
    }

    /// Begins to load block b. Head: rows before `first` are not in the sequence.
    template <int Buffer, bool Head>
    TCNCA_HOST_DEVICE void prefetch(int b) {
      T const* const from = x + index_t(b) * (rows * d);
      if constexpr (Aligned) {
        if (b < end_block) warp.copy_16(stage(b) + own, from, exists && (!Head || lane_row(lane) >= first));
        warp.commit();
      } else {
        bool const present = exists && b < end_block;
        TCNCA_UNROLL
        for (int j = 0; j < rows; j++) raw[Buffer][j] = present && (!Head || j >= first) ? from[j * d].bits : uint16(0);
      }
    }

    /// Computes block b, whose inputs go to slot Slot.
    template <int Slot, bool Head>
    TCNCA_HOST_DEVICE void step(int b) {
      if constexpr (Aligned) {
        warp.template wait<ahead - 1>();
      } else {
        TCNCA_UNROLL
        for (int j = 0; j < rows; j++) warp.store_shared_16(element(b, j), raw[Slot % ahead][j]);
      }
      warp.sync();
      prefetch<Aligned ? 0 : Slot % ahead, false>(b + ahead);
      if (Head && agent.params.state_in.present()) {
        state_column<A const> const state(*this, agent.params.state_in);
        for (int j = 0; j < rows; j++)
          if (j < state.first) warp.store_shared_16(element(b, j), state.bits(j));
        warp.sync();
      }
      uint32 in[4], out[4];
      load_block<Slot>(stage(b), in);
      TCNCA_UNROLL
      for (int g = 0; g < 2; g++) {
        float c[4];
        TCNCA_UNROLL
        for (int p = 0; p < slots / 2; p++) {
          uint32 const(&a)[4] = block[g][p];
          int const t = (2 * p - Slot / 2 * 2 + slots) % slots;
          warp.template multiply<T>(c, p == 0 ? bias : c, a[0], a[1], a[2], a[3], weight[Slot % 2][t],
                                    weight[Slot % 2][t + 1]);
        }
        out[2 * g] = output(c[0], c[1], in[2 * g]), out[2 * g + 1] = output(c[2], c[3], in[2 * g + 1]);
      }
      store_block(stage(b), out);
      warp.sync();
      if (b >= begin_block) store_rows<Head>(b);
    }
    /// Two outputs, from their sums and inputs.
    TCNCA_HOST_DEVICE static uint32 output(float low, float high, uint32 in) {
      constexpr bool adds_input = Shape.residuals == residual::level;
      if constexpr (Shape.act == activation::relu && !adds_input) {
        return element_pair_relu<T>(low, high);
      } else {
        auto a = broadcast<2>(low);
        a.set_lane(1, high);
        a = activate<Shape.act>(a).value;
        if constexpr (adds_input) {
          a.set_lane(0, a.lane(0) + element_of_pair<T>(in, 0)), a.set_lane(1, a.lane(1) + element_of_pair<T>(in, 1));
        }
        return element_pair<T>(a.lane(0), a.lane(1));
      }
    }

    /// Loads a block from a stage to a slot and to `in`, one register for each 8 columns.
    template <int Slot>
    TCNCA_HOST_DEVICE void load_block(address_type from, uint32 (&in)[4]) {
      warp.load_matrices_transposed(in, from + matrix);
      TCNCA_UNROLL
      for (int i = 0; i < 4; i++) block[i / 2][Slot / 2][Slot % 2 * 2 + i % 2] = in[i];
    }
    TCNCA_HOST_DEVICE void store_block(address_type to, uint32 const (&v)[4]) const {
      if constexpr (warp_type::stores_matrices) {
        warp.store_matrices_transposed(to + matrix, v);
      } else {
        TCNCA_UNROLL
        for (int i = 0; i < 8; i++)
          warp.store_shared_16(to + address_type(offset(lane % 4 * 2 + i % 2, i / 2) + lane / 4 * 2),
                               uint16(v[i / 2] >> (16 * (i % 2))));
      }
    }
    /// Copies the rows of a stage to y.
    template <bool Head>
    TCNCA_HOST_DEVICE void store_rows(int b) const {
      T* const to = y + index_t(b) * (rows * d);
      if constexpr (Aligned) {
        uint32 v[4];
        warp.load_shared(v, stage(b) + own);
        if (exists && (!Head || lane_row(lane) >= first)) {
#if defined(__CUDA_ARCH__)
          detail::store_global_16(to, v);
#else
          __builtin_memcpy(to, v, sizeof(v));
#endif
        }
      } else {
        TCNCA_UNROLL
        for (int j = 0; j < rows; j++) {
          uint16 const v = warp.load_shared_16(element(b, j));
          if (exists && (!Head || j >= first)) to[j * d].bits = v;
        }
      }
    }
    // --- States. A lane accesses one column. ---

    template <class U>
    struct state_column : detail::column_rows<d, rows> {
      static constexpr index_t length = max_of(index_t(1), Shape.history(layer));
      U* slots;
      index_t stride;
      int next;     // slot of row 0
      bool exists;  // whether the column does

      TCNCA_HOST_DEVICE state_column(walker const& w, sequence_view<U> const& state)
          : detail::column_rows<d, rows>(w.agent.params.x.extent[2], w.column + w.lane),
            slots(state.at(w.batch, w.channel, Shape.history_before(layer))),
            stride(state.stride[2]),
            next(int(detail::modulo(w.agent.params.position + this->begin, length))),
            exists(w.column + w.lane < d) {}
      TCNCA_HOST_DEVICE U* at(int row) const { return slots + detail::modulo(next + row * d, length) * stride; }
      /// The input at a row before `first`.
      TCNCA_HOST_DEVICE uint16 bits(int row) const {
        return exists && row > this->first - taps ? from_accumulate<T>(*at(row)).bits : uint16(0);
      }
    };
    TCNCA_HOST_DEVICE void load_history() {
      state_column<A const> const state(*this, agent.params.state_in);
      unroll<0, history>([&](auto i) TCNCA_INLINE {
        constexpr int b = int(i) - history;
        for (int j = 0; j < rows; j++) warp.store_shared_16(element(i, j), state.bits(b * rows + j));
        warp.sync();
        uint32 in[4];
        load_block<b + slots>(stage(i), in);
      });
      warp.sync();
    }
    /// Writes the newest inputs to the state. `newest` is the slot of the last block.
    TCNCA_HOST_DEVICE void store_history(int newest) const {
      state_column<A> const state(*this, agent.params.state_out);
      warp.sync();
      for (int a = 0; a < history; a++) {
        // By masks: of branches the compiler would make an address, and keep the blocks in memory.
        uint32 v[4] = {};
        TCNCA_UNROLL
        for (int s = 0; s < slots; s++) {
          uint32 const mask = (newest - a + slots) % slots == s ? ~0u : 0u;
          TCNCA_UNROLL
          for (int i = 0; i < 4; i++) v[i] |= block[i / 2][s / 2][s % 2 * 2 + i % 2] & mask;
        }
        store_block(stage(a), v);
        warp.sync();
        for (int j = 0; j < rows; j++)
          if (state.exists && (a + 1) * rows - j < taps)
            *state.at((blocks - 1 - a) * rows + j) = to_accumulate(T{warp.load_shared_16(element(a, j))});
        warp.sync();
      }
    }
  };
};

}  // namespace tcnca
