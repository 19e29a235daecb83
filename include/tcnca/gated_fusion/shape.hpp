// The compile-time description of the gates of a layer.
#pragma once
#include "../core/config.hpp"

namespace tcnca {

/// Which gates a TCNCA (or MEGA) layer has. With every member false: the simplified layer, y = x + silu(h).
struct gated_fusion_shape {
  bool update_gate = true;  ///< y = x + sigmoid(u) (candidate - x); else y = x + candidate
  bool reset_gate = true;   ///< the attention's output is multiplied by silu(r)
  bool mixer_path = true;   ///< candidate = silu(hx + h), with hx from the temporal mixer; else silu(h)
  bool dropout = false;     ///< dropout of the candidate
};

}  // namespace tcnca
