// MEGA's EMA as frameworks compute it: a kernel as long as the sequence, recomputed from the parameters in each step,
// and a convolution by FFT.
#pragma once
#if defined(__CUDACC__)
#include "fft_convolution.cuh"
#else
#include "fft_convolution.hpp"
#endif
#include "mixer.hpp"

namespace tcnca::models {

/// The same map with the same parameters as ema_mixer, which provides all that is not computed by FFT. `reserve`
/// creates the plans for the longest sequence; another length creates its plan on first use
/// (circular_convolution::points tells how few there are). No other step allocates. Backward reads what the forward
/// pass of the same x stored.
template <class T, class E, ema_shape Shape>
class fft_mixer final : public ema_mixer<T, E, Shape> {
 public:
  fft_mixer(context<T, E>& c, index_t channels) : ema_mixer<T, E, Shape>(c, channels), channels_(channels) {
    auto const& all = c.parameters();
    size_t const first = all.size() - (Shape.skip ? 5 : 4);  // the parameters of ema_mixer, in its order
    delta_ = all[first].where, alpha_ = all[first + 1].where, beta_ = all[first + 2].where,
    gamma_ = all[first + 3].where;
    spectra_ = c.kept.take(index_t(by_fft::spectra_count(c.batch, channels, c.length)));
    kernel_spectra_ = c.kept.take(index_t(by_fft::kernel_spectra_count(channels, c.length)));
    if (Shape.skip) omega_ = all[first + 4].where, before_ = c.kept.take(c.rows() * channels);
  }
  using ema_mixer<T, E, Shape>::reserve;
  void reserve(context<T, E>& c, T const* x, T* y) const override {
    ema_mixer<T, E, Shape>::reserve(c, x, y);
    c.reserve(kappa_bytes(c) + by_fft::scratch_bytes(c.executor(), problem(c)));
    c.reserve(kappa_bytes(c) + std::max(op::kernel_workspace(c.executor(), kernel(c)),
                                        op::kernel_backward_workspace(c.executor(), kernel_backward(c))));
    by_fft::prepare(c.executor(), problem(c));
  }
  void forward(context<T, E> const& c, T const* x, T* y) const override {
    if (c.packed()) throw std::invalid_argument("a convolution by FFT has no packed sequences");
    require(op::kernel(c.executor(), kernel(c), scratch(c)));
    by_fft::forward(c.executor(), problem(c), x, kappa(c), y);
  }
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x) const override {
    by_fft::backward(c.executor(), problem(c), x, grad_y, grad_x, kappa(c), Shape.skip ? c.gradients[omega_] : nullptr);
    require(op::kernel_backward(c.executor(), kernel_backward(c), scratch(c)));
  }

 private:
  using op = ema<T, Shape>;
  using by_fft = fft_convolution<T, E>;
  index_t rows() const { return Shape.directions() * channels_; }

  // Workspace layout: the kernel or its gradient, then the scratch memory of a call.
  size_t kappa_bytes(context<T, E> const& c) const {
    return (size_t(rows() * c.length) * sizeof(T) + workspace::alignment - 1) / workspace::alignment *
           workspace::alignment;
  }
  T* kappa(context<T, E> const& c) const { return static_cast<T*>(c.scratch().data); }
  workspace scratch(context<T, E> const& c) const {
    workspace const all = c.scratch();
    return {static_cast<char*>(all.data) + kappa_bytes(c), all.bytes - kappa_bytes(c)};
  }

  tensor_view<T, 2> table(T* p) const { return contiguous(p, rows(), Shape.states); }
  void inputs(context<T, E> const& c, auto& a) const {
    auto const& v = c.values;
    a.delta = table(v[delta_]), a.alpha = table(v[alpha_]), a.beta = table(v[beta_]), a.gamma = table(v[gamma_]);
  }
  typename op::kernel_args kernel(context<T, E> const& c) const {
    typename op::kernel_args a;
    inputs(c, a);
    a.kappa = contiguous(kappa(c), rows(), c.length);
    return a;
  }
  typename op::kernel_backward_args kernel_backward(context<T, E> const& c) const {
    typename op::kernel_backward_args a;
    inputs(c, a);
    a.grad_kappa = contiguous(kappa(c), rows(), c.length);
    auto const& g = c.gradients;
    a.grad_delta = table(g[delta_]), a.grad_alpha = table(g[alpha_]), a.grad_beta = table(g[beta_]),
    a.grad_gamma = table(g[gamma_]);
    return a;
  }
  fft_problem<T> problem(context<T, E> const& c) const {
    fft_problem<T> p;
    p.batch = c.batch, p.channels = channels_, p.length = c.length;
    p.bidirectional = Shape.dir == direction::bidirectional;
    p.spectra = c.kept[spectra_], p.kernel_spectra = c.kept[kernel_spectra_];
    if (Shape.skip) p.omega = c.values[omega_], p.before = c.kept[before_];
    p.scratch = static_cast<char*>(c.scratch().data) + kappa_bytes(c);
    return p;
  }

  index_t channels_;
  region delta_, alpha_, beta_, gamma_, omega_, spectra_, kernel_spectra_, before_;
};

}  // namespace tcnca::models
