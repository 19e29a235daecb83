// What a stack computes on the CPU, bit by bit: a naive program, one sample after another, with the library's own
// multiply-add and activations. A position's sum starts from the bias, or 0, and adds its taps from the newest sample
// to the oldest; samples outside of the sequence and its state are left out. Kernels must give these bits for any
// width, block, segment, part and number of threads.
#pragma once
#include <vector>

#include <tcnca/block/activation.hpp>

#include "problem.hpp"

namespace tcnca::testing {

template <class A>
struct activated {
  A value, derivative;
};
template <class A>
activated<A> activate_one(activation act, A x) {
  auto const one = [x](auto which) -> activated<A> {
    auto const r = activate<decltype(which)::value>(pack<A, 1>{x});
    return {r.value.v, r.derivative.v};
  };
  switch (act) {
    case activation::none: return one(std::integral_constant<activation, activation::none>{});
    case activation::relu: return one(std::integral_constant<activation, activation::relu>{});
    case activation::silu: return one(std::integral_constant<activation, activation::silu>{});
    case activation::gelu_erf: return one(std::integral_constant<activation, activation::gelu_erf>{});
    case activation::gelu_tanh: return one(std::integral_constant<activation, activation::gelu_tanh>{});
    case activation::tanh: return one(std::integral_constant<activation, activation::tanh>{});
  }
  return {};
}
template <class A>
A fused_one(A a, A b, A c) {
  return fma(pack<A, 1>{a}, pack<A, 1>{b}, pack<A, 1>{c}).v;
}

/// The results that have specified bits, in the accumulate type. Those of the backward pass if grad_y is given.
template <class A>
struct exact_results {
  std::vector<A> y, state_out, grad_x, grad_state_in;
};

template <class T>
class conv_stack_oracle {
 public:
  using A = accumulate_t<T>;

  template <class Weight>
  explicit conv_stack_oracle(conv_stack_tensors<T, Weight> const& problem)
      : shape_(problem.form),
        e_(problem.e),
        x_(numbers(problem.x)),
        weight_(numbers(problem.weight)),
        bias_(numbers(problem.bias)),
        omega_(numbers(problem.omega)),
        state_in_(numbers(problem.state_in)),
        grad_y_(numbers(problem.grad_y)),
        grad_state_out_(numbers(problem.grad_state_out)) {}

  exact_results<A> run() const {
    exact_results<A> r;
    auto const states = std::size_t(e_.batch * e_.channels * (shape_.receptive_field() - 1));
    r.y.resize(x_.size());
    if (e_.state_out) r.state_out.resize(states);
    if (has_gradients()) r.grad_x.resize(x_.size());
    if (!state_in_.empty()) r.grad_state_in.resize(states);
    for (index_t row = 0; row < e_.batch * e_.channels; row++) run_row(r, row);
    return r;
  }

 private:
  /// Of an empty sequence only the gradients of the states are left.
  bool has_gradients() const { return !grad_y_.empty() || !grad_state_out_.empty(); }
  /// Samples at the positions [first, first + size).
  struct line {
    index_t first = 0;
    std::vector<A> samples;
    line() = default;
    line(index_t from, index_t to) : first(from), samples(std::size_t(to - from)) {}
    index_t end() const { return first + index_t(samples.size()); }
    A& operator[](index_t t) { return samples[std::size_t(t - first)]; }
    A operator[](index_t t) const { return samples[std::size_t(t - first)]; }
  };
  /// One direction of the stack: the inputs of each layer, the derivatives of its activations, the outputs.
  struct walk {
    std::vector<line> input, derivative;
    line output;
  };

  conv_stack_shape shape_;
  extents e_;
  std::vector<A> x_, weight_, bias_, omega_, state_in_, grad_y_, grad_state_out_;

  template <class E, int Rank>
  static std::vector<A> numbers(tensor<E, Rank> const& t) {
    std::vector<A> all;
    all.reserve(std::size_t(t.count()));
    t.for_each([&](E const& x) { all.push_back(A(to_double(x))); });
    return all;
  }

  int layers() const { return shape_.layers(); }
  A weight(index_t row, int direction, int l, int k) const {
    index_t const layer = direction * layers() + l;
    return weight_[std::size_t((layer * shape_.taps + k) * e_.channels + row % e_.channels)];
  }
  A omega(index_t row) const { return omega_[std::size_t(row % e_.channels)]; }
  std::size_t at(index_t row, index_t t) const { return std::size_t(row * e_.length + t); }
  /// The element of a state for the input of a layer at position t of the call.
  std::size_t slot(index_t row, int l, index_t t) const {
    index_t const history = shape_.history(l), position = e_.position + t;
    return std::size_t(row * (shape_.receptive_field() - 1) + shape_.history_before(l) +
                       ((position % history) + history) % history);
  }

  /// Adds the taps of a layer at all positions of `sums`, of samples up to `ahead` positions later, the newest first.
  /// reversed: the last weight is the newest sample's.
  void add_taps(line& sums, line const& samples, index_t ahead, index_t row, int direction, int l,
                bool reversed) const {
    for (int k = 0; k < shape_.taps; k++) {
      A const w = weight(row, direction, l, reversed ? shape_.taps - 1 - k : k);
      index_t const delay = k * shape_.dilation(l) - ahead;
      index_t const begin = std::max(sums.first, samples.first + delay),
                    end = std::min(sums.end(), samples.end() + delay);
      for (index_t t = begin; t < end; t++) sums[t] = fused_one(w, samples[t - delay], sums[t]);
    }
  }

  walk forward(index_t row, int direction) const {
    walk w;
    line a(0, e_.length);
    for (index_t t = 0; t < e_.length; t++) a[t] = x_[at(row, t)];
    for (int l = 0; l < layers(); l++) {
      if (!state_in_.empty()) {
        line with_history(-shape_.history(l), e_.length);
        for (index_t t = -shape_.history(l); t < e_.length; t++)
          with_history[t] = t < 0 ? state_in_[slot(row, l, t)] : a[t];
        a = std::move(with_history);
      }
      w.input.push_back(std::move(a));
      line next(0, e_.length), derivative(0, e_.length);
      if (shape_.bias)
        next.samples.assign(next.samples.size(),
                            bias_[std::size_t(index_t(direction * layers() + l) * e_.channels + row % e_.channels)]);
      add_taps(next, w.input.back(), shape_.look_ahead(l, direction), row, direction, l, direction == 1);
      bool const adds_before = shape_.ends_residual(l) && shape_.post_activation,
                 adds_after = shape_.ends_residual(l) && !shape_.post_activation;
      for (index_t t = 0; t < e_.length; t++) {
        auto const residual = [&] { return w.input[std::size_t(l - shape_.residual_span() + 1)][t]; };
        activated<A> const a_t = activate_one(shape_.act, adds_before ? next[t] + residual() : next[t]);
        next[t] = adds_after ? a_t.value + residual() : a_t.value, derivative[t] = a_t.derivative;
      }
      w.derivative.push_back(std::move(derivative));
      a = std::move(next);
    }
    w.output = std::move(a);
    return w;
  }

  void run_row(exact_results<A>& r, index_t row) const {
    std::vector<walk> walks;
    for (int direction = 0; direction < shape_.directions(); direction++) walks.push_back(forward(row, direction));
    line grad(0, e_.length);
    for (index_t t = 0; t < e_.length; t++) {
      A sum = walks[0].output[t];
      if (walks.size() > 1) sum = walks[1].output[t] + sum;
      activated<A> last{sum, 1};
      if (shape_.skip) last = activate_one(activation::silu, fused_one(omega(row), x_[at(row, t)], sum));
      r.y[at(row, t)] = last.value;
      if (!grad_y_.empty())
        grad[t] = shape_.skip ? detail::no_contract(grad_y_[at(row, t)] * last.derivative) : grad_y_[at(row, t)];
    }
    if (e_.state_out)
      for (int l = 0; l < layers(); l++)
        for (index_t t = e_.length - shape_.history(l); t < e_.length; t++) {
          line const& input = walks[0].input[std::size_t(l)];
          r.state_out[slot(row, l, t)] = t >= input.first ? input[t] : 0;
        }
    if (!has_gradients()) return;
    line total(0, e_.length);
    for (int direction = shape_.directions() - 1; direction >= 0; direction--) {
      line const g = backward(r, row, direction, walks[std::size_t(direction)], grad);
      for (index_t t = 0; t < e_.length; t++) total[t] = direction + 1 == shape_.directions() ? g[t] : g[t] + total[t];
    }
    for (index_t t = 0; t < e_.length; t++)
      r.grad_x[at(row, t)] = shape_.skip ? fused_one(omega(row), grad[t], total[t]) : total[t];
  }

  /// The gradient of the inputs of one direction, from that of its outputs.
  line backward(exact_results<A>& r, index_t row, int direction, walk const& w, line out) const {
    line residual;
    for (int l = layers() - 1; l >= 0; l--) {
      if (shape_.ends_residual(l) && !shape_.post_activation) residual = out;
      for (index_t t = 0; shape_.act != activation::none && t < e_.length; t++)
        out[t] = detail::no_contract(out[t] * w.derivative[std::size_t(l)][t]);
      if (shape_.ends_residual(l) && shape_.post_activation) residual = out;
      line in(state_in_.empty() ? 0 : -shape_.history(l), e_.length);
      add_taps(in, out, shape_.history(l) - shape_.look_ahead(l, direction), row, direction, l, direction == 0);
      for (index_t t = in.first; t < e_.length; t++) {
        if (!grad_state_out_.empty() && t >= e_.length - shape_.history(l))
          in[t] = in[t] + grad_state_out_[slot(row, l, t)];
        if (t < 0) r.grad_state_in[slot(row, l, t)] = in[t];
        else if (shape_.starts_residual(l)) in[t] = in[t] + residual[t];
      }
      out = line(0, e_.length);
      for (index_t t = 0; t < e_.length; t++) out[t] = in[t];
    }
    return out;
  }
};

/// Whether the elements are these numbers rounded to T: the same bits, or both a NaN.
template <class T, int Rank>
::testing::AssertionResult are_exactly(tensor<T, Rank> const& got, std::vector<accumulate_t<T>> const& expected) {
  if (got.count() != index_t(expected.size()))
    return ::testing::AssertionFailure() << got.count() << " elements, expected " << expected.size();
  std::size_t i = 0, first_wrong = expected.size();
  T found{}, wanted{};
  got.for_each([&](T const& value) {
    T const right = from_double<T>(double(expected[i]));
    bool const same =
        std::memcmp(&value, &right, sizeof(T)) == 0 || (std::isnan(to_double(value)) && std::isnan(expected[i]));
    if (!same && first_wrong == expected.size()) first_wrong = i, found = value, wanted = right;
    i++;
  });
  if (first_wrong < expected.size()) {
    auto result = ::testing::AssertionFailure();
    result << "element [";
    std::size_t rest = first_wrong, at[Rank];
    for (int axis = Rank - 1; axis >= 0; axis--)
      at[axis] = rest % std::size_t(got.view().extent[axis]), rest /= std::size_t(got.view().extent[axis]);
    for (int axis = 0; axis < Rank; axis++) result << (axis ? ", " : "") << at[axis];
    return result << "] is " << to_double(found) << ", expected " << to_double(wanted) << " (difference "
                  << to_double(found) - to_double(wanted) << ")";
  }
  return ::testing::AssertionSuccess();
}

}  // namespace tcnca::testing
