// Gradients of chunked attention against difference quotients of the forward pass, in fp64. On the CPU alone: on a
// device these kernels are compared with the reference.
#include "support/gradient.hpp"
#include "cases.hpp"

namespace tcnca::testing {
namespace {

using reference::attention::bounded;

template <class S>
struct chunked_attention_gradient : ::testing::Test {
  using problem_type = attention_problem<S>;

  static attention_extents extents(double scale) {
    return {.batch = 2,
            .heads = 2,
            .length = 23,
            .key_dim = 16,
            .value_dim = 16,
            .chunk = 9,
            .position = S::causal ? 5 : 9,
            .lengths = true,
            .state_out = S::causal,
            .scale = scale,
            .dropout = S::shape.dropout ? 0.4 : 0,
            .spread = 1};
  }
  /// The slots of a state that are filled before the call. The others have no gradient.
  static std::vector<double*> filled(tensor<double, 4> const& state, index_t slots) {
    std::vector<double*> all;
    for (index_t i = 0; i < state.count(); i++)
      if (i / state.view().extent[3] % state.view().extent[2] < slots) all.push_back(state.at(i));
    return all;
  }
  static void add_state(gradient_check& check, char const* name, problem_type const& p, tensor<double, 4> const& state,
                        tensor<double, 4> const& gradient) {
    std::vector<double> g;
    for (double const* x : filled(gradient, p.p.filled_before())) g.push_back(*x);
    check.add(name, filled(state, p.p.filled_before()), g);
  }
  static double loss(problem_type& p) {
    p.run_forward(1);
    reference::sum<double> all;
    add_loss(all, p.p.grad_o, p.o.values()), add_loss(all, p.p.grad_keys_out, p.keys_out.values()),
        add_loss(all, p.p.grad_values_out, p.values_out.values());
    return all.get();
  }
  static double rounding(problem_type const& p) {
    use_arithmetic_of<double>();
    auto const exact = reference::attention::forward<bounded>(p.what, p.p);
    reference::sum<bounded> all;
    add_loss(all, p.p.grad_o, exact.o), add_loss(all, p.p.grad_keys_out, reference::attention::keys_out(p.p)),
        add_loss(all, p.p.grad_values_out, reference::attention::values_out(p.p));
    return all.get().e;
  }
};

using types = all_or_few<
    subjects_on_one<attention_case<double, softmax_plain>, attention_case<double, softmax_causal_bias>,
                    attention_case<double, softmax_causal_bias_dropout>, attention_case<double, laplace_causal_bias>,
                    attention_case<double, laplace_dropout>, attention_case<double, relu2_causal>>,
    subjects_on_one<attention_case<double, softmax_causal_bias_dropout>>>;
TYPED_TEST_SUITE(chunked_attention_gradient, types, subject_name);

TYPED_TEST(chunked_attention_gradient, is_the_derivative_of_the_forward_pass) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (double const scale : {0.0, 0.3}) {
    attention_problem<S> problem(this->extents(scale), 4);
    problem.p.lengths = {1000, 19};
    problem.run_forward(1);
    problem.run_backward(1);
    gradient_check check;
    check.kinks = S::shape.function == attention_function::relu2;
    check.add("q", problem.q, problem.grad_q), check.add("k", problem.k, problem.grad_k);
    check.add("v", problem.v, problem.grad_v);
    if (S::shape.bias) check.add("bias", problem.bias, problem.grad_bias);
    this->add_state(check, "keys_in", problem, problem.keys_in, problem.grad_keys_in);
    this->add_state(check, "values_in", problem, problem.values_in, problem.grad_values_in);
    check.run([&] { return this->loss(problem); }, this->rounding(problem));
  }
}

}  // namespace
}  // namespace tcnca::testing
