// The CPU kernels as one compiler option selects them. test/CMakeLists.txt compiles this program for several levels of
// x86-64: each must give the oracle's bits and stay within the bounds of fp64. Programs whose processor has a fused
// multiply-add give the same bits, and so do those without one: cmake/check_code_path.sh compares the files that
// TCNCA_BITS_FILE names.
#include <cstdio>

#include "vector_backward_suite.hpp"
#include "vector_cases.hpp"
#include "vector_forward_suite.hpp"

namespace tcnca::testing {
namespace {

using shapes::last;
compiled_stack<float> const list_any = both_of<float, shapes::list_any>(),
                            near_last = both_of<float, last(shapes::list_near)>(),
                            symmetric = forward_of<float, shapes::symmetric_f7>();
compiled_stack<bf16> const bf16_k4 = forward_of<bf16, shapes::k4_f4>();

INSTANTIATE_TEST_SUITE_P(
    on_cpu, conv_stack_vector_forward,
    ::testing::ValuesIn(joined({forward_checks("list_any", list_any), forward_checks("list_near_last", near_last),
                                forward_checks("symmetric", symmetric), forward_checks("bf16_k4", bf16_k4)})),
    check_name);
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_backward,
                         ::testing::ValuesIn(joined({backward_checks("list_any", list_any),
                                                     backward_checks("list_near_last", near_last)})),
                         check_name);

/// Appends the results whose bits do not depend on the kernel.
template <class T>
void append_bits(std::vector<unsigned char>& all, compiled_stack<T> const& calls) {
  bool const causal = calls.shape.dir == direction::causal;
  vector_problem<T> problem(calls, {.batch = 2, .channels = 19, .length = 777, .state_in = causal, .state_out = causal},
                            1, calls.backward);
  auto const append = [&](auto const& t) {
    auto const bits = t.bits();
    all.insert(all.end(), bits.begin(), bits.end());
  };
  problem.run_forward(2);
  append(problem.y), append(problem.state_out);
  if (!calls.backward) return;
  problem.run_backward(2);
  append(problem.grad_x), append(problem.grad_state_in);
}
TEST(conv_stack_code_path, writes_its_bits) {
  std::vector<unsigned char> all;
  append_bits(all, list_any), append_bits(all, near_last), append_bits(all, symmetric), append_bits(all, bf16_k4);
  char const* const name = std::getenv("TCNCA_BITS_FILE");
  if (!name) return;
  std::FILE* const file = std::fopen(name, "wb");
  ASSERT_TRUE(file);
  EXPECT_EQ(std::fwrite(all.data(), 1, all.size(), file), all.size());
  EXPECT_EQ(std::fclose(file), 0);
}

}  // namespace
}  // namespace tcnca::testing
