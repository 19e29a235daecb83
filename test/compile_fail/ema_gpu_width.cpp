// expect: tcnca::ema: on a GPU a policy's width must be 1
#include <tcnca/ema.hpp>

#include "../support/fiber.hpp"

constexpr tcnca::ema_shape shape{};
struct vector_tuning : tcnca::default_ema_tuning<float, shape> {
  static constexpr tcnca::ema_policy forward(tcnca::target t) {
    auto p = tcnca::default_ema_tuning<float, shape>::forward(t);
    p.width = 4;
    return p;
  }
};
tcnca::size_t bytes() {
  return tcnca::ema<float, shape, vector_tuning>::kernel_workspace(tcnca::testing::fibers<>{}, {});
}
