// Which kernels the passes of a stack use on a GPU.
#include <sstream>
#include <string>

#include <gtest/gtest.h>
#include <tcnca/conv_stack.hpp>

namespace tcnca::testing {
namespace {

using detail::backward_passes, detail::forward_passes;

std::string name(pass_kernel k) {
  switch (k) {
    case pass_kernel::tensor: return "tensor";
    case pass_kernel::phases: return "phases";
    case pass_kernel::tensor_column: return "tensor column";
    case pass_kernel::column: return "column";
  }
  return "?";
}
template <element T, conv_stack_shape Shape, stack_kernels Allowed = stack_kernels::automatic>
std::string forward() {
  constexpr stack_passes p = forward_passes<T, Shape, Allowed>();
  std::ostringstream s;
  for (int i = 0; i < p.count; i++)
    s << (i > 0 ? ", " : "") << name(p.pass[i].kernel) << " to " << p.pass[i].layers.last;
  return p.count > 0 ? s.str() : "generic";
}
template <element T, conv_stack_shape Shape, int ComputeCapability = 90,
          stack_kernels Allowed = stack_kernels::automatic>
std::string backward() {
  constexpr auto p = backward_passes<T, Shape, Allowed, target{ComputeCapability}>();
  if (!p.exists) return "generic";
  std::ostringstream s;
  s << name(p.low) << " to " << p.split;
  if (p.split < Shape.layers()) s << ", column, recompute by " << name(p.recompute);
  return s.str();
}

constexpr conv_stack_shape k4_d3{.taps = 4, .depth = 3, .dilation_base = 4},
    k4_d6{.taps = 4, .depth = 6, .dilation_base = 4}, k4_d9{.taps = 4, .depth = 9, .dilation_base = 4},
    k8_d5{.taps = 8, .depth = 5, .dilation_base = 8}, k8_d6{.taps = 8, .depth = 6, .dilation_base = 8},
    k17{.taps = 17, .depth = 4, .dilation_base = 16}, k51{.taps = 51, .depth = 3, .dilation_base = 51},
    powers_of_3{.taps = 3, .depth = 7, .dilation_base = 3};

constexpr conv_stack_shape post_activation = [] {
  conv_stack_shape s = k4_d6;
  s.act = activation::relu, s.residuals = residual::level, s.post_activation = true;
  return s;
}();
constexpr conv_stack_shape mixed = [] {
  conv_stack_shape s = k4_d6;
  s.weights = parameter_type::accumulate;
  return s;
}();

TEST(conv_stack_choice, options) {
  EXPECT_EQ((forward<bf16, post_activation>()), "generic");
  EXPECT_EQ((backward<float, post_activation>()), "generic");
  EXPECT_EQ((forward<bf16, mixed>()), (forward<bf16, k4_d6>()));
  EXPECT_EQ((backward<bf16, mixed>()), (backward<bf16, k4_d6>()));
}
TEST(conv_stack_choice, sixteen_bits_forward) {
  EXPECT_EQ((forward<bf16, k4_d3>()), "phases to 3") << "few taps";
  EXPECT_EQ((forward<bf16, k4_d6>()), "tensor to 6");
  EXPECT_EQ((forward<bf16, k4_d9>()), "tensor to 6, column to 9");
  EXPECT_EQ((forward<bf16, k8_d5>()), "tensor to 5");
  EXPECT_EQ((forward<fp16, k8_d6>()), "tensor to 5, tensor column to 6");
  EXPECT_EQ((forward<bf16, k17>()), "tensor to 4");
  EXPECT_EQ((forward<bf16, k51>()), "tensor to 1, tensor column to 2, tensor column to 3");
  EXPECT_EQ((forward<bf16, powers_of_3>()), "phases to 7") << "rows are not aligned";
}
TEST(conv_stack_choice, fp32_forward) {
  EXPECT_EQ((forward<float, k4_d6>()), "phases to 6");
  EXPECT_EQ((forward<float, k8_d5>()), "phases to 4, column to 5");
  EXPECT_EQ((forward<float, k17>()), "phases to 3, column to 4");
  EXPECT_EQ((forward<double, k4_d6>()), "generic");
  EXPECT_EQ((forward<float, conv_stack_shape{.taps = 4, .depth = 3, .skip = true}>()), "phases to 3")
      << "then the skip";
}
TEST(conv_stack_choice, backward) {
  EXPECT_EQ((backward<bf16, k4_d6>()), "tensor to 6");
  EXPECT_EQ((backward<bf16, k17>()), "tensor to 3, column, recompute by tensor");
  EXPECT_EQ((backward<bf16, k8_d5>()), "tensor to 4, column, recompute by tensor");
  EXPECT_EQ((backward<bf16, k4_d9>()), "generic") << "more than one layer beyond a multiprocessor's memory";
  EXPECT_EQ((backward<float, k4_d6>()), "phases to 6");
  EXPECT_EQ((backward<float, k17>()), "phases to 3, column, recompute by phases");
  EXPECT_EQ((backward<float, k8_d5>()), "phases to 4, column, recompute by phases");
  EXPECT_NE((backward<bf16, k4_d6, 80>()), "generic") << "less shared memory";
}
TEST(conv_stack_choice, policies) {
  EXPECT_EQ((forward<bf16, k4_d6, stack_kernels::fp32_between_layers>()), "phases to 6");
  EXPECT_EQ((forward<bf16, k17, stack_kernels::fp32_between_layers>()), "generic") << "two passes round between them";
  EXPECT_EQ((forward<bf16, k4_d6, stack_kernels::generic>()), "generic");
  EXPECT_EQ((backward<bf16, k4_d6, 90, stack_kernels::generic>()), "generic");
}
TEST(conv_stack_choice, shapes_of_the_generic_kernel) {
  EXPECT_EQ((forward<float, conv_stack_shape{.taps = 4, .depth = 3, .convolutions = 2}>()), "generic");
  EXPECT_EQ((forward<float, conv_stack_shape{.taps = 4, .depth = 3, .residuals = residual::block}>()), "generic");
  EXPECT_EQ((backward<float, conv_stack_shape{.taps = 4, .depth = 3, .skip = true}>()), "generic");
  EXPECT_EQ((forward<float, conv_stack_shape{.taps = 3, .depth = 3, .dir = direction::symmetric}>()), "generic");
}

// Rows are split so that few of them occupy a device, unless the repeated halo costs more.
TEST(conv_stack_choice, segments) {
  auto const segments = [](index_t rows, index_t length, index_t resident, index_t halo) {
    return detail::choose_segments(rows, length, resident, halo, 2048).segments;
  };
  EXPECT_EQ(segments(1000, 100000, 396, 4096), 1);
  EXPECT_EQ(segments(128, 131072, 396, 4096), 3);
  EXPECT_EQ(segments(1, 131072, 396, 4096), 64);
  EXPECT_EQ(segments(128, 8192, 396, 69632), 1) << "the halo is longer than the row";
  EXPECT_EQ(segments(0, 0, 396, 4096), 1);
  for (index_t const rows : {1, 7, 128, 400}) {
    auto const s = detail::choose_segments(rows, 100001, 132, 4096, 2048);
    EXPECT_EQ(s.length % 2048, 0);
    EXPECT_GE(index_t(s.segments) * s.length, 100001);
    EXPECT_LT(index_t(s.segments - 1) * s.length, 100001) << "no segment is empty";
  }
}

}  // namespace
}  // namespace tcnca::testing
