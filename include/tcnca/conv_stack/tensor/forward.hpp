// The forward pass on tensor cores, for 16-bit elements: Toeplitz products, all layers of a pass at once.
//
//   product   Y[16 lines x 8 rows] = X[16 x 8 (h + 1)] T[8 (h + 1) x 8], T[j][i] = weight[8 h + i - j], rows a dilation
//             apart, h blocks of history. X is the operand a, in fragments that neighbouring products share; T is b,
//             one register for each 8 x 8 block. An output fragment, rounded to T, is an input fragment of the next
//             layer
//   layout    x and y are accessed by tensor_input and tensor_output (transfer.hpp). Channels-last: a cluster of
//             eight blocks takes a segment of eight channels
//   item      a segment of one row (batch, channel), processed in tiles. A block takes item after item: the first stage
//             begins the next one while the last stage ends this one
//   stages    see plan.hpp. In step n stage g processes tile n - g; one barrier a step
//   memory    shared: a ring of inputs for each stage, a table of items with their weights, fragments of the state
#pragma once
#include "history.hpp"
#include "walk.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of the forward pass of the layers `Layers`. Sums in fp32; the input of every layer is rounded to T.
///
/// Results do not depend on the number of segments, except that sums of a product may be rounded differently where a
/// segment begins. Infinite and NaN inputs: a zero of T times infinity is NaN, so for each layer an infinite or NaN
/// input may also change the outputs of its block of 8 rows (dilations apart) before it, and of the rows of the
/// following blocks that its banded matrix covers: from 7 rows before to 8 h + 7 rows after the input, with h =
/// ceil((taps - 1) / 8), instead of 0 to taps - 1.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct conv_stack_tensor_forward_agent : channel_cluster<Shape.order == layout::batch_length_channels> {
  static constexpr tensor_plan plan = tensor_plan_of<Shape, Layers>;
  static_assert(has_tensor_forward_plan<T, Shape, Layers>, "tcnca::conv_stack: these layers have no tensor-core plan");
  static_assert(Group::size() == plan.threads());
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = conv_stack_pass_params<T, parameter_t<T, Shape.weights>>;
  static constexpr bool persistent = true;
  static constexpr int blocks_per_multiprocessor = plan.blocks;
  static constexpr int segment_grain = plan.tile;
  static constexpr index_t halo = round_up(history_of(Shape, Layers), index_t(plan.tile));
  /// Shortest sequence with which state_in and state_out may be the same memory: the warps of the stages that walk read
  /// the initial state in their first step, and the final state is then written only in later ones. Warps of the other
  /// stages only write slots that they have read themselves.
  static constexpr index_t in_place_length = [] {
    index_t n = 1;
    for (int i = 0; i < plan.stages; i++)
      for (int l = 0; l < plan.stage[i].layers && plan.stage[i].walks(); l++)
        n = max_of(n, Shape.history(Layers.first + plan.stage[i].first + l) + plan.tile);
    return n;
  }();

  TCNCA_HOST_DEVICE conv_stack_tensor_forward_agent(Group g, params_type const& p, A* shared, A*) : b(g, p, shared) {}

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.x.extent[2] == 0 ? 0 : p.x.extent[0] * channel_groups(p) * p.segments;
  }
  static constexpr group_memory memory(params_type const&) { return {.shared_memory_bytes = size_t(plan.bytes)}; }

  TCNCA_HOST_DEVICE void operator()(item_range items) {
    if (items.count() == 0) return;
    run<0>(items);
    b.begin_step();
  }

 private:
  using block = detail::tensor_block<Group, T, Shape, Layers>;
  using address_type = typename block::address_type;
  using item = detail::tensor_item;
  static constexpr int last = plan.stages - 1;
  static constexpr bool bursts = plan.stage[last].kind == tensor_stage_kind::burst;
  /// Steps from the computation of a tile of y to its store.
  static constexpr int store_delay = block::channels_last && !bursts ? 2 : 0;
  block b;

  /// Channels, or groups of eight.
  TCNCA_HOST_DEVICE static constexpr index_t channel_groups(params_type const& p) {
    return block::channels_last ? divide_up(p.x.extent[1], index_t(8)) : p.x.extent[1];
  }

  /// The loads of x: a tile is loaded two steps before it is processed. The weights of an item are fetched with its
  /// first tile and written to the table a step later. Used by the threads of the first stage.
  struct loader {
    block const& b;
    detail::tensor_item_counter counter;
    detail::tensor_item_loader<block> weights;
    index_t items_left;    // that have not begun
    uint32 n = 0;          // number of the item
    int left = 0;          // its positions that have not been loaded
    bool fetched = false;  // its weights are on their way
    detail::tensor_input<block> x;

    TCNCA_HOST_DEVICE loader(block const& group, item_range const& items)
        : b(group), counter(items.first, items.stride, inner(), outer()), items_left(items.count()), x(group) {}

    TCNCA_HOST_DEVICE void load_tile() {
      if (fetched) weights.store(b, b.entry(n - 1)), fetched = false;
      if (left <= 0 && items_left > 0) begin_item();
      if (left > 0) {
        x.load(b, left);
        left -= plan.tile;
      }
      b.warp.commit();
    }

   private:
    // Channels-last: neighbouring clusters take neighbouring channels, because they share sectors of memory.
    TCNCA_HOST_DEVICE int inner() const {
      return block::channels_last ? int(channel_groups(b.params)) : b.params.segments;
    }
    TCNCA_HOST_DEVICE int outer() const {
      return block::channels_last ? b.params.segments : int(channel_groups(b.params));
    }
    TCNCA_HOST_DEVICE void begin_item() {
      int const segment = block::channels_last ? counter.outer : counter.inner,
                channel = block::channels_last ? counter.inner * 8 + b.rank() : counter.outer;
      int const length = int(b.params.x.extent[2]), channels = int(b.params.x.extent[1]);
      int const begin = segment * b.params.segment_length;
      bool const is_last = --items_left == 0;
      bool const exists = !block::channels_last || channel < channels;
      item i{counter.batch,
             channel,
             max_of(0, begin - int(halo)),
             begin,
             min_of(length, begin + b.params.segment_length),
             0};
      i.flags = (is_last ? item::is_last : 0) |
                (exists && b.params.state_in.present() && i.first == 0 ? item::reads_state : 0) |
                (exists && b.params.state_out.present() && i.end == length ? item::writes_state : 0);
      if (b.group.rank() == 0) b.store_item(b.entry(n), i);
      weights.fetch(b, block::channels_last ? min_of(channel, channels - 1) : channel);
      x.begin(b, i), left = i.end - i.first;
      fetched = true, n++;
      counter.advance(inner(), outer());
    }
  };

  /// Where a stage is: the block's item `n`, tile t of `tiles`.
  struct progress {
    uint32 n = 0;
    int t = 0, tiles = 0;
    TCNCA_HOST_DEVICE void advance() { t++, n += t == tiles, t = t == tiles ? 0 : t; }
  };

  /// The warps of stage G and up find their stage and process it, for all items.
  template <int G>
  TCNCA_HOST_DEVICE void run(item_range const& items) {
    constexpr tensor_stage g = plan.stage[G];
    if constexpr (g.kind != tensor_stage_kind::burst) {
      if (b.warp_index < g.first_warp + g.warps) {
        stage_worker<G>(b, items).run();
        return;
      }
    }
    if constexpr (G < last) { run<G + 1>(items); }
  }
  struct nothing {
    TCNCA_HOST_DEVICE explicit nothing(block const&) {}
    TCNCA_HOST_DEVICE explicit nothing(block const&, item_range const&) {}
  };
  template <int G>
  using stage_of = typename detail::tensor_select<(plan.stage[G].walks() ? 0 : 1), detail::tensor_walk<block, G>,
                                                  detail::tensor_owned<block, G>>::type;

  /// Whether the older of two blocks of history is the first one only in every other tile.
  template <int G>
  static constexpr bool alternates =
      plan.stage[G].kind == tensor_stage_kind::owned&& plan.stage[G].longest_history() == 2 && plan.stage[G].blocks %
                                                                                                       2 !=
                                                                                                   0;

  /// A warp of stage G, and of the last one if that is a burst.
  template <int G>
  struct stage_worker {
    block const& b;
    typename detail::tensor_select<(G == 0 ? 0 : 1), loader, nothing>::type loads;
    stage_of<G> stage;
    typename detail::tensor_select<(bursts ? 0 : 1), detail::tensor_burst<block>, nothing>::type burst;
    progress at, burst_at;
    uint32 total = ~0u / 2;  // tiles of all items; not known before the last one begins

    TCNCA_HOST_DEVICE stage_worker(block const& group, item_range const& items)
        : b(group), loads(group, items), stage(group), burst(group) {}

    TCNCA_HOST_DEVICE void run() {
      if constexpr (G == 0) {
        loads.load_tile(), loads.load_tile();
        if constexpr (block::channels_last) {
          b.warp.template wait<1>();
          loads.x.deliver(b), loads.load_tile();
        }
      }
      b.arrive();
      if constexpr (alternates<G>) {
        for (uint32 n = 0; step<0>(n) && step<1>(n + 1); n += 2) {}
      } else {
        for (uint32 n = 0; step<0>(n); n++) {}
      }
    }

    /// Step n of the block; false if there is none.
    template <int Odd>
    TCNCA_HOST_DEVICE bool step(uint32 n) {
      constexpr int parity = (Odd + G) % 2;
      if (n == total + uint32(last + store_delay)) return false;
      if constexpr (G == 0) { b.warp.template wait<1>(); }
      b.begin_step();
      if constexpr (G == 0) { loads.x.deliver(b), loads.load_tile(); }
      if constexpr (G == last && store_delay > 0) {
        if (n >= uint32(last + store_delay)) stage.y.store_sent(b);
      }
      b.arrive();
      if ((G == 0 || n >= uint32(G)) && n - uint32(G) < total) {
        address_type const entry = b.entry(at.n);
        if (at.t == 0) {
          item const i = b.item(entry);
          at.tiles = block::tiles(i);
          if ((i.flags & item::is_last) != 0) total = n - uint32(G) + uint32(at.tiles);
          stage.template begin<parity>(entry);
        }
        stage.template step<parity>(entry, at.t);
        at.advance();
      }
      if constexpr (bursts) {
        if (n >= uint32(last)) {
          address_type const entry = b.entry(burst_at.n);
          if (burst_at.t == 0) {
            burst_at.tiles = block::tiles(b.item(entry));
            burst.begin(entry);
          }
          burst.step(entry, burst_at.t, burst_at.tiles);
          burst_at.advance();
        }
      }
      return true;
    }
  };
};

}  // namespace tcnca
