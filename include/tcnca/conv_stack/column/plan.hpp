// The plan of a column pass. Layers whose dilations are multiples of one dilation d treat the positions modulo d
// independently: the positions c, c + d, c + 2 d, ... are a column, and a convolution of dilation m d is one of
// dilation m along each column. A thread owns a few columns and walks along their rows.
#pragma once
#include "../../core/numeric.hpp"
#include "../pass.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Where the newest inputs of one layer of a column pass are kept, one slot for each row.
struct column_history {
  int step = 1;               // dilation of the layer, in rows
  int length = 0;             // rows that an output looks back
  int slots = 0;              // ring of at least `length` rows
  int first_slot = 0;         // in the thread's registers or in shared memory
  bool in_registers = false;  // else in shared memory
};

/// A thread computes `rows` rows of its columns at a time, unrolled. A ring in registers has a number of slots that
/// divides `rows`, so that every slot is a constant. A ring in shared memory consists of granules of slots: a granule
/// divides `rows` and the steps of the layers, so that the distance of two rows in the ring is a whole number of
/// granules plus a constant.
struct conv_stack_column_plan {
  static constexpr int most_layers = 4, most_granules = 8;
  static constexpr int few_register_slots = 24, most_register_slots = 50;  // of two columns, of one
  bool valid = false;
  int rows = 0;
  int granule = 1, granules = 0;  // of the ring in shared memory
  int register_slots = 0;         // per column
  int shared_slots = 0;           // per column
  column_history layer[most_layers] = {};
};

namespace detail {

/// The plan with `rows` rows at a time. At most one layer has its ring in shared memory.
constexpr conv_stack_column_plan column_plan_for(conv_stack_shape const& s, layer_range layers, int rows) {
  using plan_type = conv_stack_column_plan;
  plan_type plan{.rows = rows};
  index_t const d = s.dilation(layers.first);
  for (int l = layers.first; l < layers.last; l++) {
    column_history& h = plan.layer[l - layers.first];
    if (s.dilation(l) % d != 0 || s.dilation(l) / d > 1024 || s.taps > 64) return plan_type{};
    h.step = int(s.dilation(l) / d), h.length = (s.taps - 1) * h.step, h.slots = h.length;
    while (h.slots > 0 && h.slots <= rows && rows % h.slots != 0) h.slots++;
    int const most = layers.count() == 1 ? plan_type::most_register_slots : plan_type::few_register_slots;
    h.in_registers = h.slots <= rows && plan.register_slots + h.slots <= most;
    if (h.in_registers) {
      h.first_slot = plan.register_slots, plan.register_slots += h.slots;
    } else {
      h.slots = h.length;
      plan.granule = greatest_common_divisor(rows, h.step), plan.granules = h.length / plan.granule;
      if (plan.shared_slots > 0 || plan.granules > plan_type::most_granules) return plan_type{};
      plan.shared_slots = h.slots;
    }
  }
  plan.valid = true;
  return plan;
}

/// Whether the shape and the range have what every column pass needs.
constexpr bool supports_columns(conv_stack_shape const& s, layer_range layers) {
  return s.dir == direction::causal && !s.skip && s.residuals != residual::block &&
         (s.residuals == residual::none || s.convolutions == 1) && layers.first >= 0 && layers.count() >= 1 &&
         layers.count() <= conv_stack_column_plan::most_layers && layers.last <= s.layers() &&
         s.dilation(layers.first) <= (index_t(1) << 26);
}
}  // namespace detail

/// The plan of a forward pass, or one that is not valid.
constexpr conv_stack_column_plan make_column_forward_plan(conv_stack_shape const& s, layer_range layers) {
  if (!detail::supports_columns(s, layers)) return {};
  int const rows[] = {16, 12, 18, 20, 24, s.taps - 1};
  for (int r : rows) {
    if (r < 1) continue;
    auto const plan = detail::column_plan_for(s, layers, r);
    if (plan.valid) return plan;
  }
  return {};
}

/// Whether a column pass can compute these layers: a causal stack without `skip`, residuals of at most a level; all
/// dilations are multiples of the first one, at most 2^26, and the histories fit in a thread's registers, except for
/// one.
template <element T, conv_stack_shape Shape, layer_range Layers>
inline constexpr bool has_column_forward_plan = make_column_forward_plan(Shape, Layers).valid &&
                                                (sizeof(T) < 8 ||
                                                 make_column_forward_plan(Shape, Layers).register_slots <=
                                                     conv_stack_column_plan::few_register_slots);

/// The plan of a backward pass over one layer. Its inputs and its sums of gradients are kept in registers, in rings of
/// the same slots. A long history is kept in shared memory, in granules of 8 rows.
constexpr conv_stack_column_plan make_column_backward_plan(conv_stack_shape const& s, layer_range layers) {
  if (!detail::supports_columns(s, layers) || layers.count() != 1 || s.taps > 57) return {};
  auto const plan = make_column_forward_plan(s, layers);
  if (plan.valid && plan.register_slots <= conv_stack_column_plan::few_register_slots) return plan;
  int const slots = round_up(s.taps - 1, 8);
  return {.valid = true, .rows = 8, .granule = 8, .granules = slots / 8, .shared_slots = slots};
}

/// Whether a column pass can compute the gradients of these layers: one layer of up to 57 taps, otherwise as
/// has_column_forward_plan.
template <element T, conv_stack_shape Shape, layer_range Layers>
inline constexpr bool has_column_backward_plan = make_column_backward_plan(Shape, Layers).valid &&
                                                 (sizeof(T) < 8 ||
                                                  make_column_backward_plan(Shape, Layers).shared_slots == 0);

/// Whether a column pass can compute these layers by tensor cores: one layer of a causal stack without `skip`, 16-bit
/// elements, positions contiguous in memory, 16 columns or more, up to 57 taps.
template <element T, conv_stack_shape Shape, layer_range Layers>
inline constexpr bool has_tensor_column_forward_plan =
    sizeof(T) == 2 && Layers.count() == 1 && detail::supports_columns(Shape, Layers) &&
    Shape.order == layout::batch_channels_length&& Shape.dilation(Layers.first) >= 16 && Shape.taps >= 2 &&
    Shape.taps <= 57;

}  // namespace tcnca
