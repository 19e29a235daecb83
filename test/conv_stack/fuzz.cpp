// Random views in one arena, some of them invalid: an oracle that looks at every byte decides which.
#include "arena_oracle.hpp"
#include "cases.hpp"

namespace tcnca::testing {
namespace {

using code = status_code;

template <class Case>
using on_cpu = subject<cpu_backend, float, Case>;
using types = ::testing::Types<on_cpu<small_list>, on_cpu<small_last>, on_cpu<small_symmetric>>;
template <class S>
struct conv_stack_fuzz : ::testing::Test {};
TYPED_TEST_SUITE(conv_stack_fuzz, types, subject_name);

TYPED_TEST(conv_stack_fuzz, forward) {
  using S = TypeParam;
  cpu const executor{1};
  constexpr std::ptrdiff_t arena_bytes = 16384;
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 4000);
  int accepted = 0, refused = 0, cautious = 0;
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    SCOPED_TRACE(::testing::Message() << "TCNCA_TEST_SEED=" << seed);
    random_bits r{seed};
    guarded_bytes arena(arena_bytes, 0);
    for (std::ptrdiff_t i = 0; i < arena_bytes; i += 4) {
      float const v = float(uniform(r));
      std::memcpy(arena.data() + i, &v, 4);
    }
    index_t const batch = between(r, 0, 2), channels = between(r, 1, 3), length = between(r, 0, 5);
    arena_oracle o{arena_bytes, {}};
    bool valid = true, extents_right = true;
    typename S::op::forward_args args;
    // Places a view in the arena, contiguous or with gaps, sometimes with a fault.
    std::ptrdiff_t next = 0;
    auto const place = [&](auto& v, char const* name, std::vector<index_t> const& extent, std::vector<int> const& order,
                           bool sequence_like, bool written, bool optional = false) {
      using view = std::remove_reference_t<decltype(v)>;
      constexpr int rank = view::rank;
      index_t stride = 1;
      for (int i = rank - 1; i >= 0; i--) {
        v.extent[order[std::size_t(i)]] = extent[std::size_t(order[std::size_t(i)])];
        v.stride[order[std::size_t(i)]] = stride;
        stride *= std::max<index_t>(extent[std::size_t(order[std::size_t(i)])], 1);
        if (between(r, 0, 3) == 0) stride += between(r, 0, 3);
      }
      std::ptrdiff_t at = next;
      if (between(r, 0, 9) == 0) at = between(r, 0, arena_bytes / 8) & ~3;  // possibly on another view
      next = std::max(next, at + stride * 4);
      int const fault = between(r, 0, 60);
      int const axis = r.below(rank);
      if (fault == 0) v.extent[axis] += between(r, 0, 1) ? 1 : -1;
      if (fault == 1) v.stride[axis] = between(r, -1, 3);
      if (fault == 2) at += between(r, 1, 3);
      v.data = reinterpret_cast<decltype(v.data)>(arena.data() + at);
      if (fault == 3) v.data = nullptr;
      if (fault == 4 && optional) return void(v = {});  // absent
      if (fault == 5) v.extent[axis] = index_t(1) << between(r, 40, 62);
      if (fault == 6) v.stride[axis] = index_t(1) << between(r, 60, 62);
      if (fault == 6 && v.extent[axis] > 1) valid = extents_right = false;
      bool const empty = v.count() == 0;
      for (int i = 0; i < rank; i++) {
        if (v.extent[i] != extent[std::size_t(i)] || v.extent[i] < 0) valid = extents_right = false;
        if (v.stride[i] < 0) valid = false;
      }
      constexpr int contiguous_one = rank == 3 ? (S::shape.order == layout::batch_channels_length ? 2 : 1) : 0;
      if (sequence_like && v.extent[contiguous_one] > 1 && v.stride[contiguous_one] != 1) valid = false;
      if (!empty && !v.data) valid = false;
      if (!empty && v.data && at % 4 != 0) valid = false;
      arena_oracle::argument a{name, {}, 4, written, at, {v.extent, v.extent + rank}, {v.stride, v.stride + rank}};
      if (extents_right && v.data)
        for (index_t i = 0; i < v.count(); i++) {
          index_t rest = i, element = 0;
          for (int k = rank - 1; k >= 0; k--) element += rest % v.extent[k] * v.stride[k], rest /= v.extent[k];
          a.bytes.push_back(at + element * 4);
        }
      if (v.data) o.all.push_back(a);
    };
    std::vector<int> const order =
        S::shape.order == layout::batch_channels_length ? std::vector{0, 1, 2} : std::vector{0, 2, 1};
    index_t const rows = S::op::layers;
    place(args.x, "x", {batch, channels, length}, order, true, false);
    place(args.weight, "weight", {rows, S::shape.taps, channels}, {0, 1, 2}, false, false);
    if (S::shape.bias) place(args.bias, "bias", {rows, channels}, {0, 1}, false, false);
    if (S::shape.skip) place(args.omega, "omega", {channels}, {0}, false, false);
    bool in_place = false;
    if (S::causal && between(r, 0, 1))
      place(args.state_in, "state_in", {batch, channels, S::op::state_length}, order, true, false, true);
    place(args.y, "y", {batch, channels, length}, order, true, true);
    if (args.state_in.present() && between(r, 0, 3) == 0) {
      in_place = true;
      args.state_out = {const_cast<float*>(args.state_in.data), {}, {}};
      std::copy_n(args.state_in.extent, 3, args.state_out.extent),
          std::copy_n(args.state_in.stride, 3, args.state_out.stride);
      for (std::size_t i = 0, n = o.all.size(); i < n; i++)
        if (o.all[i].name == "state_in")
          o.all.push_back(o.all[i]), o.all.back().name = "state_out", o.all.back().written = true;
    } else if (S::causal && between(r, 0, 1)) {
      place(args.state_out, "state_out", {batch, channels, S::op::state_length}, order, true, true, true);
    }
    args.position = between(r, 0, 30) == 0 ? -1 : between(r, 0, 100);
    valid = valid && args.position >= 0;
    if (!o.inside()) continue;
    bool const apart = !extents_right || o.apart(in_place);
    valid = valid && apart;
    std::vector<unsigned char> const before(arena.data(), arena.data() + arena_bytes);
    scratch_memory const scratch(args.x.extent[0] >= 0 && args.x.extent[1] >= 0 && args.x.extent[2] >= 0 &&
                                         args.x.extent[0] < 4
                                     ? S::op::forward_workspace(executor, args)
                                     : 0);
    status const s = S::op::forward(executor, args, scratch.get());
    std::vector<unsigned char> const after(arena.data(), arena.data() + arena_bytes);
    EXPECT_TRUE(arena.intact() && scratch.intact());
    if (s.ok()) {
      accepted++;
      ASSERT_TRUE(valid) << "accepted, but it is wrong: " << (apart ? "" : "an output overlaps ")
                         << (extents_right ? "" : "an extent ") << o;
      std::vector<bool> written(std::size_t(arena_bytes), false);
      for (auto const& a : o.all)
        if (a.written)
          for (std::ptrdiff_t const b : a.bytes)
            for (index_t k = 0; k < a.element; k++) written[std::size_t(b + k)] = true;
      for (std::size_t i = 0; i < written.size(); i++)
        ASSERT_TRUE(written[i] || before[i] == after[i]) << "byte " << i << " was written";
    } else {
      ASSERT_TRUE(before == after) << "refused, but something was written: " << to_string(s);
      // The check is conservative: it may report overlap if address ranges intersect and strides differ.
      if (valid) {
        cautious++;
        ASSERT_TRUE(s == code::overlap) << "refused, but it is right: " << to_string(s) << " (" << s.argument() << ")";
      } else {
        refused++;
      }
    }
  }
  std::printf("%d accepted, %d refused, %d refused out of caution\n", accepted, refused, cautious);
  if (count >= 1000) {
    EXPECT_GT(accepted, int(count) / 10);
    EXPECT_GT(refused, int(count) / 10);
    EXPECT_LT(cautious, int(count) / 20);
  }
}

}  // namespace
}  // namespace tcnca::testing
