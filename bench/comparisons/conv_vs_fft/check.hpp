// Every contender against the direct sum in fp64, at small lengths.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "problem.hpp"

namespace tcnca::bench {

/// A result in fp64, and its gradient of whatever stands for weights.
struct exact {
  std::vector<double> sequence, parameters;
};

/// The stack by its definition: level after level, tap after tap.
inline exact direct_stack(conv_stack_shape const& shape, problem const& p, std::vector<float> const& x,
                          std::vector<float> const& grad_y, std::vector<float> const& weight, pass direction) {
  auto const at = [](index_t i) { return static_cast<size_t>(i); };
  exact out;
  out.sequence.resize(x.size());
  if (direction == pass::backward) out.parameters.resize(weight.size());
  for (index_t r = 0; r < p.batch * p.channels; r++) {
    index_t const c = r % p.channels, base = r * p.length;
    std::vector<std::vector<double>> level{{x.begin() + base, x.begin() + base + p.length}};
    for (int l = 0; l < shape.layers(); l++) {
      std::vector<double> next(at(p.length));
      for (index_t k = 0; k < shape.taps; k++)
        for (index_t t = k * shape.dilation(l); t < p.length; t++)
          next[at(t)] +=
              double{weight[at((l * shape.taps + k) * p.channels + c)]} * level.back()[at(t - k * shape.dilation(l))];
      level.push_back(next);
    }
    if (direction == pass::forward) {
      std::copy(level.back().begin(), level.back().end(), out.sequence.begin() + base);
      continue;
    }
    std::vector<double> grad(grad_y.begin() + base, grad_y.begin() + base + p.length);
    for (int l = shape.layers() - 1; l >= 0; l--) {
      std::vector<double> next(at(p.length));
      for (index_t k = 0; k < shape.taps; k++) {
        size_t const tap = at((l * shape.taps + k) * p.channels + c);
        for (index_t t = k * shape.dilation(l); t < p.length; t++) {
          next[at(t - k * shape.dilation(l))] += double{weight[tap]} * grad[at(t)];
          out.parameters[tap] += grad[at(t)] * level[at(l)][at(t - k * shape.dilation(l))];
        }
      }
      grad = next;
    }
    std::copy(grad.begin(), grad.end(), out.sequence.begin() + base);
  }
  return out;
}

/// y = kappa * x, or grad_x and the kernel's gradient.
inline exact direct_convolution(problem const& p, std::vector<float> const& x, std::vector<float> const& grad_y,
                                std::vector<float> const& kappa, pass direction) {
  auto const at = [](index_t i) { return static_cast<size_t>(i); };
  exact out;
  out.sequence.resize(x.size());
  if (direction == pass::backward) out.parameters.resize(kappa.size());
  for (index_t r = 0; r < p.batch * p.channels; r++)
    for (index_t t = 0; t < p.length; t++)
      for (index_t lag = 0; lag <= t; lag++) {
        index_t const here = r * p.length + t, there = here - lag, tap = r % p.channels * p.length + lag;
        if (direction == pass::forward) {
          out.sequence[at(here)] += double{kappa[at(tap)]} * double{x[at(there)]};
        } else {
          out.sequence[at(there)] += double{kappa[at(tap)]} * double{grad_y[at(here)]};
          out.parameters[at(tap)] += double{grad_y[at(here)]} * double{x[at(there)]};
        }
      }
  return out;
}

/// From the kernel's gradient to those of the EMA's delta, alpha, beta and gamma, one after another.
inline std::vector<double> direct_ema_gradient(ema_parameters const& ema, std::vector<double> const& grad_kappa,
                                               index_t length) {
  std::vector<double> delta, alpha, beta, gamma;
  double const s = std::sqrt(1.0 / ema.states);
  for (size_t i = 0; i < ema.count(); i++) {
    size_t const c = i / static_cast<size_t>(ema.states), n = i % static_cast<size_t>(ema.states);
    ema_channel const channel(ema, static_cast<index_t>(c));
    double const p = channel.p[n], a = channel.a[n], q = channel.decay[n], b = double{ema.beta[i]},
                 g = double{ema.gamma[i]};
    double of_scale = 0, of_q = 0;
    for (index_t l = 0; l < length; l++) {
      double const grad = grad_kappa[c * static_cast<size_t>(length) + static_cast<size_t>(l)],
                   power = std::pow(q, static_cast<double>(l));
      of_scale += grad * power;
      of_q += grad * g * s * p * b * static_cast<double>(l) * power / q;
    }
    delta.push_back((of_scale * g * s * b - of_q * a) * p * (1 - p));
    alpha.push_back(-of_q * p * a * (1 - a));
    beta.push_back(of_scale * g * s * p);
    gamma.push_back(of_scale * s * p * b);
  }
  for (auto const* part : {&alpha, &beta, &gamma}) delta.insert(delta.end(), part->begin(), part->end());
  return delta;
}

/// Largest difference, relative to the largest exact value.
inline double worst_error(outcome const& got, exact const& want) {
  auto const compare = [](std::vector<float> const& a, std::vector<double> const& b) {
    if (a.size() != b.size()) return HUGE_VAL;
    double difference = 0, scale = 1e-30;
    for (size_t i = 0; i < b.size(); i++) {
      scale = std::max(scale, std::abs(b[i]));
      double const d = std::abs(double{a[i]} - b[i]);
      difference = std::isfinite(d) ? std::max(difference, d) : HUGE_VAL;
    }
    return difference / scale;
  };
  return std::max(compare(got.sequence, want.sequence), compare(got.parameters, want.parameters));
}

/// What is printed and returned for each contender.
struct check_result {
  std::string contender;
  double error = 0;
  std::string missing;
};

inline std::vector<check_result> check(arena& a, problem const& p, std::vector<size_t> const& stacks) {
  std::vector<check_result> results;
  auto const x = a.x(), grad_y = a.grad_y(), kappa = a.kernel();
  auto const look = [&](std::string const& name, contender const& c, exact const& want) {
    if (!c.run) return results.push_back({name, 0, c.missing});
    a.forget();
    c.run();
    results.push_back({name, worst_error(c.result(), want), {}});
  };
  for (pass const direction : {pass::forward, pass::backward}) {
    std::string const suffix = std::string(" ") + to_string(direction);
    exact const convolved = direct_convolution(p, x, grad_y, kappa, direction);
    exact generated = convolved;
    if (direction == pass::backward)
      generated.parameters = direct_ema_gradient(a.ema(), convolved.parameters, p.length);
    look("FFT, kernel given" + suffix, a.fft(direction, false), convolved);
    look("FFT, kernel generated" + suffix, a.fft(direction, true), generated);
    look("scan" + suffix, a.scan(direction), generated);
    for (size_t const s : stacks) {
      exact const stacked = direct_stack(headline_stacks[s], p, x, grad_y, a.weight(s), direction);
      look(stack_name(headline_stacks[s]) + suffix, a.stack(s, direction), stacked);
      look(stack_name(headline_stacks[s]) + " by levels" + suffix, a.levels(s, direction, 20), stacked);
    }
  }
  return results;
}

}  // namespace tcnca::bench
