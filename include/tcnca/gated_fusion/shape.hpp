// Which gates a layer has: everything known at compile time; and its tuning.
#pragma once
#include "../core/config.hpp"

namespace tcnca {

/// The gates of a TCNCA (or MEGA) layer. With all off but the mix, the simplified layer: y = x + silu(h).
struct gated_fusion_shape {
  bool update_gate = true;  ///< y = x + sigmoid(u) (candidate - x); else y = x + candidate
  bool reset_gate = true;   ///< the attention's output times silu(r)
  bool mixer_path = true;   ///< the candidate is silu(hx + h), hx straight from the temporal mixer; else silu(h)
  bool dropout = false;     ///< of the candidate
};

/// Tuning: plain values, compared field by field.
struct gated_fusion_policy {
  int width;      ///< lanes of a pack
  int threads;    ///< of a group, a power of two
  index_t rows;   ///< of an item, at the least
  index_t items;  ///< at most, unless items would then have more than 1024 rows; each item keeps its own sums over rows
  size_t streaming_bytes;  ///< results of more bytes go past the caches; 0: never

  friend constexpr bool operator==(gated_fusion_policy const&, gated_fusion_policy const&) = default;
};

}  // namespace tcnca
