// Tuning of the gates.
#pragma once
#include "../arch/host.hpp"
#include "../core/numeric.hpp"
#include "../core/target.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The tuning used unless another is named: any type with this function will do.
template <element T>
struct default_gated_fusion_tuning {
  static constexpr gated_fusion_policy pass(target t) {
    if (t.compute_capability != 0)
      return {.width = 16 / int(sizeof(T)),
              .threads = 256,
              .rows = 8,
              .items = 1056,
              .streaming_bytes = 0};  // not yet measured on a device
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
            .threads = 1,
            .rows = 32,
            .items = 1024,
            .streaming_bytes = size_t(16) << 20};
  }
};

}  // namespace tcnca
