// Random tables of sequences: offsets, slots and positions, and the part of a tensor that belongs to one sequence.
#pragma once
#include <algorithm>
#include <numeric>
#include <ostream>
#include <vector>

#include "tensor.hpp"

namespace tcnca::testing {

/// The sequences of a call. Without offsets all have the same length.
struct packed_layout {
  std::vector<index_t> lengths;
  index_t before = 0, after = 0;  // positions of no sequence at the ends of packed tensors
  index_t max_length = 0, common_position = 0;
  tensor<int32, 1> offsets, slots;
  tensor<index_t, 1> positions;

  /// packed: with offsets. Slots are a permutation of more rows than there are sequences; one in four is negative.
  static packed_layout make(std::vector<index_t> const& lengths, bool packed, bool with_slots, bool with_positions,
                            random_bits& r) {
    packed_layout l;
    l.lengths = lengths;
    index_t const n = l.count();
    l.common_position = between(r, 0, 1000);
    if (packed) {
      l.before = between(r, 0, 3), l.after = between(r, 0, 3);
      l.max_length = between(r, 0, 2) == 0 ? 0 : l.longest() + between(r, 0, 1) * between(r, 0, 40);
      l.offsets = tensor<int32, 1>({n + 1}, {0});
      index_t at = l.before;
      for (index_t s = 0; s <= n; s++) {
        *l.offsets.at(s) = int32(at);
        if (s < n) at += lengths[std::size_t(s)];
      }
    }
    if (with_slots) {
      l.slots = tensor<int32, 1>({n}, {0});
      std::vector<int> rows(std::size_t(n) + 2);
      r.permute(rows.data(), int(n) + 2);
      for (index_t s = 0; s < n; s++) *l.slots.at(s) = between(r, 0, 3) == 0 ? -1 : rows[std::size_t(s)];
    }
    if (with_positions) {
      l.positions = tensor<index_t, 1>({n}, {0});
      for (index_t s = 0; s < n; s++)
        *l.positions.at(s) = (between(r, 0, 1) ? index_t(1) << 40 : 0) + between(r, 0, 1000);
    }
    return l;
  }

  bool packed() const { return offsets.present(); }
  index_t count() const { return index_t(lengths.size()); }
  index_t longest() const { return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end()); }
  index_t total() const { return std::accumulate(lengths.begin(), lengths.end(), before + after); }
  index_t state_rows() const { return slots.present() ? slots.count() + 2 : count(); }
  index_t position(index_t s) const { return positions.present() ? *positions.at(s) : common_position; }
  index_t slot(index_t s) const { return slots.present() ? *slots.at(s) : s; }
  index_t begin(index_t s) const {
    return packed() ? std::accumulate(lengths.begin(), lengths.begin() + s, before) : 0;
  }
  /// Reduces a view to sequence s, which lies along `axis`.
  template <class View>
  void cut(View& v, index_t s, int axis = 2) const {
    if (!v.present()) return;
    v.data += (packed() ? 0 : s) * v.stride[0] + begin(s) * v.stride[axis];
    v.extent[0] = 1, v.extent[axis] = lengths[std::size_t(s)];
  }
  /// The state of sequence s; absent if its slot is negative.
  template <class View>
  View state(View v, index_t s) const {
    if (!v.present() || slot(s) < 0) return {};
    v.data += slot(s) * v.stride[0];
    v.extent[0] = 1;
    return v;
  }

  friend std::ostream& operator<<(std::ostream& out, packed_layout const& l) {
    out << (l.packed() ? "packed, lengths" : "batch, lengths");
    for (index_t const n : l.lengths) out << " " << n;
    out << ", max_length " << l.max_length << ", before " << l.before << (l.positions.present() ? ", positions" : "");
    for (index_t s = 0; l.slots.present() && s < l.count(); s++) out << (s ? " " : ", slots ") << *l.slots.at(s);
    return out;
  }
};

/// Tables for a call whose batch has several rows: the first row becomes packed sequences, as many, which use the rows
/// of the states in the opposite order.
struct packed_rows {
  std::vector<int32> offsets, slots;
  std::vector<index_t> positions;

  packed_rows(index_t count, index_t length, index_t position) : positions(std::size_t(count), position) {
    for (index_t s = 0; s <= count; s++) offsets.push_back(int32(s * length / count));
    for (index_t s = count; s-- > 0;) slots.push_back(int32(s));
  }
  template <class Args>
  Args operator()(Args a) const {
    auto const count = index_t(slots.size());
    a.offsets = contiguous<int32 const>(offsets.data(), count + 1),
    a.slots = contiguous<int32 const>(slots.data(), count);
    if constexpr (requires { a.positions; }) { a.positions = contiguous<index_t const>(positions.data(), count); }
    set_batch(a, 1);
    return a;
  }
  /// Sets the batch of the tensors that are not states.
  static void set_batch(auto& a, index_t batch) {
    auto const set = [&](auto&... views) { ((views.extent[0] = views.given() ? batch : 0), ...); };
    if constexpr (requires { a.x; }) { set(a.x); }
    if constexpr (requires { a.y; }) { set(a.y); }
    if constexpr (requires { a.grad_y; }) { set(a.grad_y, a.grad_x); }
    if constexpr (requires { a.q; }) { set(a.q, a.k, a.v, a.o, a.lse); }
    if constexpr (requires { a.grad_o; }) { set(a.grad_o, a.grad_q, a.grad_k, a.grad_v); }
  }
};

/// Lengths around 0, `edge` and multiples of nothing.
inline std::vector<index_t> random_lengths(random_bits& r, index_t edge, index_t longest, int most = 9) {
  std::vector<index_t> lengths(std::size_t(between(r, 0, most)));
  for (index_t& n : lengths) {
    int const kind = between(r, 0, 5);
    n = kind == 0 ? 0 : kind == 1 ? 1 : kind == 2 ? between(r, 1, int(edge)) : between(r, 0, int(longest));
  }
  return lengths;
}

}  // namespace tcnca::testing
