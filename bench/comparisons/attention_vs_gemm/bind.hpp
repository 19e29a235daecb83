// The binding itself: includes the library.
#pragma once
#include <memory>
#include <utility>

#include <tcnca/chunked_attention.hpp>
#include <tcnca/core/workspace.hpp>
#include "../headline/device.hpp"
#include "library.hpp"

namespace tcnca::bench {

template <class T, chunked_attention_shape Shape, class Device>
contender bind_attention_shape(Device const& device, pass direction, attention_problem const& p,
                               attention_tensors<T> const& t) {
  using attention = chunked_attention<T, Shape>;
  using bytes = typename Device::template memory<unsigned char>;
  auto const keys = [p](auto* data) { return contiguous(data, p.batch, p.heads, p.length, p.key_dim); };
  auto const values = [p](auto* data) { return contiguous(data, p.batch, p.heads, p.length, p.value_dim); };
  typename attention::forward_args there{};
  there.q = keys(t.q), there.k = keys(t.k), there.v = values(t.v), there.o = values(t.o), there.chunk = p.chunk;
  if constexpr (Shape.function == attention_function::softmax) {
    there.lse = contiguous(t.lse, p.batch, p.heads, p.length, 2);
  }
  auto const scratch = std::make_shared<bytes>(attention::forward_workspace(device.executor, there));
  auto const forward = [=] { require(attention::forward(device.executor, there, {scratch->data(), scratch->size()})); };
  if (direction == pass::forward) return {[=] { return device.time(forward); }, {}, {}};

  typename attention::backward_args back{};
  back.q = there.q, back.k = there.k, back.v = there.v, back.chunk = p.chunk;
  back.grad_o = values(t.grad_o);
  back.grad_q = keys(t.grad_q), back.grad_k = keys(t.grad_k), back.grad_v = values(t.grad_v);
  if constexpr (Shape.function == attention_function::softmax) {
    back.o = values(static_cast<T const*>(t.o)),
    back.lse = contiguous(static_cast<accumulate_t<T> const*>(t.lse), p.batch, p.heads, p.length, 2);
  }
  forward();
  auto const more = std::make_shared<bytes>(attention::backward_workspace(device.executor, back));
  return {
      [=] {
        return device.time([&] { require(attention::backward(device.executor, back, {more->data(), more->size()})); });
      },
      {},
      {}};
}

/// The shapes that are compared: a function of the scores, causal or not.
template <class T, class Device>
contender bind_attention(Device const& device, pass direction, attention_problem const& p,
                         attention_tensors<T> const& t) {
  constexpr chunked_attention_shape softmax{}, causal_softmax{.causal = true},
      laplace{.function = attention_function::laplace},
      causal_laplace{.function = attention_function::laplace, .causal = true};
  if (p.function == score_function::softmax)
    return p.causal ? bind_attention_shape<T, causal_softmax>(device, direction, p, t)
                    : bind_attention_shape<T, softmax>(device, direction, p, t);
  return p.causal ? bind_attention_shape<T, causal_laplace>(device, direction, p, t)
                  : bind_attention_shape<T, laplace>(device, direction, p, t);
}

}  // namespace tcnca::bench
