// The register-phase forward kernel. A group walks along a row in tiles. Within a tile it computes the layers in
// phases: a thread holds a chain of values in registers, applies the layers of the phase to it and writes the last
// one's outputs to shared memory, where the next phase reads them as other chains. See plan.hpp for the schedule.
#pragma once
#include "../../block/agent.hpp"
#include "chain.hpp"
#include "channels.hpp"
#include "group.hpp"
#include "state.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of a forward pass over layers that have a plan. An item is one segment of one row. Intermediate results have
/// the accumulate type. Each output is one expression of its inputs, independent of tiles and segments: fp32 results
/// have the same bits as those of the generic forward agent, except that before the sequence a tap reads a zero instead
/// of being skipped, which matters for infinite weights only. A NaN or an infinity in x reaches the outputs that depend
/// on it, and no others. The state may be updated in place.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
class conv_stack_phase_forward_agent : detail::phase_group<Group, T, Shape, Layers>,
                                       public channel_cluster<Shape.order == layout::batch_length_channels> {
  using base = detail::phase_group<Group, T, Shape, Layers>;
  using base::Plan, base::phases, base::threads, base::tile, base::vector, base::group, base::warp, base::shared;
  using typename base::value;

  static constexpr bool channels_last = Shape.order == layout::batch_length_channels;
  using exchange_type = typename detail::phase_exchange_of<Group, T, Shape, Layers, channels_last>::type;
  static constexpr int exchange_offset = round_up(Plan.size, 128 / int(sizeof(accumulate_t<T>)));
  static constexpr int bytes =
      (channels_last ? exchange_offset : Plan.size) * int(sizeof(accumulate_t<T>)) + exchange_type::bytes;

 public:
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_pass_params<T, parameter_t<T, Shape.weights>>;
  static_assert(has_phase_forward_plan<T, Shape, Layers> &&
                Group::size() == phase_forward_plan<T, Shape, Layers>.threads);
  static constexpr int segment_grain = Plan.tile;
  static constexpr index_t halo = history_of(Shape, Layers);
  /// Registers for 16 warps, or fewer if shared memory does not allow them.
  static constexpr int blocks_per_multiprocessor = max_of(1, min_of(4, 227 * 1024 / (bytes + 1024)));
  /// The least length at which state_in and state_out may be the same memory.
  static constexpr index_t in_place_length = 1;

  TCNCA_HOST_DEVICE conv_stack_phase_forward_agent(Group g, params_type const& params, A* memory, A*)
      : base(g, memory), params_(params), exchange_(g, memory + exchange_offset) {
    // The rest of vectors is read, but not used.
    for (int i = Plan.weight_offset + g.rank(); i < Plan.size; i += threads) shared[i] = A(0);
    g.sync();
  }

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.x.extent[0] * rows(p) * p.segments;
  }
  static constexpr group_memory memory(params_type const&) { return {.shared_memory_bytes = size_t(bytes)}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const channels = params_.x.extent[1], segments = params_.segments;
    int const length = int(params_.x.extent[2]);
    index_t batch, channel, segment;
    if constexpr (channels_last) {  // neighbouring clusters share sectors of memory, so they process the same positions
      batch = item / (rows(params_) * segments), segment = item / rows(params_) % segments;
      channel = item % rows(params_) * 8 + exchange_.rank();
    } else {
      batch = item / segments / channels, channel = item / segments % channels, segment = item % segments;
    }
    bool const exists = channel < channels;
    first_output_ = int(segment) * params_.segment_length;
    last_output_ = min_of(length, first_output_ + params_.segment_length);
    x_ = params_.x.at(batch, channel, 0), y_ = params_.y.at(batch, channel, 0);
    constexpr int alignment = 16 / int(sizeof(T));
    begin_ = max_of(0, first_output_ - int(halo)) / alignment * alignment;
    if constexpr (channels_last) {
      exchange_.begin(warp, params_, batch, channel, begin_, first_output_, last_output_);
      channel = min_of(channel, channels - 1);  // without one of its own, a group computes zeros
    } else {
      load_input();
    }

    bool const begins = begin_ == 0, ends = last_output_ == length;
    auto const state_in =
        initial_state::of(params_.state_in, batch, channel, exists && begins && params_.state_in.present());
    state_out_ = final_state::of(params_.state_out, batch, channel, exists && ends && params_.state_out.present());
    load_parameters(channel);
    if (state_in.data || state_out_.data) {
      if (int const l = Layers.first + group.rank(); l < Layers.last) {
        base::slot(l, false) = initial_state::slot(l, params_.position);
        base::slot(l, true) = final_state::slot(l, params_.position + length);
      }
      group.sync();
    }
    resident_state state;
    unroll<0, resident_values>([&](auto i) TCNCA_INLINE { state.at[i] = {A(0)}; });
    unroll<Layers.first, Layers.last>([&](auto l) TCNCA_INLINE { load_initial<decltype(l)::value>(state_in, state); });
    if (state_out_.data) {
      group.sync();  // the states may be the same memory
      unroll<Layers.first, Layers.last>([&](auto l) TCNCA_INLINE { begin_final<decltype(l)::value>(state_in); });
    }
    if constexpr (channels_last) { exchange_.scatter_first(warp, base::stage()); }
    for (starts_ = true; begin_ < last_output_; begin_ += tile, starts_ = false) {
      emits_ = state_out_.data && begin_ + tile > length - longest_history;
      if constexpr (!channels_last) { warp.wait(); }
      group.sync();
      run<0>(state);
    }
    if constexpr (channels_last) { exchange_.end(); }
    group.sync();  // the next item writes to the memory that this one has read
  }

 private:
  using initial_state = detail::state_row<A const, Shape>;
  using final_state = detail::state_row<A, Shape>;
  static constexpr conv_stack_phase last_phase = Plan.phase[phases - 1];
  static constexpr bool is_resident = last_phase.kind == phase_kind::resident;
  static constexpr int resident_values = is_resident ? last_phase.chains * last_phase.halo : 0;
  static constexpr int longest_history = [] {
    index_t longest = 0;
    for (int l = Layers.first; l < Layers.last; l++) longest = max_of(longest, Shape.history(l));
    return int(longest);
  }();

  /// The newest inputs of the layers of a resident phase, chain by chain, layer by layer, the oldest first.
  struct resident_state {
    detail::array<value, max_of(resident_values, 1)> at;
  };

  params_type const& params_;
  int first_output_, last_output_;
  int begin_;    // of the tile
  bool starts_;  // this is the first tile of the walk
  bool emits_;   // the tile has inputs of layers that belong to the final state
  T const* x_;
  T* y_;
  final_state state_out_;
  exchange_type exchange_;

  /// Rows of one batch, or groups of eight channels.
  TCNCA_HOST_DEVICE static constexpr index_t rows(params_type const& p) {
    return channels_last ? divide_up(p.x.extent[1], index_t(8)) : p.x.extent[1];
  }

  TCNCA_HOST_DEVICE int length() const { return int(params_.x.extent[2]); }
  TCNCA_HOST_DEVICE void load_input() const {
    detail::load_tile<T, Shape, Layers>(group, warp, base::stage(), x_, begin_, length(), params_.x_vectorizable);
  }

  // --- What precedes the walk, and the final state. ---

  TCNCA_HOST_DEVICE void load_parameters(index_t channel) const {
    constexpr int count = Layers.count() * Shape.taps;
    for (int first = 0; first < count; first += threads) {
      int const i = first + group.rank();
      if (i >= count) break;
      int const l = Layers.first + i / Shape.taps, k = i % Shape.taps;
      *base::weight(l, k) = to_accumulate(*params_.weight.at(l, k, channel));
    }
    if constexpr (Shape.bias) {
      static_assert(Layers.count() <= threads);
      int const l = Layers.first + group.rank();
      if (l < Layers.last) *base::bias(l) = to_accumulate(*params_.bias.at(l, channel));
    }
  }

  /// Input p < 0 of layer L, before the walk.
  template <int L>
  TCNCA_HOST_DEVICE A initial(initial_state const& state, int p) const {
    if (!state.data || p < -int(Shape.history(L))) return A(0);
    return state.at(L, base::slot(L, false), p);
  }
  /// The phase of a layer.
  TCNCA_HOST_DEVICE static constexpr int phase_of(int layer) {
    int i = 0;
    while (layer >= Plan.phase[i].last) i++;
    return i;
  }
  /// Writes what precedes the walk of layer L to shared memory or registers.
  template <int L>
  TCNCA_HOST_DEVICE void load_initial(initial_state const& from, resident_state& state) const {
    constexpr int I = phase_of(L), history = int(Shape.history(L)), to = Plan.start_offset[L - Layers.first];
    constexpr int stride = Plan.phase[I].stride;
    if constexpr (Plan.phase[I].kind == phase_kind::resident) {
      if (!from.data) return;
      constexpr int values = history / stride, offset = resident_offset(L);
      TCNCA_UNROLL
      for (int c = 0; c < last_phase.chains; c++) TCNCA_UNROLL
      for (int i = 0; i < values; i++)
        state.at[c * last_phase.halo + offset + i] = {initial<L>(from, resident_position(c) + (i - values) * stride)};
    } else if constexpr (to >= 0) {
      for (int p = group.rank() - history; p < 0; p += threads) shared[to + history + p] = initial<L>(from, p);
    } else {
      for (int p = group.rank() - Plan.history[I - 1]; p < 0; p += threads)
        *base::template input<I>(p) = initial<L>(from, p);
    }
  }
  /// Where the inputs of a layer of the resident phase begin in a chain's state.
  TCNCA_HOST_DEVICE static constexpr int resident_offset(int layer) {
    return last_phase.halo - int(Shape.history(layer)) / last_phase.stride -
           base::template halo_after<phases - 1>(layer);
  }

  /// Writes what the phases do not write of the final state of layer L: the inputs of the first layer, if they are only
  /// in x, and what precedes the sequence.
  template <int L>
  TCNCA_HOST_DEVICE void begin_final(initial_state const& from) const {
    constexpr int history = int(Shape.history(L));
    int const end = length(), slot = base::slot(L, true);
    if (params_.state_in.data != params_.state_out.data) {
      for (int p = end - history + group.rank(); p < 0; p += threads)
        state_out_.at(L, slot, p - end) = initial<L>(from, p);
    }
    if constexpr (phase_of(L) == 0 && L == Layers.first) {
      for (int p = max_of(end - history, 0) + group.rank(); p < end; p += threads)
        state_out_.at(L, slot, p - end) = to_accumulate(x_[channels_last ? p * params_.x.stride[2] : p]);
    }
  }
  /// Writes input p of a layer, relative to the tile, if it belongs to the final state.
  TCNCA_HOST_DEVICE void emit(int layer, int p, A v) const {
    int const distance = p - (length() - begin_);
    if (distance >= -int(Shape.history(layer)) && distance < 0)
      state_out_.at(layer, base::slot(layer, true), distance) = v;
  }
  /// Writes the inputs of layer L of phase I that belong to the final state. The chains keep those of later layers in
  /// registers; they are computed again, each from all inputs of the phase that it depends on. A resident phase writes
  /// them itself.
  template <int I, int L>
  TCNCA_HOST_DEVICE void emit_layer() const {
    constexpr int history = int(Shape.history(L));
    if constexpr (L == Plan.phase[I].first ? I > 0 : Plan.phase[I].kind != phase_kind::resident) {
      int const end = length() - begin_;
      for (int p = max_of(end - history, 0) + group.rank(); p < min_of(end, tile); p += threads)
        emit(L, p, layer_input<I, L>(p).lane(0));
    }
  }
  /// Input p of layer L of phase I.
  template <int I, int L>
  TCNCA_HOST_DEVICE value layer_input(int p) const {
    constexpr int start = Plan.start_offset[L - Layers.first];
    if constexpr (start >= 0) {
      if (starts_ && p < 0) {
        int const i = p + int(Shape.history(L));
        return {i >= 0 ? shared[start + i] : A(0)};
      }
    }
    if constexpr (L > Plan.phase[I].first) {
      value sum = {Shape.bias ? *base::bias(L - 1) : A(0)}, newest = {};
      for (int k = 0; k < Shape.taps; k++) {
        value const in = layer_input<I, L - 1>(p - k * int(Shape.dilation(L - 1)));
        if (k == 0) newest = in;
        sum = fma(value{*base::weight(L - 1, k)}, in, sum);
      }
      return detail::layer_activation<Shape>(sum, newest);
    } else if constexpr (I == 0) {
      return load<1>(const_cast<T const*>(base::stage()) + detail::phase_stage<T>::offset(Plan.stage_halo + p));
    } else {
      return {*base::template input<I>(p)};
    }
  }

  // --- Phases. ---

  /// Phase I and the following ones. Called after a barrier.
  template <int I>
  TCNCA_HOST_DEVICE void run(resident_state& state) {
    constexpr conv_stack_phase phase = Plan.phase[I];
    if constexpr (channels_last && I > 0 && I + 1 == phases) { exchange_.exchange(warp, base::stage()); }
    if (emits_) unroll<phase.first, phase.last>([&](auto l) TCNCA_INLINE { emit_layer<I, decltype(l)::value>(); });
    if constexpr (phase.kind == phase_kind::resident) {
      run_resident(state);
    } else {
      for (int n = 0; n < phase.chains; n++) {
        using chain = detail::phase_chain<base, I, Shape>;
        int const number = group.rank() + n * threads;
        if (chain::exists(number)) chain(*this, number).run(starts_);
      }
      if constexpr (I == 0) {
        group.sync();
        if constexpr (channels_last) {
          exchange_.keep_halo(base::stage());
          if constexpr (phases == 1) { exchange_.exchange(warp, base::stage()); }
        } else {
          if (begin_ + tile < last_output_) load_next();
        }
      } else {
        base::template keep_history<I>();
      }
      if constexpr (I + 1 < phases) {
        run<I + 1>(state);
      } else {
        write_output();
      }
    }
  }
  TCNCA_HOST_DEVICE void load_next() const {
    detail::load_tile<T, Shape, Layers>(group, warp, base::stage(), x_, begin_ + tile, length(),
                                        params_.x_vectorizable);
  }
  TCNCA_HOST_DEVICE void write_output() {
    A const* const buffer = shared + Plan.area(phases - 1);
    if constexpr (channels_last) {
      exchange_.send(buffer);
    } else {
      detail::store_tile<T, Shape, Layers>(group, buffer, y_, begin_, first_output_, last_output_,
                                           params_.y_vectorizable);
    }
  }

  /// Residue class of the thread's chain c of the resident phase: groups of `resident_width` neighbours.
  static constexpr int resident_width = min_of(max_of(last_phase.chains, 1), vector);
  TCNCA_HOST_DEVICE int resident_position(int c) const {
    return (c / resident_width * threads + group.rank()) * resident_width + c % resident_width;
  }
  TCNCA_HOST_DEVICE void run_resident(resident_state& state) {
    constexpr int I = phases - 1, stride = last_phase.stride, outputs = last_phase.outputs, width = resident_width;
    constexpr padded_layout place = Plan.buffer[I - 1];
    bool const direct =
        !channels_last && params_.y_vectorizable && begin_ >= first_output_ && begin_ + tile <= last_output_;
    TCNCA_UNROLL
    for (int c = 0; c < last_phase.chains; c += width) {
      int const first = resident_position(c);
      A const* const from = shared + Plan.area(I - 1) + place(first);
      detail::array<detail::array<value, outputs>, width> x;
      TCNCA_UNROLL
      for (int j = 0; j < outputs; j++) {
        auto const v = load<width>(from + place(j * stride));
        TCNCA_UNROLL
        for (int e = 0; e < width; e++) x[e][j] = {v.lane(e)};
      }
      TCNCA_UNROLL
      for (int e = 0; e < width; e++)
        unroll<last_phase.first, last_phase.last>([&](auto layer) TCNCA_INLINE {
          apply_resident<decltype(layer)::value>(x[e], state.at + (c + e) * last_phase.halo, first + e);
        });
      auto const write = [&](auto* to) TCNCA_INLINE {
        TCNCA_UNROLL
        for (int j = 0; j < outputs; j++) {
          pack<A, width> v;
          TCNCA_UNROLL
          for (int e = 0; e < width; e++) v.set_lane(e, x[e][j].lane(0));
          store<width>(to + j * stride, v);
        }
      };
      if (direct) {
        write(y_ + begin_ + first);
      } else {
        write(shared + Plan.area(I) + first);
      }
    }
    if (!direct) {
      group.sync();
      write_output();
    }
  }
  /// Applies a layer to a chain of the resident phase and keeps its newest inputs. `first`: position of x[0].
  template <int L>
  TCNCA_HOST_DEVICE void apply_resident(detail::array<value, last_phase.outputs>& x, value* state, int first) const {
    constexpr int outputs = last_phase.outputs, stride = last_phase.stride, step = int(Shape.dilation(L)) / stride;
    constexpr int history = (Shape.taps - 1) * step, offset = resident_offset(L);
    if constexpr (L > last_phase.first) {
      if (emits_) {  // by way of shared memory: a loop over registers would be unrolled
        A* const buffer = shared + Plan.area(phases - 1);
        TCNCA_UNROLL
        for (int j = 0; j < outputs; j++) store<1>(buffer + first + j * stride, x[j]);
        for (int p = first; p < tile; p += stride) emit(L, p, buffer[p]);
      }
    }
    detail::array<value, history + outputs> in;
    TCNCA_UNROLL
    for (int i = 0; i < history + outputs; i++) in[i] = i < history ? state[offset + i] : x[i - history];
    TCNCA_UNROLL
    for (int i = 0; i < history; i++) state[offset + i] = in[outputs + i];
    detail::phase_taps<base, Shape> const w(*this, L);
    TCNCA_UNROLL
    for (int j = 0; j < outputs; j++) x[j] = detail::layer_output<Shape, step>(in, history + j, w.taps, w.bias);
  }
};

}  // namespace tcnca
