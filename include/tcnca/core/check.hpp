// Argument checks of all operations. An entry point writes nothing before all checks have passed.
#pragma once
#include "sequences.hpp"
#include "status.hpp"
#include "tensor.hpp"
#include "workspace.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Limits of a tensor's size. Within them, all products of extents that the operations compute fit in 64 bits.
struct tensor_limits {
  /// Maximum of the product of the extents, where an extent of 0 counts as 1.
  static constexpr index_t elements = index_t(1) << 48;
  /// Maximum of the distance from the first element to the end of the last.
  static constexpr index_t bytes = index_t(1) << 60;

  /// Whether no extent is negative and their product is within the limit.
  template <class T, int Rank>
  static constexpr bool hold(tensor_view<T, Rank> const& v) {
    index_t n = 1;
    bool signs = true;
    for (int r = 0; r < Rank; r++)
      signs = signs && v.extent[r] >= 0, n = detail::saturating_multiply(n, max_of(index_t(1), v.extent[r]));
    return signs && n <= elements;
  }
  /// The same for a tensor with one row of its channels (or heads) for each sequence of a table.
  template <class T, int Rank>
  static constexpr bool hold(sequence_table const& t, tensor_view<T, Rank> const& v) {
    return detail::saturating_multiply(max_of(index_t(1), t.count), max_of(index_t(1), v.extent[1])) <= elements;
  }
  /// Bytes from the first element to the end of the last. An extent of 0 counts as 1. No stride may be negative.
  template <class T, int Rank>
  static constexpr index_t span(tensor_view<T, Rank> const& v) {
    index_t n = 1;
    for (int r = 0; r < Rank; r++)
      n = detail::saturating_add(n, detail::saturating_multiply(max_of(index_t(1), v.extent[r]) - 1, v.stride[r]));
    return detail::saturating_multiply(n, index_t(sizeof(T)));
  }
};

/// Up to two pairs of arguments, by name, that may be the same view (in place).
struct in_place_pairs {
  char const *a = "", *b = "", *c = "", *d = "";
  constexpr bool contains(char const* x, char const* y) const {
    return (is(x, a) && is(y, b)) || (is(x, c) && is(y, d));
  }

 private:
  static constexpr bool is(char const* a, char const* b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b && *b == 0;
  }
};

/// Checks the arguments of a call one after another. result() is the first error.
class argument_check {
 public:
  constexpr status result() const { return result_; }
  constexpr bool ok() const { return result_.ok(); }

  constexpr argument_check& demand(bool condition, status_code code, char const* name = "",
                                   status_detail const& detail = {}) {
    if (ok() && !condition) result_ = {code, name, detail};
    return *this;
  }

  /// Checks an argument that is read: its extents, non-negative strides (0 broadcasts), a stride of 1 on
  /// contiguous_axis (-1: no such axis), pointer, alignment and limits.
  template <class T, int Rank>
  argument_check& input(char const* name, tensor_view<T, Rank> const& v, detail::array<index_t const, Rank>& extents,
                        int contiguous_axis = -1) {
    demand(!absent(v, extents), status_code::missing_argument, name);
    for (int r = 0; r < Rank; r++) {
      demand(v.extent[r] == extents[r] && extents[r] >= 0, status_code::invalid_extent, name,
             status_detail{
                 .what = "extent", .axis = r, .actual = v.extent[r], .expected = max_of(index_t(-1), extents[r])});
      status_detail const stride{.what = "stride", .axis = r, .actual = v.stride[r]};
      demand(v.stride[r] >= 0, status_code::invalid_stride, name, stride);
      demand(r != contiguous_axis || v.extent[r] <= 1 || v.stride[r] == 1, status_code::invalid_stride, name, stride);
    }
    if (!ok()) return *this;
    index_t const bytes = tensor_limits::span(v);
    demand(tensor_limits::hold(v), status_code::invalid_extent, name)
        .demand(bytes <= tensor_limits::bytes, status_code::invalid_stride, name);
    if (!ok() || v.count() == 0) return *this;
    std::uintptr_t const at = reinterpret_cast<std::uintptr_t>(v.data);
    demand(at != 0, status_code::null_pointer, name);
    demand(at % alignof(T) == 0, status_code::misaligned_pointer, name);
    demand(at <= ~std::uintptr_t(0) - std::uintptr_t(bytes), status_code::invalid_stride, name);
    if (ok()) remember(name, v, false);
    return *this;
  }

  /// Checks an argument that is written: as input(), and no two indices may refer to the same element.
  template <class T, int Rank>
  argument_check& output(char const* name, tensor_view<T, Rank> const& v, detail::array<index_t const, Rank>& extents,
                         int contiguous_axis = -1) {
    int const before = count_;
    input(name, v, extents, contiguous_axis);
    if (!ok() || count_ == before) return *this;
    region& r = regions_[before];
    r.written = true;
    return demand(is_injective(r), status_code::invalid_stride, name);
  }

  /// As input() and output(), for an argument that may be absent.
  template <class T, int Rank>
  argument_check& optional_input(char const* name, tensor_view<T, Rank> const& v,
                                 detail::array<index_t const, Rank>& extents, int contiguous_axis = -1) {
    return v.given() ? input(name, v, extents, contiguous_axis) : *this;
  }
  template <class T, int Rank>
  argument_check& optional_output(char const* name, tensor_view<T, Rank> const& v,
                                  detail::array<index_t const, Rank>& extents, int contiguous_axis = -1) {
    return v.given() ? output(name, v, extents, contiguous_axis) : *this;
  }

  /// An argument that must be absent unless the condition holds.
  template <class T, int Rank>
  argument_check& only_if(bool condition, char const* name, tensor_view<T, Rank> const& v) {
    return demand(condition || !v.given(), status_code::unexpected_argument, name);
  }

  /// Checks the arguments that a table is made of, for an input [batch, channels or heads, length, ...] and the tensors
  /// of states. `readable`: the host can read the elements of the table, which are then checked, too. Call it after the
  /// checks of the tensors.
  template <class T, int Rank>
  argument_check& sequences(sequence_table const& t, char const* name, tensor_view<T, Rank> const& v,
                            index_t max_length, bool readable, auto const&... states) {
    index_t const batch = v.extent[0], length = v.extent[2];
    if (t.offsets.given()) {
      demand(batch == 1, status_code::invalid_extent, name,
             status_detail{.what = "extent", .axis = 0, .actual = batch, .expected = 1});
      demand(tensor_limits::hold(t, v), status_code::invalid_extent, "offsets",
             status_detail{.what = "extent", .axis = 0, .actual = t.offsets.extent[0]});
      demand(t.offsets.extent[0] >= 1, status_code::invalid_extent, "offsets",
             status_detail{.what = "extent", .axis = 0, .actual = t.offsets.extent[0]});
      demand(max_length >= 0, status_code::invalid_value, "max_length");
      input("offsets", t.offsets, {t.offsets.extent[0]});
    } else {
      demand(max_length == 0, status_code::unexpected_argument, "max_length");
    }
    if (t.slots.given()) input("slots", t.slots, {t.count});
    if (t.positions.given()) input("positions", t.positions, {t.count});
    if (!ok() || !readable) return *this;
    for (index_t s = 0; s < t.count && t.offsets.given() && ok(); s++) {
      index_t const begin = *t.offsets.at(s), end = *t.offsets.at(s + 1);
      demand(begin >= 0 && end >= begin && end <= length, status_code::invalid_value, "offsets",
             status_detail{.what = "element", .axis = int(begin < 0 ? s : s + 1), .actual = begin < 0 ? begin : end});
      demand(end - begin <= t.max_length, status_code::invalid_value, "max_length",
             status_detail{.what = "length", .axis = int(s), .actual = end - begin, .expected = t.max_length});
    }
    for (index_t s = 0; s < t.count && t.positions.given() && ok(); s++) {
      index_t const p = *t.positions.at(s);
      demand(p >= 0 && p <= index_t(1) << 62, status_code::invalid_position, "positions",
             status_detail{.what = "element", .axis = int(s), .actual = p});
    }
    (slots_within(t, states), ...);
    return *this;
  }
  /// Checks that all slots are rows of a tensor of states. For slots that the host can read.
  template <class T, int Rank>
  argument_check& slots_within(sequence_table const& t, tensor_view<T, Rank> const& state) {
    for (index_t s = 0; s < t.count && t.slots.given() && state.given() && ok(); s++)
      demand(*t.slots.at(s) < state.extent[0], status_code::invalid_value, "slots",
             status_detail{.what = "element", .axis = int(s), .actual = *t.slots.at(s)});
    return *this;
  }

  /// Checks that no output overlaps another argument, except pairs that may be in place. Call it after all other
  /// checks.
  argument_check& overlaps(in_place_pairs const& in_place = {}) {
    for (int i = 0; i < count_ && ok(); i++)
      for (int j = 0; j < count_ && ok(); j++) {
        region const &a = regions_[i], &b = regions_[j];
        if (i == j || !a.written || !share_a_byte(a, b)) continue;
        bool const allowed =
            same_region(a, b) && (in_place.contains(a.name, b.name) || in_place.contains(b.name, a.name));
        demand(allowed, status_code::overlap, a.name, status_detail{.other = b.name});
      }
    return *this;
  }

  /// Checks the workspace; the part of it that the call uses takes part in overlaps().
  argument_check& scratch(workspace w, workspace_bytes need) {
    bool const enough = w.bytes >= need.least && need.least <= size_t(tensor_limits::bytes);
    demand(enough && (w.data != nullptr || need.least == 0), status_code::workspace_too_small, "workspace",
           status_detail{.what = "bytes", .actual = index_t(w.bytes), .expected = index_t(need.least)});
    demand(reinterpret_cast<std::uintptr_t>(w.data) % workspace::alignment == 0, status_code::workspace_misaligned,
           "workspace");
    size_t const used = min_of(min_of(w.bytes, need.all), size_t(tensor_limits::bytes));
    if (ok() && used > 0) remember("workspace", contiguous(static_cast<char*>(w.data), index_t(used)), true);
    return *this;
  }

 private:
  /// Whether a required argument is absent although it would have elements.
  template <class T, int Rank>
  static constexpr bool absent(tensor_view<T, Rank> const& v, detail::array<index_t const, Rank>& extents) {
    bool has_elements = true;
    for (int r = 0; r < Rank; r++) has_elements = has_elements && extents[r] != 0;
    return has_elements && !v.given();
  }

  static constexpr int axes = 4;
  struct region {
    char const* name;
    std::uintptr_t data;
    index_t element;                     // bytes of an element
    index_t extent[axes], stride[axes];  // largest index, stride in bytes; in descending order of the strides
    bool written;
    constexpr index_t span() const {
      index_t sum = 0;
      for (int i = 0; i < axes; i++) sum += extent[i] * stride[i];
      return sum;
    }
  };

  template <class T, int Rank>
  void remember(char const* name, tensor_view<T, Rank> const& v, bool written) {
    region r{name, reinterpret_cast<std::uintptr_t>(v.data), index_t(sizeof(T)), {}, {}, written};
    for (int i = 0; i < Rank; i++) {
      r.extent[i] = v.extent[i] - 1;
      r.stride[i] = v.extent[i] > 1 ? v.stride[i] * index_t(sizeof(T)) : 0;
    }
    for (int i = 1; i < axes; i++)
      for (int j = 0; j + 1 < axes; j++)
        if (r.stride[j] < r.stride[j + 1]) {
          index_t const e = r.extent[j], s = r.stride[j];
          r.extent[j] = r.extent[j + 1], r.stride[j] = r.stride[j + 1];
          r.extent[j + 1] = e, r.stride[j + 1] = s;
        }
    regions_[count_++] = r;
  }

  /// Whether different indices refer to different bytes: every stride is larger than the span of the axes inside of it.
  static constexpr bool is_injective(region const& r) {
    index_t inner = r.element - 1;
    for (int i = axes - 1; i >= 0; i--) {
      if (r.extent[i] > 0 && r.stride[i] <= inner) return false;
      inner += r.extent[i] * r.stride[i];
    }
    return true;
  }
  static constexpr bool same_region(region const& a, region const& b) {
    bool equal = a.data == b.data && a.element == b.element;
    for (int i = 0; i < axes; i++) equal = equal && a.extent[i] == b.extent[i] && a.stride[i] == b.stride[i];
    return equal;
  }

  /// Whether two regions have a byte in common. Exact if their strides are equal, so interleaved slices of one buffer
  /// do not overlap; else a comparison of their address ranges.
  static bool share_a_byte(region const& a, region const& b) {
    if (a.data + std::uintptr_t(a.span() + a.element) <= b.data ||
        b.data + std::uintptr_t(b.span() + b.element) <= a.data)
      return false;
    for (int i = 0; i < axes; i++)
      if (a.stride[i] != b.stride[i]) return true;
    return reachable(a, b, index_t(b.data - a.data), 0);
  }
  /// Whether an element of a and an element of b overlap, if b.data - a.data = distance, over the axes from `axis` on.
  static bool reachable(region const& a, region const& b, index_t distance, int axis) {
    if (axis == axes) return -b.element < distance && distance < a.element;
    if (a.stride[axis] == 0) return reachable(a, b, distance, axis + 1);
    index_t rest = max_of(a.element, b.element);
    for (int i = axis + 1; i < axes; i++) rest += max_of(a.extent[i], b.extent[i]) * a.stride[i];
    index_t const s = a.stride[axis], closest = (distance >= 0 ? distance : distance - s + 1) / s;
    if (rest > 2 * s) return true;  // the axes are not nested: conservative
    for (index_t q = closest - 2; q <= closest + 3; q++)
      if (-b.extent[axis] <= q && q <= a.extent[axis] && reachable(a, b, distance - q * s, axis + 1)) return true;
    return false;
  }

  static constexpr int max_regions = 28;
  region regions_[max_regions] = {};
  int count_ = 0;
  status result_;
};

}  // namespace tcnca
