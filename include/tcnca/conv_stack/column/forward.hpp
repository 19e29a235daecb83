// Forward pass over layers of large dilations. A thread owns columns: positions that are a multiple of the first
// dilation apart. It walks along their rows, reads each input once and keeps the histories of all layers to itself.
#pragma once
#include "../../block/activation.hpp"
#include "../../block/agent.hpp"
#include "../../block/unroll.hpp"
#include "../state.hpp"
#include "plan.hpp"
#include "rows.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of a forward pass along columns. An item is a set of columns, see column_partition; segments are not used.
///
/// y may be the same memory as x: the thread that owns a column reads an element before it writes it, and no other
/// thread accesses it. state_out may be the same memory as state_in. Sums start from the bias and add the taps in
/// ascending order by fma; intermediate results are not rounded to T. A value that is not finite reaches only the
/// outputs that depend on it, and a weight that is not finite all outputs of its channel: inputs before the sequence
/// are multiplied as zeros.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct conv_stack_column_forward_agent {
  static_assert(has_column_forward_plan<T, Shape, Layers>, "these layers have no column plan");
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_pass_params<T, parameter_t<T, Shape.weights>>;
  static constexpr conv_stack_column_plan plan = make_column_forward_plan(Shape, Layers);
  static constexpr bool along_length = Shape.order == layout::batch_channels_length;
  static constexpr index_t d = Shape.dilation(Layers.first);
  static constexpr bool is_long = plan.register_slots > conv_stack_column_plan::few_register_slots;
  static constexpr int width = sizeof(T) == 8 || is_long ? 1 : 2;  // columns of a thread
  static constexpr int segment_grain = 1;
  static constexpr index_t halo = 0;
  static constexpr int blocks_per_multiprocessor =
      max_of(1, min_of(is_long ? 256 : 512,
                       plan.shared_slots > 0 ? 220 * 1024 / int(plan.shared_slots * width * sizeof(A)) : 512) /
                    Group::size());
  using partition = detail::column_partition<Group, along_length, width>;

  Group group;
  params_type const& params;
  A* shared;

  TCNCA_HOST_DEVICE conv_stack_column_forward_agent(Group g, params_type const& p, A* shared_memory, A*)
      : group(g), params(p), shared(shared_memory) {}

  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) {
    return {.shared_memory_bytes = size_t(plan.shared_slots) * Group::size() * width * sizeof(A)};
  }
  TCNCA_HOST_DEVICE static index_t items(params_type const& p) {
    partition const part = partition_of(p);
    return p.x.extent[0] * part.channel_groups * part.position_groups;
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    partition const part = partition_of(params);
    index_t const position_group = item % part.position_groups, row = item / part.position_groups;
    index_t const channel_group = row % part.channel_groups, batch = row / part.channel_groups;
    if (width > 1 && vectorizable(batch, channel_group)) {
      auto const at = part.of(group.rank(), channel_group, position_group, 0, true);
      if (at.channel < params.x.extent[1] && at.column < d) columns<width>(*this, batch, at.channel, at.column).walk();
    } else {
      for (int e = 0; e < width; e++) {
        auto const at = part.of(group.rank(), channel_group, position_group, e, false);
        if (at.channel < params.x.extent[1] && at.column < d) columns<1>(*this, batch, at.channel, at.column).walk();
      }
    }
  }

 private:
  static constexpr int count = Layers.count(), taps = Shape.taps, rows = plan.rows;

  TCNCA_HOST_DEVICE static partition partition_of(params_type const& p) {
    // Columns without a row have a state to pass on.
    index_t const length = p.x.extent[2];
    return {p.x.extent[1], d, p.state_out.present() ? d : min_of(d, length)};
  }
  /// Whether `width` neighbouring columns of x and of y are aligned to their size in every row.
  TCNCA_HOST_DEVICE bool vectorizable(index_t batch, index_t channel_group) const {
    constexpr size_t bytes = width * sizeof(T);
    index_t const channel = along_length ? channel_group : 0;
    auto const aligned = [](void const* p) TCNCA_INLINE { return size_t(p) % bytes == 0; };
    if (!aligned(params.x.at(batch, channel, 0)) || !aligned(params.y.at(batch, channel, 0))) return false;
    if constexpr (along_length) {
      return d % width == 0 && params.x.extent[2] % width == 0;
    } else {
      return params.x.extent[1] % width == 0 && params.x.stride[2] % width == 0 && params.y.stride[2] % width == 0;
    }
  }

  /// Computes W neighbouring columns of one thread.
  template <int W>
  struct columns : detail::column_rows<d, rows, along_length> {
    using base = detail::column_rows<d, rows, along_length>;
    using base::begin, base::first, base::blocks, base::position_step, base::row_0, base::row_step;
    using value = pack<A, W>;
    static constexpr int weight_lanes = along_length ? 1 : W;  // neighbouring columns are positions or channels
    // Loads in flight: 24 KB of a multiprocessor, what 5 TB/s read in a microsecond of latency.
    static constexpr int prefetch_rows = [] {
      int n = min_of(rows,
                     (is_long ? 16 : 24) * 1024 / (blocks_per_multiprocessor * Group::size() * int(width * sizeof(T))));
      while (n > 1 && rows % n != 0) n--;
      return max_of(1, n);
    }();
    static constexpr int slot_stride = Group::size() * W;
    static constexpr int granule_rows = plan.granule, granules = max_of(1, plan.granules);

    conv_stack_column_forward_agent const& agent;
    int batch, channel;
    A* shared;   // the thread's slot 0
    T const* x;  // row 0 of the block
    T* y;
    detail::array<detail::raw_elements<T, W>, prefetch_rows> next;  // inputs of the next rows
    detail::array<value, max_of(1, plan.register_slots)> history;
    detail::array<int, granules>
        granule;  // offsets of the granules in shared memory, from that of the block's first row on
    detail::array<detail::array<pack<A, weight_lanes>, taps>, count> weight;
    detail::array<pack<A, weight_lanes>, count> bias;

    TCNCA_HOST_DEVICE columns(conv_stack_column_forward_agent const& a, index_t b, index_t c, index_t column)
        : base(a.params.x.extent[2], column), agent(a), batch(int(b)), channel(int(c)) {
      shared = a.shared + a.group.rank() * W;
      x = row_0(a.params.x, b, c);
      y = row_0(a.params.y, b, c);
    }
    TCNCA_HOST_DEVICE index_t x_step() const { return row_step(agent.params.x); }
    TCNCA_HOST_DEVICE index_t y_step() const { return row_step(agent.params.y); }

    TCNCA_HOST_DEVICE void walk() {
      load_history();
      if (agent.params.x.extent[2] > 0) TCNCA_UNROLL
      for (int j = 0; j < prefetch_rows; j++)
        if (j >= first) next[j] = detail::load_raw<T, W>(x + j * x_step());
      load_weights();
      int b = 0;
      // The same in all threads: whether some column of the sequence is absent in the first rows.
      if (agent.params.x.extent[2] < index_t(blocks) * (d * rows)) block<true>(b++);
      for (; b < blocks; b++) block<false>(b);
      if (agent.params.state_out.present()) store_history();
    }

    /// Computes `rows` rows. Head: those before `first` are not in the sequence.
    template <bool Head>
    TCNCA_HOST_DEVICE void block(int b) {
      bool const more = b + 1 < blocks;
      TCNCA_UNROLL
      for (int j = 0; j < rows; j++) {
        auto& input = next[j % prefetch_rows];
        value const v = input.widen();
        int const following = j + prefetch_rows;
        if (following < rows ? !Head || following >= first : more)
          input = detail::load_raw<T, W>(x + following * x_step());
        if (!Head || j >= first)
          detail::store_raw<T, W>(y + j * y_step(), detail::raw_elements<T, W>::narrow(row(j, v)));
      }
      x += rows * x_step(), y += rows * y_step();
      detail::array<int, granules> before;
      TCNCA_UNROLL
      for (int q = 0; q < granules; q++) before[q] = granule[q];
      TCNCA_UNROLL
      for (int q = 0; q < granules; q++) granule[q] = before[(q + rows / granule_rows) % granules];
    }

    /// The output of row j of a block for input v.
    TCNCA_HOST_DEVICE value row(int j, value v) {
      unroll<0, count>([&](auto l) TCNCA_INLINE {
        constexpr int step = plan.layer[l].step;
        value const in = v;
        value sum = detail::fma_by_lane(widened(weight[l][0]), in, Shape.bias ? widened(bias[l]) : broadcast<W>(A(0)));
        TCNCA_UNROLL
        for (int k = 1; k < taps; k++)
          sum = detail::fma_by_lane(widened(weight[l][k]), past_input<l>(j - k * step), sum);
        if constexpr (taps > 1) { store_input<l>(j, in); }
        v = activate<Shape.act>(sum).value;
        if constexpr (Shape.residuals == residual::level) { v = v + in; }
      });
      return v;
    }

    TCNCA_HOST_DEVICE static value widened(pack<A, weight_lanes> w) {
      if constexpr (weight_lanes == W) {
        return w;
      } else {
        return broadcast<W>(w.lane(0));
      }
    }

    // --- Histories. Rows are counted from the first row of the block; row j of a layer may replace row j - slots. ---

    template <int L>
    TCNCA_HOST_DEVICE static constexpr int register_slot(int row) {
      constexpr int first_slot = plan.layer[L].first_slot, slots = max_of(1, plan.layer[L].slots);
      return first_slot + (row % slots + slots) % slots;
    }
    /// Offset of a row in the ring in shared memory.
    TCNCA_HOST_DEVICE int shared_offset(int row) const {
      int const up = (row + granules * granule_rows * 64) / granule_rows - granules * 64;  // rounded down
      return granule[(up % granules + granules) % granules] + (row - up * granule_rows) * slot_stride;
    }
    template <int L>
    TCNCA_HOST_DEVICE value past_input(int row) const {
      if constexpr (plan.layer[L].in_registers) {
        return history[register_slot<L>(row)];
      } else {
        return load<W>(static_cast<A const*>(shared + shared_offset(row)));
      }
    }
    template <int L>
    TCNCA_HOST_DEVICE void store_input(int row, value v) {
      if constexpr (plan.layer[L].in_registers) {
        history[register_slot<L>(row)] = v;
      } else {
        store<W>(shared + shared_offset(row), v);
      }
    }

    /// Fills the rings with the inputs before row `first`: the state, or zeros.
    TCNCA_HOST_DEVICE void load_history() {
      bool const has_state = agent.params.state_in.present();
      TCNCA_UNROLL
      for (int q = 0; q < granules; q++) granule[q] = q * granule_rows * slot_stride;
      unroll<0, count>([&](auto l) TCNCA_INLINE {
        constexpr column_history h = plan.layer[l];
        TCNCA_UNROLL
        for (int s = 0; s < h.slots; s++) set_slot<l>(s, broadcast<W>(A(0)));
        if (!has_state) return;
        state_column<l, A const> const state(*this, agent.params.state_in, begin + first * d);
        auto const load_slot = [&](int s) TCNCA_INLINE {
          int const age = (first - 1 - s + h.slots * 64) % max_of(1, h.slots);  // 0: row first - 1
          if (age < h.length) set_slot<l>(s, state.load(age + 1));
        };
        if constexpr (h.in_registers) {
          TCNCA_UNROLL
          for (int s = 0; s < h.slots; s++) load_slot(s);
        } else {
          for (int s = 0; s < h.slots; s++) load_slot(s);
        }
      });
    }
    /// Before the first block: sets slot s of a ring.
    template <int L>
    TCNCA_HOST_DEVICE void set_slot(int s, value v) {
      if constexpr (plan.layer[L].in_registers) {
        history[plan.layer[L].first_slot + s] = v;
      } else {
        store<W>(shared + s * slot_stride, v);
      }
    }
    /// Writes the newest inputs of all layers to the state. Rings in registers pass through the ring in shared memory,
    /// if there is one: a loop needs fewer registers than unrolled code.
    TCNCA_HOST_DEVICE void store_history() {
      unroll<0, count>([&](auto l) TCNCA_INLINE {
        if constexpr (!plan.layer[l].in_registers) { store_history<l>(); }
      });
      unroll<0, count>([&](auto l) TCNCA_INLINE {
        if constexpr (plan.layer[l].in_registers) { store_history<l>(); }
      });
    }
    template <int L>
    TCNCA_HOST_DEVICE void store_history() {
      constexpr column_history h = plan.layer[L];
      state_column<L, A> const state(*this, agent.params.state_out, begin + blocks * (d * rows));
      if constexpr (!h.in_registers) {
        TCNCA_UNROLL
        for (int q = 0; q < granules; q++)
          for (int i = 0; i < granule_rows; i++)
            state.store(h.length - q * granule_rows - i,
                        load<W>(static_cast<A const*>(shared + granule[q] + i * slot_stride)));
      } else if constexpr (plan.shared_slots >= h.length) {
        TCNCA_UNROLL
        for (int i = 0; i < h.length; i++) store<W>(shared + i * slot_stride, history[register_slot<L>(i - h.length)]);
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
        for (int i = 0; i < h.length; i++)
          state.store(h.length - i, load<W>(static_cast<A const*>(shared + i * slot_stride)));
      } else {
        TCNCA_UNROLL
        for (int row = 1; row <= h.length; row++) state.store(row, history[register_slot<L>(-row)]);
      }
    }
    /// The state of a layer for these columns; rows are counted backwards from position t, 1 to `length`.
    template <int L, class U>
    struct state_column {
      static constexpr int layer = Layers.first + L, positions = along_length ? W : 1;
      static constexpr index_t length = max_of(index_t(1), Shape.history(layer));
      U* slots;  // of the first channel
      index_t channel_stride, slot_stride;
      detail::array<int, positions> newest;  // slot of position t

      TCNCA_HOST_DEVICE state_column(columns const& c, sequence_view<U> const& state, index_t t)
          : slots(state.at(c.batch, c.channel, Shape.history_before(layer))),
            channel_stride(along_length ? 0 : state.stride[1]),
            slot_stride(position_step(state.stride[2])) {
        TCNCA_UNROLL
        for (int i = 0; i < positions; i++) newest[i] = int(detail::modulo(c.agent.params.position + t + i, length));
      }
      TCNCA_HOST_DEVICE U* at(int row, int i) const {
        int const slot = newest[along_length ? i : 0] - row * int(d);
        return slots + i * channel_stride + (slot < 0 ? slot + int(length) : slot) * slot_stride;
      }
      TCNCA_HOST_DEVICE value load(int row) const {
        value v = broadcast<W>(A(0));
        TCNCA_UNROLL
        for (int i = 0; i < W; i++) v.set_lane(i, *at(row, i));
        return v;
      }
      TCNCA_HOST_DEVICE void store(int row, value v) const {
        TCNCA_UNROLL
        for (int i = 0; i < W; i++) *at(row, i) = v.lane(i);
      }
    };

    TCNCA_HOST_DEVICE void load_weights() {
      TCNCA_UNROLL
      for (int l = 0; l < count; l++) {
        TCNCA_UNROLL
        for (int i = 0; i < weight_lanes; i++) {
          TCNCA_UNROLL
          for (int k = 0; k < taps; k++)
            weight[l][k].set_lane(i, to_accumulate(*agent.params.weight.at(Layers.first + l, k, channel + i)));
          if constexpr (Shape.bias) {
            bias[l].set_lane(i, to_accumulate(*agent.params.bias.at(Layers.first + l, channel + i)));
          }
        }
      }
    }
  };
};

}  // namespace tcnca
