// Tuning of the gates.
#pragma once
#include "../arch/host.hpp"
#include "../core/numeric.hpp"
#include "../core/target.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How a pass is cut into work items and vector accesses.
struct gated_fusion_policy {
  int width;      ///< elements of a pack
  int threads;    ///< of a group; a power of two
  index_t rows;   ///< minimum of an item
  index_t items;  ///< maximum, unless items would then have more than 1024 rows; mix_backward has sums for each
  size_t streaming_bytes;  ///< outputs of more bytes in total use non-temporal stores; 0: never

  friend constexpr bool operator==(gated_fusion_policy const&, gated_fusion_policy const&) = default;
};

/// The default tuning. A tuning is any type with this function.
template <element T>
struct default_gated_fusion_tuning {
  static constexpr gated_fusion_policy pass(target t) {
    // One 16-byte access per thread; items for eight blocks on each of the 132 multiprocessors of an H100. Not yet
    // measured on a device.
    if (!t.is_cpu())
      return {.width = 16 / int(sizeof(T)), .threads = 256, .rows = 8, .items = 1056, .streaming_bytes = 0};
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
            .threads = 1,
            .rows = 32,
            .items = 1024,
            .streaming_bytes = size_t(16) << 20};
  }
};

}  // namespace tcnca
