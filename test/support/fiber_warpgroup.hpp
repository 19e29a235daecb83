// Warpgroup operations for fibers. The layouts of wgmma's operands and result are written here
// independently from the PTX ISA ("Asynchronous Warpgroup Level Matrix Shared Memory Layout", "Matrix Descriptor
// Format", "Register Fragments"): an agent's descriptors are decoded bit by bit, so that a wrong one gives wrong
// results. Included by fiber.hpp.
#pragma once
#include <cstring>
#include <vector>

#include <tcnca/block/wgmma.hpp>

#include "fiber_cluster.hpp"

namespace tcnca {

template <int N>
struct warpgroup_of<testing::fiber_group<N>> {
  static constexpr bool exists = N % 128 == 0;

  /// An address counts from the beginning of the group's shared memory, which begins at a multiple of 1024 like that of
  /// a block.
  static uint32 address(void const* p) { return uint32(static_cast<char const*>(p) - near()); }
  void fence_proxy_async() const {}
  void fence() const { begun_ = true; }
  template <element T, bool AColumns, bool BRows, int Tiles>
  void multiply(float (&c)[Tiles][4], uint64 a, uint64 b, bool add) const {
    static_assert(Tiles == 8 || Tiles == 16 || Tiles == 32);
    issue({&perform<T>, &c[0][0], 8 * Tiles, a, b, add, AColumns, BRows});
  }
  template <element T>
  void multiply_rows(float (&c)[8][4], uint64 a, uint64 b, bool add) const {
    multiply<T, false, false>(c, a, b, add);
  }
  template <element T>
  void multiply_columns(float (&c)[32][4], uint64 a, uint64 b) const {
    multiply<T, false, true>(c, a, b, true);
  }
  template <int Tiles>
  void wait(float (&)[Tiles][4]) const {
    for (auto const& p : pending_) p.perform(p);
    pending_.clear();
    begun_ = false;
    testing::fiber_scheduler::get().warpgroup_barrier();  // no lane continues before the product is complete
  }

 private:
  /// An instruction is performed either at its issue or at the wait, in order.
  struct product {
    void (*perform)(product const&);
    float* c;
    int columns;
    uint64 a, b;
    bool add, a_columns, b_rows;
  };
  mutable std::vector<product> pending_;
  mutable bool begun_ = false;

  static char const* near() { return testing::fiber_cluster::of(testing::fiber_scheduler::get().block()); }

  void issue(product const& p) const {
    auto& scheduler = testing::fiber_scheduler::get();
    if (!begun_) scheduler.fail("wgmma: no fence before");
    uint64 const mine[4] = {p.a, p.b, uint64(p.columns), uint64(p.add)};
    agree(mine);
    if (pending_.empty() && scheduler.random(2) == 0) p.perform(p);
    else pending_.push_back(p);
  }
  /// All lanes must pass the same.
  static void agree(uint64 const (&mine)[4]) {
    static uint64 shown[testing::fiber_scheduler::max_groups][testing::fiber_scheduler::max_fibers / 128][2][128][4];
    auto& scheduler = testing::fiber_scheduler::get();
    auto& now = shown[scheduler.group()][scheduler.rank() / 128][scheduler.warpgroup_phase() & 1];
    std::memcpy(now[scheduler.rank() % 128], mine, sizeof(mine));
    scheduler.warpgroup_barrier();
    if (std::memcmp(now[0], mine, sizeof(mine)) != 0)
      scheduler.fail("divergence: the lanes of a warpgroup do not do the same");
  }

  /// An operand in memory. Of neighbours along the sum (k): rows of the other index in eights, 128 bytes apart, the
  /// eights `stride` apart. Transposed: 64 neighbours of the other index, `leading` from one 64 to the next; k in
  /// eights, 128 bytes apart, the eights `stride` apart.
  struct operand {
    int start, leading, stride;
    explicit operand(uint64 d)
        : start(int(d & 0x3fff) * 16), leading(int(d >> 16 & 0x3fff) * 16), stride(int(d >> 32 & 0x3fff) * 16) {
      if (d >> 62 != 1 || (d >> 49 & 7) != 0)
        testing::fiber_scheduler::get().fail("wgmma: not a descriptor for 128-byte swizzle");
    }
    template <element T>
    float at(int other, int k, bool transposed) const {
      int const straight = transposed ? start + other % 64 * 2 + other / 64 * leading + k % 8 * 128 + k / 8 * stride
                                      : start + other % 8 * 128 + other / 8 * stride + k * 2;
      T x;
      std::memcpy(&x, near() + (straight ^ (straight & 0x380) >> 3), sizeof(x));
      return to_accumulate(x);
    }
  };
  /// Lane l of warp w has of every 8 columns 2 (l % 4) and the next, in row 16 w + l / 4 and in the eighth row after
  /// it.
  template <element T>
  static void perform(product const& p) {
    int const rank = testing::fiber_scheduler::get().rank() % 128, row = rank / 32 * 16 + rank % 32 / 4;
    operand const a(p.a), b(p.b);
    float left[2][16];
    for (int half = 0; half < 2; half++)
      for (int k = 0; k < 16; k++) left[half][k] = a.template at<T>(row + 8 * half, k, p.a_columns);
    for (int i = 0; i < p.columns / 2; i += 4)
      for (int e = 0; e < 2; e++) {
        float right[16];
        for (int k = 0; k < 16; k++) right[k] = b.template at<T>(i * 2 + rank % 4 * 2 + e, k, p.b_rows);
        for (int half = 0; half < 2; half++) {
          float& c = p.c[i + 2 * half + e];
          float sum = p.add ? c : 0;
          for (int k = 0; k < 16; k++) sum += left[half][k] * right[k];
          c = sum;
        }
      }
  }
};

}  // namespace tcnca
