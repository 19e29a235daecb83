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

  TCNCA_HOST_DEVICE friend constexpr bool operator==(gated_fusion_shape const& a, gated_fusion_shape const& b) {
    return a.update_gate == b.update_gate && a.reset_gate == b.reset_gate && a.mixer_path == b.mixer_path &&
           a.dropout == b.dropout;
  }
  template <class F>
  constexpr void fields(F f) const {
    f("update_gate", update_gate), f("reset_gate", reset_gate), f("mixer_path", mixer_path), f("dropout", dropout);
  }
};

}  // namespace tcnca
