// Tuning of the gates.
#pragma once
#include "../arch/host.hpp"
#include "../core/numeric.hpp"
#include "../core/target.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How a pass is cut into work items and vector accesses.
struct gated_fusion_policy {
  int width;                  ///< elements of a pack
  int threads;                ///< of a group; a power of two
  index_t rows;               ///< minimum of an item
  index_t items;              ///< maximum, unless items would then have more than 1024 rows
  size_t streaming_bytes;     ///< outputs of more bytes in total use non-temporal stores; 0: never
  int prefetch_bytes = 2048;  ///< CPU: how far ahead of a load its stream is prefetched
  int loads_in_flight = 0;    ///< GPU: about so many vectors, of two to four rows, a thread loads before it stores
  int blocks_per_multiprocessor = 1;  ///< GPU: for which there must be registers; one less where a pass keeps more
  index_t items_for_parameters = 0;   ///< in place of items for mix and mix_backward, which has sums for each; 0: items

  friend constexpr bool operator==(gated_fusion_policy const&, gated_fusion_policy const&) = default;
  template <class F>
  constexpr void fields(F f) const {
    f("width", width), f("threads", threads), f("rows", rows), f("items", items);
    f("streaming_bytes", streaming_bytes), f("prefetch_bytes", prefetch_bytes);
    f("loads_in_flight", loads_in_flight), f("blocks_per_multiprocessor", blocks_per_multiprocessor);
    f("items_for_parameters", items_for_parameters);
  }
};

/// The policy of a pass with parameters of the columns.
constexpr gated_fusion_policy with_parameters(gated_fusion_policy p) {
  if (p.items_for_parameters > 0) p.items = p.items_for_parameters;
  return p;
}

/// The default tuning. A tuning is any type with this function.
template <element T>
struct default_gated_fusion_tuning {
  static constexpr gated_fusion_policy pass(target t) {
    // 16-byte accesses. The items are whole waves of blocks on the 132 multiprocessors of an H100, with three blocks on
    // each, or two. Counted, not measured: see bench/counted.
    if (!t.is_cpu())
      return {.width = 16 / int(sizeof(T)),
              .threads = 256,
              .rows = 8,
              .items = 1584,
              .streaming_bytes = 0,
              .loads_in_flight = 8,
              .blocks_per_multiprocessor = 3,
              .items_for_parameters = 528};
    // prefetch_bytes: measured in November 2026 on a Xeon of family 6, model 207 (AVX-512), one thread, fp32, 65536
    // rows of 512 columns, copy bandwidth 21 GB/s. Percent of it without and with the prefetch: update 73, 88; reset
    // 77, 98; mix 84, 106. Distances of 512 to 4096 bytes differ by less than the noise, except 512, which gains half.
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
            .threads = 1,
            .rows = 32,
            .items = 1024,
            .streaming_bytes = size_t(16) << 20};
  }
};

}  // namespace tcnca
