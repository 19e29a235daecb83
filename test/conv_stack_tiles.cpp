// Tiles that begin anywhere, in memory full of NaN.
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include <tcnca/conv_stack.hpp>

namespace tcnca::testing {
namespace {

// Tiles that are no multiples of a dilation, which is one of whole packs and long enough to cut tiles in pieces.
constexpr conv_stack_shape two{.taps = 17, .depth = 2, .dilations = {144, 1}};

struct stepping : default_conv_stack_tuning<float, two> {
  using base = default_conv_stack_tuning<float, two>;
  static constexpr conv_stack_policy with(conv_stack_policy p) {
    p.tile = p.tile_max = 512, p.whole = 0;
    return p;
  }
  static constexpr conv_stack_policy forward(machine m) { return with(base::forward(m)); }
  static constexpr conv_stack_policy backward(machine m) { return with(base::backward(m)); }
};

TEST(conv_stack_tiles, that_begin_anywhere) {
  using stack = conv_stack<float, two, stepping>;
  index const length = 6000;
  std::vector<float> x(length), y(length), grad_y(length), grad_x(length);
  float weight[34], grad_weight[34];
  for (int i = 0; i < 34; i++) weight[i] = float(i % 5 - 2) / 8;
  for (index i = 0; i < length; i++) x[i] = float(i % 31 - 15) / 16, grad_y[i] = float(i % 29 - 14) / 16;
  typename stack::forward_args const f{.x = contiguous<float const>(x.data(), 1, 1, length),
                                       .weight = contiguous<float const>(weight, 2, 17, 1),
                                       .y = contiguous(y.data(), 1, 1, length)};
  typename stack::backward_args const b{.x = f.x,
                                        .weight = f.weight,
                                        .grad_y = contiguous<float const>(grad_y.data(), 1, 1, length),
                                        .grad_x = contiguous(grad_x.data(), 1, 1, length),
                                        .grad_weight = contiguous(grad_weight, 2, 17, 1)};
  std::vector<double> scratch(stack::backward_workspace(cpu{1}, b) / 8 + stack::forward_workspace(cpu{1}, f) / 8 + 64);
  for (double& d : scratch)
    for (int i = 0; i < 2; i++) reinterpret_cast<float*>(&d)[i] = std::numeric_limits<float>::quiet_NaN();
  auto const start = (reinterpret_cast<std::uintptr_t>(scratch.data()) + 255) / 256 * 256;
  workspace const space{reinterpret_cast<void*>(start), scratch.size() * 8 - 256};

  std::vector<double> a[3], g[3];  // inputs of the layers and the result, and their gradients
  a[0].assign(x.begin(), x.end()), g[2].assign(grad_y.begin(), grad_y.end());
  double sums[34] = {};
  for (int l = 0; l < 2; l++) {
    a[l + 1].assign(length, 0);
    for (index t = 0; t < length; t++)
      for (int k = 0; k < 17 && t >= k * two.dilation(l); k++) a[l + 1][t] += weight[l * 17 + k] * a[l][t - k * two.dilation(l)];
  }
  for (int l = 1; l >= 0; l--) {
    g[l].assign(length, 0);
    for (index t = 0; t < length; t++)
      for (int k = 0; k < 17 && t >= k * two.dilation(l); k++) {
        index const from = t - k * two.dilation(l);
        g[l][from] += weight[l * 17 + k] * g[l + 1][t], sums[l * 17 + k] += g[l + 1][t] * a[l][from];
      }
  }
  ASSERT_TRUE(stack::forward(cpu{1}, f, space).ok());
  for (index t = 0; t < length; t++) ASSERT_NEAR(y[t], a[2][t], 1e-4) << t;
  ASSERT_TRUE(stack::backward(cpu{1}, b, space).ok());
  for (index t = 0; t < length; t++) ASSERT_NEAR(grad_x[t], g[0][t], 1e-4) << t;
  for (int i = 0; i < 34; i++) ASSERT_NEAR(grad_weight[i], sums[i], 1e-2) << i;
}

}  // namespace
}  // namespace tcnca::testing
