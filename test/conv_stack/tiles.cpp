// Streaming stores, which need vectors that begin at cache lines, and tiles at any address, in memory full of NaN.
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "problem.hpp"

namespace tcnca::testing {
namespace {

constexpr conv_stack_shape shape{.taps = 2, .depth = 1};

template <class T, conv_stack_shape Shape, stack_kernels Kernels>
struct always_streaming : default_conv_stack_tuning<T, Shape> {
  using base = default_conv_stack_tuning<T, Shape>;
  static constexpr conv_stack_policy with(conv_stack_policy p) {
    p.streaming_bytes = 1, p.tile = p.tile_max = 128, p.single_tile_limit = 256, p.kernels = Kernels;
    return p;
  }
  static constexpr conv_stack_policy forward(target t) { return with(base::forward(t)); }
  static constexpr conv_stack_policy backward(target t) { return with(base::backward(t)); }
};

template <class Stack>
void expect_exact_sums() {
  using stack = Stack;
  index_t const channels = 3, row = 1024;  // all rows have the alignment of the first
  for (index_t const offset : {0, 16, 5})
    for (index_t const length : {16, 256, 300, 1024}) {
      SCOPED_TRACE(::testing::Message() << "length " << length << " offset " << offset);
      std::vector<float> memory[5];
      float* rows[5];
      for (int i = 0; i < 5; i++) {
        memory[i].assign(std::size_t(channels * row) + 64, -7.0f);
        auto const address = reinterpret_cast<std::uintptr_t>(memory[i].data());
        rows[i] = memory[i].data() + (64 - address % 64) / 4 + offset;
      }
      float *const x = rows[0], *const y = rows[1], *const grad_y = rows[2], *const grad_x = rows[3];
      float weight[2 * channels], grad_weight[2 * channels];
      for (int c = 0; c < 3; c++) weight[c] = float(c + 1), weight[channels + c] = -2.0f;
      for (index_t i = 0; i < channels * row; i++) x[i] = float(i % 31), grad_y[i] = float(i % 29);
      auto const at = [&](float* p) {
        return sequence_view<float>{p, {1, channels, length}, {channels * row, row, 1}};
      };
      auto const in = [&](float const* p) {
        return sequence_view<float const>{p, {1, channels, length}, {channels * row, row, 1}};
      };
      auto const weights = contiguous(static_cast<float const*>(weight), 1, 2, channels);
      typename stack::forward_args const f{.x = in(x), .weight = weights, .y = at(y)};
      typename stack::backward_args const b{.x = in(x),
                                            .weight = weights,
                                            .grad_y = in(grad_y),
                                            .grad_x = at(grad_x),
                                            .grad_weight = contiguous(grad_weight, 1, 2, channels)};
      std::vector<double> scratch(stack::backward_workspace(cpu{1}, b) / 8 + stack::forward_workspace(cpu{1}, f) / 8 +
                                  64);
      auto const start = (reinterpret_cast<std::uintptr_t>(scratch.data()) + 255) / 256 * 256;
      workspace const space{reinterpret_cast<void*>(start), scratch.size() * 8 - 256};
      ASSERT_TRUE(stack::forward(cpu{1}, f, space).ok());
      ASSERT_TRUE(stack::backward(cpu{1}, b, space).ok());
      for (index_t c = 0; c < channels; c++) {
        for (index_t t = 0; t < length; t++) {  // small integers: exact
          float const *const xs = x + c * row, *const gs = grad_y + c * row;
          ASSERT_EQ(y[c * row + t], weight[c] * xs[t] + weight[channels + c] * (t > 0 ? xs[t - 1] : 0.0f)) << t;
          ASSERT_EQ(grad_x[c * row + t], weight[c] * gs[t] + weight[channels + c] * (t + 1 < length ? gs[t + 1] : 0.0f))
              << t;
        }
        for (index_t t = length; t < row && t < length + 64; t++)
          ASSERT_TRUE(y[c * row + t] == -7.0f && grad_x[c * row + t] == -7.0f) << t;
      }
    }
}

TEST(conv_stack_tiles, streaming_stores) {
  expect_exact_sums<conv_stack<float, shape, always_streaming<float, shape, stack_kernels::automatic>>>();
}
TEST(conv_stack_tiles, streaming_stores_of_the_generic_kernels) {
  expect_exact_sums<conv_stack<float, shape, always_streaming<float, shape, stack_kernels::generic>>>();
}

/// Rows that begin at cache lines, of any length: the bits of ordinary stores.
template <class T, conv_stack_shape Shape>
void expect_the_bits_of_ordinary_stores() {
  using streaming = conv_stack<T, Shape, always_streaming<T, Shape, stack_kernels::automatic>>;
  using ordinary = conv_stack<T, Shape>;
  constexpr index_t channels = 2, row = 1024, parameters = Shape.directions() * Shape.layers() * Shape.taps;
  struct alignas(256) rows {
    T at[channels * row];
  };
  struct alignas(256) bytes {
    char at[256];
  };
  static rows x, grad_y, y[2], grad_x[2];
  T weight[parameters * channels];
  accumulate_t<T> grad_weight[parameters * channels];
  random_bits r{5};
  for (T& v : x.at) v = from_double<T>(uniform(r));
  for (T& v : grad_y.at) v = from_double<T>(uniform(r));
  for (T& v : weight) v = from_double<T>(uniform(r));
  for (index_t const length : {1, 16, 100, 130, 700, 1024}) {
    SCOPED_TRACE(::testing::Message() << "length " << length);
    auto const view = [&](auto& v) {
      return sequence_view<std::remove_reference_t<decltype(v.at[0])>>{
          v.at, {1, channels, length}, {channels * row, row, 1}};
    };
    auto const run = [&](auto stack, int i) {
      using op = typename decltype(stack)::type;
      for (auto* const v : {&y[i], &grad_x[i]}) std::memset(v, 0xff, sizeof(rows));
      auto const weights = contiguous(static_cast<T const*>(weight), parameters / Shape.taps, Shape.taps, channels);
      typename op::forward_args const f{.x = view(std::as_const(x)), .weight = weights, .y = view(y[i])};
      typename op::backward_args const b{
          .x = f.x,
          .weight = weights,
          .grad_y = view(std::as_const(grad_y)),
          .grad_x = view(grad_x[i]),
          .grad_weight = contiguous(grad_weight, parameters / Shape.taps, Shape.taps, channels)};
      std::vector<bytes> memory(op::forward_workspace(cpu{2}, f) / 256 + op::backward_workspace(cpu{2}, b) / 256 + 2);
      workspace const scratch{memory.data(), memory.size() * 256};
      ASSERT_TRUE(op::forward(cpu{2}, f, scratch).ok());
      ASSERT_TRUE(op::backward(cpu{2}, b, scratch).ok());
    };
    run(std::type_identity<streaming>{}, 0), run(std::type_identity<ordinary>{}, 1);
    EXPECT_EQ(std::memcmp(&y[0], &y[1], sizeof(rows)), 0) << "y";
    EXPECT_EQ(std::memcmp(&grad_x[0], &grad_x[1], sizeof(rows)), 0) << "grad_x";
  }
}
TEST(conv_stack_tiles, streaming_stores_of_stacks_that_look_ahead) {
  expect_the_bits_of_ordinary_stores<float, conv_stack_shape{
                                                .taps = 3, .dilations = {5, 16, 1}, .dir = direction::symmetric}>();
  expect_the_bits_of_ordinary_stores<bf16, conv_stack_shape{
                                               .taps = 2, .dilations = {3, 40}, .dir = direction::bidirectional}>();
}

// Tiles that are not multiples of a dilation that is itself a multiple of the vector width and long enough to split
// tiles.
constexpr conv_stack_shape two{.taps = 17, .depth = 2, .dilations = {144, 1}};

struct stepping : default_conv_stack_tuning<float, two> {
  using base = default_conv_stack_tuning<float, two>;
  static constexpr conv_stack_policy with(conv_stack_policy p) {
    p.tile = p.tile_max = 512, p.single_tile_limit = 0, p.kernels = stack_kernels::generic;
    return p;
  }
  static constexpr conv_stack_policy forward(target t) { return with(base::forward(t)); }
  static constexpr conv_stack_policy backward(target t) { return with(base::backward(t)); }
};

TEST(conv_stack_tiles, at_any_address) {
  using stack = conv_stack<float, two, stepping>;
  constexpr int length = 6000;
  static float x[length], y[length], grad_y[length], grad_x[length];
  float weight[34], grad_weight[34];
  for (int i = 0; i < 34; i++) weight[i] = float(i % 5 - 2) / 8;
  for (int i = 0; i < length; i++) x[i] = float(i % 31 - 15) / 16, grad_y[i] = float(i % 29 - 14) / 16;
  typename stack::forward_args const f{.x = contiguous<float const>(x, 1, 1, length),
                                       .weight = contiguous<float const>(weight, 2, 17, 1),
                                       .y = contiguous(y, 1, 1, length)};
  typename stack::backward_args const b{.x = f.x,
                                        .weight = f.weight,
                                        .grad_y = contiguous<float const>(grad_y, 1, 1, length),
                                        .grad_x = contiguous(grad_x, 1, 1, length),
                                        .grad_weight = contiguous(grad_weight, 2, 17, 1)};
  std::vector<double> scratch(stack::backward_workspace(cpu{1}, b) / 8 + stack::forward_workspace(cpu{1}, f) / 8 + 64);
  for (double& d : scratch)
    for (int i = 0; i < 2; i++) reinterpret_cast<float*>(&d)[i] = std::numeric_limits<float>::quiet_NaN();
  auto const start = (reinterpret_cast<std::uintptr_t>(scratch.data()) + 255) / 256 * 256;
  workspace const space{reinterpret_cast<void*>(start), scratch.size() * 8 - 256};

  static double a[3][length], g[3][length];  // inputs of the layers and the result, and their gradients
  double sums[34] = {};
  for (int t = 0; t < length; t++) a[0][t] = x[t], g[2][t] = grad_y[t];
  for (int l = 0; l < 2; l++)
    for (int t = 0; t < length; t++)
      for (int k = 0, d = int(two.dilation(l)); k < 17 && t >= k * d; k++)
        a[l + 1][t] += double(weight[l * 17 + k]) * a[l][t - k * d];
  for (int l = 1; l >= 0; l--)
    for (int t = 0; t < length; t++)
      for (int k = 0, d = int(two.dilation(l)); k < 17 && t >= k * d; k++) {
        g[l][t - k * d] += double(weight[l * 17 + k]) * g[l + 1][t];
        sums[l * 17 + k] += g[l + 1][t] * a[l][t - k * d];
      }
  ASSERT_TRUE(stack::forward(cpu{1}, f, space).ok());
  for (int t = 0; t < length; t++) ASSERT_NEAR(y[t], a[2][t], 1e-4) << t;
  ASSERT_TRUE(stack::backward(cpu{1}, b, space).ok());
  for (int t = 0; t < length; t++) ASSERT_NEAR(grad_x[t], g[0][t], 1e-4) << t;
  for (int i = 0; i < 34; i++) ASSERT_NEAR(grad_weight[i], sums[i], 1e-2) << i;
}

// A segment short enough to be one tile, followed by elements of the next segment.
template <class Tuning>
void expect_many_segments() {
  using stack = conv_stack<float, shape, Tuning>;
  constexpr int length = 40000;
  static float x[length], y[length];
  float const weight[2] = {3, -2};
  for (int i = 0; i < length; i++) x[i] = float(i % 31);
  typename stack::forward_args const f{.x = contiguous<float const>(x, 1, 1, length),
                                       .weight = contiguous<float const>(weight, 1, 2, 1),
                                       .y = contiguous(y, 1, 1, length)};
  std::vector<double> scratch(stack::forward_workspace(cpu{10}, f) / 8 + 64);
  auto const start = (reinterpret_cast<std::uintptr_t>(scratch.data()) + 255) / 256 * 256;
  ASSERT_TRUE(stack::forward(cpu{10}, f, {reinterpret_cast<void*>(start), scratch.size() * 8 - 256}).ok());
  for (int t = 0; t < length; t++) ASSERT_EQ(y[t], 3 * x[t] - 2 * (t > 0 ? x[t - 1] : 0.0f)) << t;
}

TEST(conv_stack_tiles, of_many_segments) {
  expect_many_segments<default_conv_stack_tuning<float, shape>>();
  expect_many_segments<generic_tuning<float, shape>>();
}

// A stack has as many levels as dilations are listed.
TEST(conv_stack_tiles, of_a_list_without_a_depth) {
  constexpr conv_stack_shape listed{.taps = 3, .dilations = {1, 3, 7, 2}}, once{.taps = 3},
      both{.taps = 2, .dilations = {5, 1}, .convolutions = 2, .blocks = 2};
  static_assert(listed.levels() == 4 && listed.layers() == 4 && listed.dilation(3) == 2 &&
                listed.receptive_field() == 27);
  static_assert(once.levels() == 1 && once.layers() == 1 && both.levels() == 2 && both.layers() == 8 &&
                both.dilation(1) == 5 && both.dilation(2) == 1);
  using stack = conv_stack<float, listed>;
  constexpr int length = 100;
  float x[length] = {1}, y[length], weight[12];
  for (float& w : weight) w = 1;
  typename stack::forward_args const f{.x = contiguous<float const>(x, 1, 1, length),
                                       .weight = contiguous<float const>(weight, 4, 3, 1),
                                       .y = contiguous(y, 1, 1, length)};
  std::vector<double> scratch(stack::forward_workspace(cpu{1}, f) / 8 + 64);
  auto const start = (reinterpret_cast<std::uintptr_t>(scratch.data()) + 255) / 256 * 256;
  ASSERT_TRUE(stack::forward(cpu{1}, f, {reinterpret_cast<void*>(start), scratch.size() * 8 - 256}).ok());
  float paths[length] = {};  // number of paths from the impulse to a position
  for (int i = 0; i < 81; i++) paths[i % 3 * 1 + i / 3 % 3 * 3 + i / 9 % 3 * 7 + i / 27 * 2]++;
  for (int t = 0; t < length; t++) ASSERT_EQ(y[t], paths[t]) << t;
}

}  // namespace
}  // namespace tcnca::testing
