// The activation of a layer and the residual around it, in the order that the shape says.
#pragma once
#include "../block/activation.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The output of a layer from its sums, with the derivative of the activation. add_residual(v): the sum of v and the
/// residual that ends at the layer, or v.
template <conv_stack_shape Shape, class Value, class AddResidual>
TCNCA_HOST_DEVICE auto activate_layer(Value sum, AddResidual const& add_residual) {
  if constexpr (Shape.post_activation) {
    return activate<Shape.act>(add_residual(sum));
  } else {
    auto a = activate<Shape.act>(sum);
    a.value = add_residual(a.value);
    return a;
  }
}

}  // namespace tcnca::detail
