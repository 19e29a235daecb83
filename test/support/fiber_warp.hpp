// Warp operations for fibers: 32 fibers exchange registers through memory. Each instruction's layout is written here
// independently from the PTX ISA, so that a wrong layout in an agent or in block/mma.hpp gives wrong results. Included
// by fiber.hpp.
#pragma once
#include <cstring>
#include <vector>

#include <tcnca/block/mma.hpp>

namespace tcnca::testing {

/// Words that the lanes of a warp exchange.
class fiber_exchange {
 public:
  static constexpr int lanes = fiber_scheduler::warp, most = 8;

  /// f(words), where words[lane][i] is word i of that lane. `what` identifies the operation: it must be the same for
  /// all lanes.
  template <int N, class F>
  static void run(int what, std::uint32_t const (&mine)[N], F f) {
    static_assert(N < most);
    auto& scheduler = fiber_scheduler::get();
    // Two buffers alternate: the barrier of the other buffer separates reads of one from its next writes.
    auto& shown = shown_[scheduler.group()][scheduler.rank() / lanes][scheduler.warp_phase() & 1];
    auto& own = shown[scheduler.rank() % lanes];
    for (int i = 0; i < N; i++) own[i] = mine[i];
    own[most - 1] = std::uint32_t(what);
    scheduler.warp_barrier();
    for (int lane = 0; lane < lanes; lane++)
      if (shown[lane][most - 1] != std::uint32_t(what))
        scheduler.fail("divergence: the lanes of a warp do not do the same");
    f(shown);
  }

 private:
  static inline std::uint32_t shown_[fiber_scheduler::max_groups][fiber_scheduler::max_fibers / lanes][2][lanes][most];
};

}  // namespace tcnca::testing

namespace tcnca {

template <int N>
struct warp_of<testing::fiber_group<N>> {
  static constexpr bool exists = N % testing::fiber_exchange::lanes == 0;

  /// mma.m16n8k16: with g = lane / 4 and t = lane % 4, a_i, i < 8: row g for i in {0, 1, 4, 5}, else g + 8; column 2 t
  /// + (i & 1), from i = 4 on 8 more. b_i, i < 4: row 2 t + (i & 1), from i = 2 on 8 more; column g.   c_i, i < 4: row
  /// g, from i = 2 on g + 8; column 2 t + (i & 1).
  template <element T>
  void multiply(float (&c)[4], uint32 const (&a)[4], uint32 b0, uint32 b1) const {
    uint32 const mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    testing::fiber_exchange::run(1, mine, [&](auto const& shown) {
      int const lane = testing::fiber_scheduler::get().rank() % 32;
      // Where in the registers of which lane an element of a, of b is: the layout read backwards.
      auto const of_a = [&](int row, int k) {
        return half<T>(shown[row % 8 * 4 + k % 8 / 2][(k / 8) * 2 + row / 8], k % 2);
      };
      auto const of_b = [&](int k, int column) { return half<T>(shown[column * 4 + k % 8 / 2][4 + k / 8], k % 2); };
      for (int i = 0; i < 4; i++)
        for (int k = 0; k < 16; k++) c[i] += of_a(lane / 4 + (i >= 2 ? 8 : 0), k) * of_b(k, lane % 4 * 2 + (i & 1));
    });
  }
  template <element T>
  void multiply(float (&d)[4], float const (&c)[4], uint32 a0, uint32 a1, uint32 a2, uint32 a3, uint32 b0,
                uint32 b1) const {
    float sum[4] = {c[0], c[1], c[2], c[3]};
    multiply<T>(sum, {a0, a1, a2, a3}, b0, b1);
    for (int i = 0; i < 4; i++) d[i] = sum[i];
  }
  /// mma.m16n8k8: a_i, i < 4: row g, from i = 2 on g + 8; column 2 t + (i & 1). b_i, i < 2: row 2 t + i; column g.
  template <element T>
  void multiply(float (&d)[4], float const (&c)[4], uint32 a0, uint32 a1, uint32 b0) const {
    testing::fiber_exchange::run(6, {a0, a1, b0}, [&](auto const& shown) {
      int const g = testing::fiber_scheduler::get().rank() % 32 / 4, t = testing::fiber_scheduler::get().rank() % 4;
      for (int i = 0; i < 4; i++) {
        float sum = c[i];
        for (int k = 0; k < 8; k++)
          sum += half<T>(shown[g * 4 + k / 2][i / 2], k % 2) * half<T>(shown[(2 * t + i % 2) * 4 + k / 2][2], k % 2);
        d[i] = sum;
      }
    });
  }
  using address_type = std::uintptr_t;
  static address_type address(void const* p) { return reinterpret_cast<std::uintptr_t>(p); }
  /// ldmatrix.m8n8.x4: lanes 8 m .. 8 m + 7 give the rows of matrix m; register m of a lane: row lane / 4, columns 2
  /// (lane % 4) and the next.
  void load_matrices(uint32 (&r)[4], address_type row) const {
    read(2, row, [&](auto const& shown, int lane) {
      for (int m = 0; m < 4; m++) r[m] = shown[8 * m + lane / 4][lane % 4];
    });
  }
  /// With .trans: rows 2 (lane % 4) and the next, column lane / 4.
  void load_matrices_transposed(uint32 (&r)[4], address_type row) const {
    read(3, row, [&](auto const& shown, int lane) {
      for (int m = 0; m < 4; m++) {
        auto const element = [&](int i) { return shown[8 * m + i][lane / 4 / 2] >> (lane / 4 % 2 * 16) & 0xffffu; };
        r[m] = element(lane % 4 * 2) | element(lane % 4 * 2 + 1) << 16;
      }
    });
  }
  /// ldmatrix.m8n8.x2: the addresses of lanes 16 to 31 are not used.
  void load_two_matrices(uint32& r0, uint32& r1, address_type row) const {
    read(
        7, row,
        [&](auto const& shown, int lane) { r0 = shown[lane / 4][lane % 4], r1 = shown[8 + lane / 4][lane % 4]; }, 16);
  }
  void load_two_matrices_transposed(uint32& r0, uint32& r1, address_type row) const {
    read(
        8, row,
        [&](auto const& shown, int lane) {
          auto const pair = [&](int matrix) {
            auto const element = [&](int i) {
              return shown[8 * matrix + i][lane / 4 / 2] >> (lane / 4 % 2 * 16) & 0xffffu;
            };
            return element(lane % 4 * 2) | element(lane % 4 * 2 + 1) << 16;
          };
          r0 = pair(0), r1 = pair(1);
        },
        16);
  }
  static constexpr bool stores_matrices = true;
  /// stmatrix.m8n8.x4: register m of lane 4 i + j holds columns 2 j and 2 j + 1 of row i of matrix m.
  void store_matrices(address_type row, uint32 const (&r)[4]) const {
    write(9, row, r, [](auto const& shown, int matrix, int i, int column) {
      return shown[i * 4 + column / 2][matrix] >> (column % 2 * 16);
    });
  }
  /// With .trans: rows 2 j and 2 j + 1 of column i.
  void store_matrices_transposed(address_type row, uint32 const (&r)[4]) const {
    write(10, row, r, [](auto const& shown, int matrix, int i, int column) {
      return shown[column * 4 + i / 2][matrix] >> (i % 2 * 16);
    });
  }
  /// movmatrix.m8n8.trans.
  uint32 transpose_matrix(uint32 x) const {
    uint32 y = 0;
    testing::fiber_exchange::run(11, {x}, [&](auto const& shown) {
      int const lane = testing::fiber_scheduler::get().rank() % 32, row = lane / 4, column = lane % 4 * 2;
      auto const element = [&](int i, int j) { return shown[i * 4 + j / 2][0] >> (j % 2 * 16) & 0xffffu; };
      y = element(column, row) | element(column + 1, row) << 16;
    });
    return y;
  }
  template <int Words>
  void load_shared(uint32 (&v)[Words], address_type from) const {
    check_aligned(from, sizeof(v));
    std::memcpy(v, reinterpret_cast<void const*>(from), sizeof(v));
  }
  template <int Words>
  void store_shared(address_type to, uint32 const (&v)[Words]) const {
    check_aligned(to, sizeof(v));
    std::memcpy(reinterpret_cast<void*>(to), v, sizeof(v));
  }
  uint16 load_shared_16(address_type from) const {
    check_aligned(from, 2);
    return *reinterpret_cast<uint16 const*>(from);
  }
  void store_shared_16(address_type to, uint16 v) const {
    check_aligned(to, 2);
    *reinterpret_cast<uint16*>(to) = v;
  }
  uint32 shuffle_xor(uint32 x, int mask) const {
    uint32 y = 0;
    testing::fiber_exchange::run(
        16 + mask, {x}, [&](auto const& shown) { y = shown[(testing::fiber_scheduler::get().rank() ^ mask) % 32][0]; });
    return y;
  }
  float shuffle_xor(float x, int mask) const {
    return detail::bits_as<float>(shuffle_xor(detail::bits_as<uint32>(x), mask));
  }
  bool any(bool x) const {
    bool y = false;
    testing::fiber_exchange::run(4, {uint32(x)}, [&](auto const& shown) {
      for (auto const& lane : shown) y = y || lane[0] != 0;
    });
    return y;
  }
  int uniform(int x) const {
    testing::fiber_exchange::run(5, {uint32(x)}, [&](auto const& shown) {
      for (auto const& lane : shown)
        if (lane[0] != uint32(x)) testing::fiber_scheduler::get().fail("a number differs between the lanes of a warp");
    });
    return x;
  }
  void sync() const { testing::fiber_scheduler::get().warp_barrier(); }

  /// An asynchronous copy is performed either when it is issued or at the wait for it.
  void copy_16(address_type to, void const* from, bool present) const { copy(to, from, present, 16); }
  void copy_4(address_type to, void const* from, bool present) const { copy(to, from, present, 4); }
  void commit() const { committed_.push_back(pending_.size()); }
  template <int Pending = 0>
  void wait() const {
    if (committed_.size() <= Pending) return;
    std::size_t const last = committed_[committed_.size() - 1 - Pending];
    for (std::size_t i = 0; i < last; i++) perform(pending_[i]);
    pending_.erase(pending_.begin(), pending_.begin() + std::ptrdiff_t(last));
    committed_.erase(committed_.begin(), committed_.end() - Pending);
    for (std::size_t& end : committed_) end -= last;
  }

 private:
  struct pending_copy {
    void* to;
    void const* from;
    bool present;
    std::size_t bytes;
  };
  mutable std::vector<pending_copy> pending_;
  mutable std::vector<std::size_t> committed_;  // ends of the groups of copies in pending_

  static void check_aligned(address_type a, std::size_t bytes) {
    if (a % bytes != 0) testing::fiber_scheduler::get().fail("shared memory: an address is not aligned");
  }
  template <element T>
  static float half(uint32 pair, int which) {
    return to_accumulate(T{uint16(pair >> (16 * which))});
  }
  /// Lanes below `lanes` pass rows; f(words, lane) with words[lane][0 .. 3] its row.
  template <class F>
  static void read(int what, address_type row, F f, int lanes = 32) {
    auto& scheduler = testing::fiber_scheduler::get();
    int const lane = scheduler.rank() % 32, first = lane / 8 * 8;
    uint32 mine[5] = {};
    if (lane < lanes) {
      if (row % 16 != 0) scheduler.fail("ldmatrix: a row is not aligned");
      std::memcpy(mine, reinterpret_cast<void const*>(row), 16);
      mine[4] = uint32(row / 16);
    }
    testing::fiber_exchange::run(what, mine, [&](auto const& shown) {
      if (lane < lanes) check_banks(shown, lane, first);
      f(shown, lane);
    });
  }
  /// element(words, matrix, row, column): the bits of an element, with words[lane][0 .. 3] the registers of a lane.
  template <class F>
  static void write(int what, address_type row, uint32 const (&r)[4], F element) {
    auto& scheduler = testing::fiber_scheduler::get();
    if (row % 16 != 0) scheduler.fail("stmatrix: a row is not aligned");
    uint32 const mine[5] = {r[0], r[1], r[2], r[3], uint32(row / 16)};
    testing::fiber_exchange::run(what, mine, [&](auto const& shown) {
      int const lane = scheduler.rank() % 32;
      check_banks(shown, lane, lane / 8 * 8);
      for (int column = 0; column < 8; column++)
        reinterpret_cast<uint16*>(row)[column] = uint16(element(shown, lane / 8, lane % 8, column));
    });
  }
  /// The eight rows of a matrix are accessed at once, each in 4 of 32 banks; words[lane][4] is the row's number of 16
  /// bytes.
  static void check_banks(auto const& shown, int lane, int first) {
    for (int i = first; i < first + 8; i++)
      if (shown[i][4] != shown[lane][4] && shown[i][4] % 8 == shown[lane][4] % 8)
        testing::fiber_scheduler::get().fail("ldmatrix, stmatrix: rows meet in a bank");
  }
  void copy(address_type to_address, void const* from, bool present, std::size_t bytes) const {
    auto& scheduler = testing::fiber_scheduler::get();
    void* const to = reinterpret_cast<void*>(to_address);
    if (to_address % bytes != 0 || reinterpret_cast<std::uintptr_t>(from) % bytes != 0)
      scheduler.fail("cp.async: an address is not aligned");
    pending_.push_back({to, from, present, bytes});
    if (scheduler.random(2) == 0)
      perform(pending_.back());  // and again at the wait: the destination must not be accessed before
  }
  static void perform(pending_copy const& c) {
    if (c.present) std::memcpy(c.to, c.from, c.bytes);
    else std::memset(c.to, 0, c.bytes);
  }
};

}  // namespace tcnca
