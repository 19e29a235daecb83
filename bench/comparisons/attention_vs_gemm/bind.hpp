// Binds tcnca::chunked_attention to memory of a Device (support/device.hpp).
#pragma once
#include <memory>
#include <utility>

#include <tcnca/chunked_attention.hpp>
#include <tcnca/core/workspace.hpp>
#include "../../support/device.hpp"
#include "library.hpp"

namespace tcnca::bench {

template <class T, chunked_attention_shape Shape, class Device>
contender bind_attention_shape(Device const& device, pass direction, attention_problem const& p,
                               attention_tensors<T> const& t) {
  using attention = chunked_attention<T, Shape>;
  using bytes = typename Device::template memory<unsigned char>;
  auto const keys = [p](auto* data) { return contiguous(data, p.batch, p.heads, p.length, p.key_dim); };
  auto const values = [p](auto* data) { return contiguous(data, p.batch, p.heads, p.length, p.value_dim); };
  typename attention::forward_args forward_args{};
  forward_args.q = keys(t.q), forward_args.k = keys(t.k), forward_args.v = values(t.v);
  forward_args.o = values(t.o), forward_args.chunk = p.chunk;
  if constexpr (Shape.function == attention_function::softmax) {
    forward_args.lse = contiguous(t.lse, p.batch, p.heads, p.length, 2);
  }
  auto const scratch = std::make_shared<bytes>(attention::forward_workspace(device.executor, forward_args));
  auto const forward = [=] {
    require(attention::forward(device.executor, forward_args, {device.data(*scratch), scratch->size()}));
  };
  if (direction == pass::forward) return {[=] { return device.time(forward); }, {}, {}};

  typename attention::backward_args args{};
  args.q = forward_args.q, args.k = forward_args.k, args.v = forward_args.v, args.chunk = p.chunk;
  args.grad_o = values(t.grad_o);
  args.grad_q = keys(t.grad_q), args.grad_k = keys(t.grad_k), args.grad_v = values(t.grad_v);
  if constexpr (Shape.function == attention_function::softmax) {
    args.o = values(static_cast<T const*>(t.o)),
    args.lse = contiguous(static_cast<accumulate_t<T> const*>(t.lse), p.batch, p.heads, p.length, 2);
  }
  forward();
  auto const backward_scratch = std::make_shared<bytes>(attention::backward_workspace(device.executor, args));
  return {[=] {
            return device.time([&] {
              require(attention::backward(device.executor, args,
                                          {device.data(*backward_scratch), backward_scratch->size()}));
            });
          },
          {},
          {}};
}

/// Selects the shape at run time: function of the scores, causal or not.
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
