// Gradient descent: a small stack learns to reproduce another one of the same shape. Prints the loss; fails if it
// decreases less than 100-fold.
#include <tcnca/conv_stack.hpp>

#include <cstdio>
#include <random>
#include <vector>

#include "scratch.hpp"

using stack = tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 3,
                                                               .depth = 4,
                                                               .dilation_base = 3,
                                                               .act = tcnca::activation::silu,
                                                               .residuals = tcnca::residual::level,
                                                               .bias = true}>;

int main() {
  constexpr int batch = 4, channels = 8, length = 512, steps = 400;
  constexpr auto order = tcnca::layout::batch_channels_length;
  std::mt19937 random(1);
  auto const normal = [&](std::size_t n, float scale) {
    std::vector<float> v(n);
    std::normal_distribution<float> gaussian(0, scale);
    for (float& e : v) e = gaussian(random);
    return v;
  };
  std::size_t const elements = batch * channels * length, weights = stack::layers * 3 * channels,
                    biases = stack::layers * channels;
  auto x = normal(elements, 1), teacher = normal(weights, 0.4f), teacher_bias = normal(biases, 0.1f);
  auto weight = normal(weights, 0.2f);
  std::vector<float> bias(biases), y(elements), target(elements), grad_y(elements), grad_x(elements),
      grad_weight(weights), grad_bias(biases);

  stack::forward_args forward{.x = tcnca::sequence<float const>(x.data(), order, batch, channels, length),
                              .weight = tcnca::contiguous<float const>(teacher.data(), stack::layers, 3, channels),
                              .bias = tcnca::contiguous<float const>(teacher_bias.data(), stack::layers, channels),
                              .y = tcnca::sequence(target.data(), order, batch, channels, length)};
  stack::backward_args const backward{
      .x = forward.x,
      .weight = tcnca::contiguous<float const>(weight.data(), stack::layers, 3, channels),
      .bias = tcnca::contiguous<float const>(bias.data(), stack::layers, channels),
      .grad_y = tcnca::sequence<float const>(grad_y.data(), order, batch, channels, length),
      .grad_x = tcnca::sequence(grad_x.data(), order, batch, channels, length),
      .grad_weight = tcnca::contiguous(grad_weight.data(), stack::layers, 3, channels),
      .grad_bias = tcnca::contiguous(grad_bias.data(), stack::layers, channels)};
  tcnca::cpu const cpu;
  scratch_memory const scratch(
      tcnca::max_of(stack::forward_workspace(cpu, forward), stack::backward_workspace(cpu, backward)));
  if (!stack::forward(cpu, forward, scratch).ok()) return 1;

  forward.weight = backward.weight, forward.bias = backward.bias;
  forward.y = tcnca::sequence(y.data(), order, batch, channels, length);
  double first = 0, loss = 0;
  for (int step = 0; step <= steps; step++) {
    if (!stack::forward(cpu, forward, scratch).ok()) return 1;
    loss = 0;
    for (std::size_t i = 0; i < elements; i++) {
      float const error = y[i] - target[i];
      loss += error * error / double(elements);
      grad_y[i] = 2 * error / float(batch * length);
    }
    if (step == 0) first = loss;
    if (step % 50 == 0) std::printf("step %3d  loss %.6f\n", step, loss);
    if (!stack::backward(cpu, backward, scratch).ok()) return 1;
    float const rate = 0.05f;
    for (std::size_t i = 0; i < weights; i++) weight[i] -= rate * grad_weight[i];
    for (std::size_t i = 0; i < biases; i++) bias[i] -= rate * grad_bias[i];
  }
  std::printf("the loss decreased %.0f-fold\n", first / loss);
  return loss < first / 100 ? 0 : 1;
}
