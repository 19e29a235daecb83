// All operations on REAL with small extents, with infinities and NaNs where results for them are specified. Defines the
// function COMPUTE.
#include "report.hpp"

#include <tcnca/tcnca.hpp>

#include <limits>
#include <memory>
#include <utility>

namespace {

using tcnca::activation, tcnca::attention_function, tcnca::contiguous, tcnca::direction, tcnca::status;
constexpr tcnca::cpu on_cpu{.threads = 1};
constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();

using numbers = std::vector<REAL>;
/// Pseudo-random numbers in [-scale, scale], the same for every REAL.
numbers some(std::size_t n, double scale = 1, unsigned seed = 1) {
  std::vector<float> const v = flags::some(n, scale, seed);
  return {v.begin(), v.end()};
}

struct collector {
  flags::report rows;
  void add(std::string name, numbers const& v, double bound = 1e-6) {
    rows.push_back({std::move(name), {v.begin(), v.end()}, bound});
  }
  void answer(std::string name, status s) { rows.push_back({std::move(name), {double(s.code())}}); }
};

/// Calls f with a workspace of this size.
template <class F>
status with_workspace(std::size_t bytes, F f) {
  struct alignas(tcnca::workspace::alignment) line {
    char bytes[tcnca::workspace::alignment];
  };
  auto const memory = std::make_unique<line[]>(bytes / sizeof(line) + 1);
  return f(tcnca::workspace{memory.get(), bytes});
}

template <activation Act>
void activations(collector& to, char const* name) {
  constexpr int width = 16 / sizeof(REAL);
  numbers in = some(256, 1), value, derivative;
  for (REAL const x : some(256, 20, 2)) in.push_back(x);
  for (double const x : {0.0, 1e-3, -1e-3, 30.0, -30.0, 80.0, -80.0, 100.0, -100.0, infinity, nan, nan})
    in.push_back(REAL(x));
  for (std::size_t i = 0; i < in.size(); i += width) {
    auto const result = tcnca::activate<Act>(tcnca::load<width>(&in[i]));
    for (int w = 0; w < width; w++)
      value.push_back(result.value.lane(w)), derivative.push_back(result.derivative.lane(w));
  }
  for (std::size_t i = 0; i < in.size(); i += 3)
    value.push_back(tcnca::activate<Act>(tcnca::load<1>(&in[i])).value.lane(0));
  to.add(std::string("value of ") + name, value);
  derivative.resize(derivative.size() - 4);  // the derivative at infinities and NaN is unspecified
  to.add(std::string("derivative of ") + name, derivative, 2e-6);
}

void gates(collector& to) {
  using op = tcnca::gated_fusion<REAL, tcnca::gated_fusion_shape{}>;
  numbers const x = some(38, 3, 3), u = some(38, 8, 4), h = some(38, 30, 5), hx = some(38, 1, 6);
  numbers y(38), ga(38), gb(38), gc(38), gd(38);
  auto const view = [](auto& v) { return contiguous(v.data(), 1, 2, 19); };
  to.answer("reset", op::reset(on_cpu, {.o = view(x), .r = view(h), .y = view(y)}));
  to.add("reset", y, 2e-6);
  to.answer("reset_backward",
            op::reset_backward(
                on_cpu, {.o = view(x), .r = view(h), .grad_y = view(u), .grad_o = view(ga), .grad_r = view(gb)}));
  to.add("grad_o", ga, 2e-6), to.add("grad_r", gb, 4e-6);
  to.answer("update", op::update(on_cpu, {.x = view(x), .u = view(u), .hx = view(hx), .h = view(h), .y = view(y)}));
  to.add("update", y, 2e-6);
  to.answer("update_backward", op::update_backward(on_cpu, {.x = view(x),
                                                            .u = view(u),
                                                            .hx = view(hx),
                                                            .h = view(h),
                                                            .grad_y = view(x),
                                                            .grad_x = view(ga),
                                                            .grad_u = view(gb),
                                                            .grad_hx = view(gc),
                                                            .grad_h = view(gd)}));
  to.add("grad_x", ga, 2e-6), to.add("grad_u", gb, 4e-6), to.add("grad_h", gd, 4e-6);
  using dropping = tcnca::gated_fusion<REAL, tcnca::gated_fusion_shape{.dropout = true}>;
  to.answer("dropout of NaN",
            dropping::update(on_cpu,
                             {.x = view(x), .u = view(u), .hx = view(hx), .h = view(h), .y = view(y), .dropout = nan}));
}

void convolutions(collector& to) {
  using op = tcnca::conv_stack<REAL, tcnca::conv_stack_shape{
                                         .taps = 3, .depth = 2, .act = activation::gelu_tanh, .bias = true}>;
  long const channels = 3, length = 41;
  numbers x = some(123, 2, 7), weight = some(18, 1, 8), bias = some(6, 1, 9), grad_y = some(123, 1, 10);
  numbers y(123), grad_x(123), grad_weight(18), grad_bias(6);
  auto const view = [&](auto& v) { return contiguous(v.data(), 1, channels, length); };
  op::forward_args const f{.x = view(std::as_const(x)),
                           .weight = contiguous<REAL const>(weight.data(), 2, 3, channels),
                           .bias = contiguous<REAL const>(bias.data(), 2, channels),
                           .y = view(y)};
  auto const forward = [&] {
    return with_workspace(op::forward_workspace(on_cpu, f), [&](auto w) { return op::forward(on_cpu, f, w); });
  };
  to.answer("conv_stack", forward());
  to.add("conv_stack", y, 4e-6);
  op::backward_args const b{.x = f.x,
                            .weight = f.weight,
                            .bias = f.bias,
                            .grad_y = view(std::as_const(grad_y)),
                            .grad_x = view(grad_x),
                            .grad_weight = contiguous(grad_weight.data(), 2, 3, channels),
                            .grad_bias = contiguous(grad_bias.data(), 2, channels)};
  to.answer("conv_stack backward",
            with_workspace(op::backward_workspace(on_cpu, b), [&](auto w) { return op::backward(on_cpu, b, w); }));
  to.add("grad_x of conv_stack", grad_x, 4e-6), to.add("grad_weight", grad_weight, 2e-5),
      to.add("grad_bias", grad_bias, 2e-5);
  x[50] = REAL(nan), x[100] = REAL(infinity);
  to.answer("conv_stack", forward());
  to.add("conv_stack of a NaN and an infinity", y, 4e-6);
}

void emas(collector& to) {
  using op = tcnca::ema<REAL, tcnca::ema_shape{.states = 4}>;
  long const channels = 2, length = 5000;
  std::size_t const n = std::size_t(channels * length);
  numbers const x = some(n, 1, 11), delta = some(8, 2, 12), alpha = some(8, 4, 13), beta = some(8, 1, 14),
                gamma = some(8, 1, 15), omega = some(2, 1, 16), grad_y = some(n, 1, 17);
  numbers y(n), grad_x(n), gd(8), ga(8), gb(8), gg(8), go(2);
  auto const view = [&](auto& v) { return contiguous(v.data(), 1, channels, length); };
  auto const table = [&](auto& v) { return contiguous(v.data(), channels, 4); };
  op::forward_args const f{.x = view(x),
                           .delta = table(delta),
                           .alpha = table(alpha),
                           .beta = table(beta),
                           .gamma = table(gamma),
                           .omega = contiguous(omega.data(), channels),
                           .y = view(y)};
  to.answer("ema", with_workspace(op::forward_workspace(on_cpu, f), [&](auto w) { return op::forward(on_cpu, f, w); }));
  to.add("ema", y, 2e-6);
  op::backward_args const b{.x = f.x,
                            .delta = f.delta,
                            .alpha = f.alpha,
                            .beta = f.beta,
                            .gamma = f.gamma,
                            .omega = f.omega,
                            .grad_y = view(grad_y),
                            .grad_x = view(grad_x),
                            .grad_delta = table(gd),
                            .grad_alpha = table(ga),
                            .grad_beta = table(gb),
                            .grad_gamma = table(gg),
                            .grad_omega = contiguous(go.data(), channels)};
  to.answer("ema backward",
            with_workspace(op::backward_workspace(on_cpu, b), [&](auto w) { return op::backward(on_cpu, b, w); }));
  to.add("grad_x of ema", grad_x, 4e-6), to.add("grad_omega", go, 1e-4);
  to.add("grad_delta", gd, 1e-3), to.add("grad_alpha", ga, 1e-3), to.add("grad_beta", gb, 1e-3),
      to.add("grad_gamma", gg, 1e-3);
}

template <attention_function F>
void attention(collector& to, std::string const& name) {
  constexpr bool softmax = F == attention_function::softmax;
  using op =
      tcnca::chunked_attention<REAL, tcnca::chunked_attention_shape{.function = F, .causal = true, .bias = true}>;
  long const length = 21, chunk = 16;
  std::size_t const n = std::size_t(length * 16);
  numbers const q = some(n, 2, 18), k = some(n, 2, 19), grad_o = some(n, 1, 21);
  numbers v = some(n, 1, 20), bias = some(std::size_t(2 * chunk - 1), 1, 22), o(n), lse(n), gq(n), gk(n), gv(n),
          gb(bias.size());
  auto const view = [&](auto& x) { return contiguous(x.data(), 1, 1, length, 16); };
  typename op::forward_args f{.q = view(q),
                              .k = view(k),
                              .v = view(std::as_const(v)),
                              .bias = contiguous<REAL const>(bias.data(), 1, 2 * chunk - 1),
                              .o = view(o),
                              .chunk = chunk};
  if constexpr (softmax) { f.lse = contiguous(lse.data(), 1, 1, length, 2); }
  typename op::backward_args b{.q = f.q,
                               .k = f.k,
                               .v = f.v,
                               .bias = f.bias,
                               .grad_o = view(grad_o),
                               .grad_q = view(gq),
                               .grad_k = view(gk),
                               .grad_v = view(gv),
                               .grad_bias = contiguous(gb.data(), 1, 2 * chunk - 1),
                               .chunk = chunk};
  if constexpr (softmax) { b.o = view(std::as_const(o)), b.lse = contiguous<REAL const>(lse.data(), 1, 1, length, 2); }
  auto const run_both = [&](std::string const& how) {
    to.answer(name,
              with_workspace(op::forward_workspace(on_cpu, f), [&](auto w) { return op::forward(on_cpu, f, w); }));
    to.add(name + how, o, 4e-6);
    if constexpr (softmax) { to.add("lse" + how, lse, 2e-6); }
    if constexpr (softmax) {
      to.answer(name + " backward",
                with_workspace(op::backward_workspace(on_cpu, b), [&](auto w) { return op::backward(on_cpu, b, w); }));
      to.add("grad_q" + how, gq, 2e-5), to.add("grad_k" + how, gk, 2e-5), to.add("grad_v" + how, gv, 2e-5),
          to.add("grad_bias" + how, gb, 4e-5);
    }
  };
  run_both(", finite");
  if constexpr (!softmax) { return; }
  // Biases of -infinity mask keys at some distances; some queries have no visible key. Then infinities and NaNs in
  // values that no query sees.
  for (long d = 0; d < 2 * chunk - 1; d++)
    if (d % 3 == 0 || d == chunk - 1 || d == chunk - 2) bias[std::size_t(d)] = REAL(-infinity);
  run_both(", masked");
  v[20 * 16 + 3] = REAL(nan), v[20 * 16 + 4] = REAL(infinity);
  to.answer(name, with_workspace(op::forward_workspace(on_cpu, f), [&](auto w) { return op::forward(on_cpu, f, w); }));
  to.add("NaN in the last value", o, 4e-6);
  // Single queries with cached keys and values.
  numbers keys = some(std::size_t(chunk * 16), 2, 23), values = some(std::size_t(chunk * 16), 1, 24), step(16);
  typename op::forward_args s{.q = contiguous(q.data(), 1, 1, 1, 16),
                              .k = contiguous(k.data(), 1, 1, 1, 16),
                              .v = contiguous<REAL const>(v.data(), 1, 1, 1, 16),
                              .bias = f.bias,
                              .keys_in = contiguous<REAL const>(keys.data(), 1, 1, chunk, 16),
                              .values_in = contiguous<REAL const>(values.data(), 1, 1, chunk, 16),
                              .o = contiguous(step.data(), 1, 1, 1, 16),
                              .lse = contiguous(lse.data(), 1, 1, 1, 2),
                              .chunk = chunk,
                              .position = 9};
  auto const run_step = [&](char const* how) {
    to.answer("step",
              with_workspace(op::forward_workspace(on_cpu, s), [&](auto w) { return op::forward(on_cpu, s, w); }));
    to.add(std::string("step") + how, step, 4e-6), to.add("lse of a step", numbers{lse[0], lse[1]}, 2e-6);
  };
  run_step("");
  for (REAL& x : bias) x = REAL(-infinity);
  run_step(" without a visible key");
  for (double const scale : {nan, infinity, -infinity}) {
    s.scale = scale;
    to.answer("a scale that is not finite", op::forward(on_cpu, s, {}));
  }
  // Scores so large that adding the logarithm of the sum to the maximum would round it away.
  numbers const zero(n);
  f.q = f.k = b.q = b.k = view(zero), f.v = b.v = view(grad_o);
  for (REAL& x : bias) x = REAL(1e7);
  run_both(", large");
}

/// Converts all 65536 values of a 16-bit type to fp32, and fp32 values between them back.
template <class T>
void conversions(collector& to, char const* name) {
  auto const value_of = [](unsigned bits) { return flags::value_of(bits, tcnca::same<T, tcnca::fp16> ? 5 : 8); };
  std::vector<double> as_fp32, as_16_bit;
  for (unsigned first = 0; first < 65536; first += 4) {
    T h[4], back[4];
    for (unsigned i = 0; i < 4; i++) h[i].bits = tcnca::uint16(first + i);
    auto const x = tcnca::load<4>(h);
    tcnca::store<4>(back, x * tcnca::broadcast<4>(1.0009765625f));
    for (int i = 0; i < 4; i++)
      as_fp32.push_back(sizeof(REAL) == 8 ? value_of(h[i].bits) : double(x.lane(i))),
          as_16_bit.push_back(value_of(back[i].bits));
  }
  double const denormal = 1e-37;  // in fp32; linking with -ffast-math flushes denormals to zero
  to.rows.push_back({std::string(name) + " to fp32", as_fp32, denormal}),
      to.rows.push_back({std::string("fp32 to ") + name, as_16_bit, denormal});
}

}  // namespace

flags::report flags::COMPUTE() {
  collector to;
  activations<activation::relu>(to, "relu"), activations<activation::silu>(to, "silu"),
      activations<activation::gelu_erf>(to, "gelu_erf");
  activations<activation::gelu_tanh>(to, "gelu_tanh"), activations<activation::tanh>(to, "tanh");
  gates(to), convolutions(to), emas(to);
  attention<attention_function::softmax>(to, "softmax"), attention<attention_function::laplace>(to, "laplace"),
      attention<attention_function::relu2>(to, "relu2");
  conversions<tcnca::fp16>(to, "fp16"), conversions<tcnca::bf16>(to, "bf16");
  return std::move(to.rows);
}
