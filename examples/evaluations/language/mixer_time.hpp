// The time of the mixers within a model's step: each is timed alone, on inputs as in a step.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>

#include "../../models/parts.hpp"

namespace language {

struct mixer_seconds {
  double forward = std::nan(""),
         backward = std::nan("");  ///< of all layers of a step; NaN if not measured
};

/// The minimum over the rounds. CPU only; nothing is measured elsewhere.
inline mixer_seconds time_mixers(tcnca::models::model_config const& config, long rounds) {
  using namespace tcnca::models;
  if (config.backend != "cpu") return {};
  context<float, tcnca::cpu> c(config.threads, config.batch, config.length);
  auto const mixer = make_mixer<float, tcnca::cpu, true>(config, c, config.channels);
  auto const elements = c.rows() * config.channels;
  auto const x = c.kept.take(elements), y = c.kept.take(elements), grad_y = c.kept.take(elements),
             grad_x = c.kept.take(elements);
  c.commit();
  mixer->reserve(c, c.kept[x], c.kept[y]);
  c.commit_scratch();
  c.initialise(config.seed);
  for (long i = 0; i < elements; i++)
    c.kept[x][i] = float(i % 13) / 4 - 1.5f,
    c.kept[grad_y][i] = float(i % 7) / 2 - 1.5f;  // of the magnitude of normalized values
  using clock = std::chrono::steady_clock;
  auto const seconds = [](clock::time_point from, clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  };
  mixer_seconds least{INFINITY, INFINITY};
  for (long round = 0; round <= rounds; round++) {
    auto const start = clock::now();
    mixer->forward(c, c.kept[x], c.kept[y]);
    auto const middle = clock::now();
    mixer->backward(c, c.kept[x], c.kept[grad_y], c.kept[grad_x]);
    least = {std::min(least.forward, seconds(start, middle)), std::min(least.backward, seconds(middle, clock::now()))};
  }
  return {double(config.layers) * least.forward, double(config.layers) * least.backward};
}

}  // namespace language
