// Compares every contender with the fp64 references of the tests (test/reference), which are direct sums: at small
// lengths, in four channels.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <reference/conv_stack.hpp>
#include <reference/ema.hpp>
#include "../../baselines/fft_pytorch.hpp"
#include "fixture.hpp"

namespace tcnca::bench {

/// Channels that are compared: the first and the last, and the two at the boundary of a block of 16, oneDNN's.
inline std::vector<index_t> checked_channels(index_t channels) {
  std::vector<index_t> all;
  for (index_t const c : {index_t{0}, index_t{15}, index_t{16}, channels - 1})
    if (c < channels && (all.empty() || c > all.back())) all.push_back(c);
  return all;
}

/// The checked channels of a tensor [outer, channels, inner].
template <class T>
std::vector<double> select_channels(std::vector<T> const& from, index_t channels, index_t inner,
                                    std::vector<index_t> const& checked) {
  std::vector<double> to;
  index_t const outer = static_cast<index_t>(from.size()) / (channels * inner);
  for (index_t o = 0; o < outer; o++)
    for (index_t const c : checked)
      for (index_t i = 0; i < inner; i++)
        to.push_back(static_cast<double>(from[static_cast<size_t>((o * channels + c) * inner + i)]));
  return to;
}

/// The exact result in the checked channels, and the layout of the contender's parameters: [outer, channels, inner].
struct expected {
  std::vector<double> sequence, parameters;
  index_t inner = 1;
};

/// A reference problem in the checked channels of a fixture. Its weights and EMA parameters are left empty.
template <class Problem>
Problem reference_problem(conv_fixture& f, problem const& p, std::vector<index_t> const& checked) {
  Problem r;
  r.batch = p.batch, r.channels = static_cast<index_t>(checked.size()), r.length = p.length;
  r.x = select_channels(f.x(), p.channels, p.length, checked);
  r.grad_y = select_channels(f.grad_y(), p.channels, p.length, checked);
  return r;
}

/// A stack with weights [layers, taps, channels] in the checked channels.
inline expected expect_stack(reference::stack const& s, reference::problem r, std::vector<double> weight,
                             pass direction) {
  r.weight = std::move(weight);
  if (direction == pass::forward) return {reference::forward(s, r).y.value, {}};
  auto const exact = reference::backward(s, r);
  return {exact.grad_x.value, exact.grad_weight.value};
}

inline expected expect_stack(conv_fixture& f, problem const& p, size_t which, std::vector<index_t> const& checked,
                             pass direction) {
  auto const& shape = compared_stacks[which];
  reference::stack s;
  s.taps = shape.taps;
  for (int layer = 0; layer < shape.layers(); layer++) s.dilation.push_back(shape.dilation(layer));
  return expect_stack(s, reference_problem<reference::problem>(f, p, checked),
                      select_channels(f.weight(which), p.channels, 1, checked), direction);
}

/// The convolution with the given kernel [channels, length]: a stack of one level with a tap per position.
inline expected expect_kernel(conv_fixture& f, problem const& p, std::vector<index_t> const& checked, pass direction) {
  auto const transpose = [](std::vector<double> const& from, size_t rows, size_t columns) {
    std::vector<double> to(from.size());
    for (size_t i = 0; i < from.size(); i++) to[i % columns * rows + i / columns] = from[i];
    return to;
  };
  auto const length = static_cast<size_t>(p.length);
  auto const kappa = select_channels(f.kernel(), p.channels, p.length, checked);
  auto e = expect_stack({.taps = static_cast<int>(p.length), .dilation = {1}},
                        reference_problem<reference::problem>(f, p, checked), transpose(kappa, checked.size(), length),
                        direction);
  e.parameters = transpose(e.parameters, length, checked.size());
  e.inner = p.length;
  return e;
}

/// The EMA; its parameters are delta, alpha, beta and gamma [4, channels, states].
inline expected expect_ema(conv_fixture& f, problem const& p, std::vector<index_t> const& checked, pass direction) {
  auto const& ema = f.ema();
  auto r = reference_problem<reference::ema::problem>(f, p, checked);
  auto const parameter = [&](std::vector<float> const& from) {
    return select_channels(from, p.channels, ema.states, checked);
  };
  r.delta = parameter(ema.delta), r.alpha = parameter(ema.alpha);
  r.beta = parameter(ema.beta), r.gamma = parameter(ema.gamma);
  reference::ema::shape const shape{.states = ema.states};
  if (direction == pass::forward) return {reference::ema::forward<double>(shape, r).y, {}, ema.states};
  auto const exact = reference::ema::backward<double>(shape, r);
  expected e{exact.x, {}, ema.states};
  for (auto const* part : {&exact.delta, &exact.alpha, &exact.beta, &exact.gamma})
    e.parameters.insert(e.parameters.end(), part->begin(), part->end());
  return e;
}

/// The largest difference, relative to the largest exact value; infinite where a value is not finite or sizes differ.
inline double largest_error(std::vector<double> const& computed, std::vector<double> const& exact) {
  if (computed.size() != exact.size()) return HUGE_VAL;
  double difference = 0, scale = 1e-30;
  for (size_t i = 0; i < exact.size(); i++) {
    double const d = std::abs(computed[i] - exact[i]);
    scale = std::max(scale, std::abs(exact[i]));
    difference = std::isfinite(d) ? std::max(difference, d) : HUGE_VAL;
  }
  return difference / scale;
}

struct check_result {
  std::string contender;
  double error = 0;
  std::string skip_reason;
};

/// `torch` may be null.
inline std::vector<check_result> check(conv_fixture& f, pytorch* torch, problem const& p,
                                       std::vector<size_t> const& stacks) {
  std::vector<check_result> results;
  auto const checked = checked_channels(p.channels);
  auto const compare = [&](std::string const& name, contender const& c, expected const& e) {
    if (!c.run) return results.push_back({name, 0, c.skip_reason});
    f.clear_outputs();
    c.run();
    outcome const computed = c.result();
    double const sequence =
                     largest_error(select_channels(computed.sequence, p.channels, p.length, checked), e.sequence),
                 parameters =
                     largest_error(select_channels(computed.parameters, p.channels, e.inner, checked), e.parameters);
    results.push_back({name, std::max(sequence, parameters), {}});
  };
  if (torch != nullptr) torch->load(p, f.x(), f.grad_y(), f.kernel());
  for (pass const direction : {pass::forward, pass::backward}) {
    std::string const suffix = std::string(" ") + to_string(direction);
    expected const ema = expect_ema(f, p, checked, direction);
    expected const given = expect_kernel(f, p, checked, direction);
    compare("FFT, kernel given" + suffix, f.fft(direction, false), given);
    if (torch != nullptr) compare("torch.fft" + suffix, torch->fft(direction, 20), given);
    compare("FFT, kernel generated" + suffix, f.fft(direction, true), ema);
    compare("scan" + suffix, f.scan(direction), ema);
    for (size_t const s : stacks) {
      expected const stack = expect_stack(f, p, s, checked, direction);
      compare(stack_name(compared_stacks[s]) + suffix, f.stack(s, direction, p.threads), stack);
      compare(stack_name(compared_stacks[s]) + " by levels" + suffix, f.levels(s, direction, 20), stack);
      if (torch != nullptr)
        compare(stack_name(compared_stacks[s]) + " by torch conv1d" + suffix,
                torch->conv1d(compared_stacks[s], f.weight(s), direction, 20), stack);
    }
  }
  return results;
}

}  // namespace tcnca::bench
