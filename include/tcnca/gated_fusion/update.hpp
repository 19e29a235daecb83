// The element-wise pass update, forward and backward.
#pragma once
#include "../arch/opaque.hpp"
#include "../block/dropout.hpp"
#include "elementwise.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {

/// The factors of dropout of the packs that a thread processes. Stored: with the seed and the offset in
/// update_params::random_state.
template <class Group, class A, int W, bool Stored>
class dropout_columns {
 public:
  template <class Params>
  TCNCA_HOST_DEVICE explicit dropout_columns(Params const& p) : params_(p.dropout), keys_(p.keys) {}
  TCNCA_HOST_DEVICE pack<A, W> next(index_t sequence, index_t position, int column) const {
    return params_.template factors<W>(keys_, sequence, position, column);
  }

 private:
  dropout_params<A> const& params_;
  philox_keys const& keys_;
};
#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
/// One thread, which processes the packs of a row in rising order: two packs at a time.
template <class Group, int W>
requires(Group::size() == 1 && W >= 4) class dropout_columns<Group, float, W, false> {
 public:
  template <class Params>
  explicit dropout_columns(Params const& p) : params_(p.dropout), generator_(p.dropout.seed) {}
  TCNCA_HOST_DEVICE pack<float, W> next(index_t sequence, index_t position, int column) {
    if (column / W % 2 == 0) params_.template factors_of_two<W>(generator_, sequence, position, column, factors_);
    return factors_[column / W % 2];
  }

 private:
  dropout_params<float> const& params_;
  philox_vectors generator_;
  array<pack<float, W>, 2> factors_;
};
#endif

/// The keys of the rounds are computed for each pack: they would take 20 registers.
template <class Group, class A, int W>
class dropout_columns<Group, A, W, true> {
 public:
  template <class Params>
  TCNCA_HOST_DEVICE explicit dropout_columns(Params const& p) : params_(p.dropout) {
    params_.seed = *p.random_state.at(0), params_.offset = *p.random_state.at(1);
  }
  TCNCA_HOST_DEVICE pack<A, W> next(index_t sequence, index_t position, int column) const {
    return params_.template factors<W>(philox_keys(uint64(opaque(index_t(params_.seed)))), sequence, position, column);
  }

 private:
  dropout_params<A> params_;
};

}  // namespace detail

/// Forward: x, u, hx, h, y. Backward: x, u, hx, h, grad_y and the gradients. Tensors that the shape does not use are
/// absent.
template <element T>
struct update_params {
  tensor_view<T const, 3> x = {}, u = {}, hx = {}, h = {}, grad_y = {};
  tensor_view<T, 3> y = {}, grad_x = {}, grad_u = {}, grad_hx = {}, grad_h = {};
  dropout_params<accumulate_t<T>> dropout = {};
  philox_keys keys{dropout.seed};                  ///< of dropout.seed: a GPU reads them as constants
  tensor_view<uint64 const, 1> random_state = {};  ///< seed and offset, if the kernel reads them
  pass_access access = {};
};

/// The update gate, forward or backward. Stored: with the seed and the offset in params.random_state.
template <class Group, element T, gated_fusion_shape Shape, gated_fusion_policy Policy, bool Backward,
          bool Stored = false>
struct update_agent : detail::elementwise_pass<Group, T, Policy> {
  using base = detail::elementwise_pass<Group, T, Policy>;
  using typename base::A, typename base::value;
  using base::W;
  using params_type = update_params<T>;
  static constexpr bool reads_x = Shape.update_gate || !Backward;
  static constexpr int blocks_per_multiprocessor =
      Backward || Shape.dropout ? base::fewer_blocks : Policy.blocks_per_multiprocessor;
  static constexpr int inputs =
      1 + (reads_x ? 1 : 0) + (Shape.update_gate ? 1 : 0) + (Shape.mixer_path ? 1 : 0) + (Backward ? 1 : 0);

  params_type const& params;
  [[no_unique_address]] detail::dropout_columns<Group, A, W, Stored> dropout;
  TCNCA_HOST_DEVICE update_agent(Group g, params_type const& p, A*, A*) : base{g, p.access}, params(p), dropout(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) { return base::items_of(params.h); }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) { return {}; }
  TCNCA_HOST_DEVICE void operator()(index_t item) { this->process(*this, item, params.h); }

  struct input_rows {
    T const *x, *u, *hx, *h, *grad_y;
  };
  template <class V>
  struct input {
    V x, u, hx, h, grad_y;
  };
  struct output_rows {
    T *y, *grad_x, *grad_u, *grad_hx, *grad_h;
  };
  TCNCA_HOST_DEVICE input_rows sources(index_t b, index_t t) const {
    auto const& p = params;
    return {p.x.at(b, t, 0), p.u.at(b, t, 0), p.hx.at(b, t, 0), p.h.at(b, t, 0), p.grad_y.at(b, t, 0)};
  }
  TCNCA_HOST_DEVICE output_rows targets(index_t b, index_t t) const {
    auto const& p = params;
    return {p.y.at(b, t, 0), p.grad_x.at(b, t, 0), p.grad_u.at(b, t, 0), p.grad_hx.at(b, t, 0), p.grad_h.at(b, t, 0)};
  }
  TCNCA_HOST_DEVICE detail::no_state begin(auto) const { return {}; }
  TCNCA_HOST_DEVICE void end(auto, detail::no_state) const {}
  TCNCA_HOST_DEVICE auto read(input_rows from, auto c) const {
    input<decltype(base::load(from.h, c))> in{};
    in.h = base::load(from.h, c);
    if constexpr (Shape.mixer_path) { in.hx = base::load(from.hx, c); }
    if constexpr (reads_x) { in.x = base::load(from.x, c); }
    if constexpr (Shape.update_gate) { in.u = base::load(from.u, c); }
    if constexpr (Backward) { in.grad_y = base::load(from.grad_y, c); }
    return in;
  }
  TCNCA_HOST_DEVICE void write(index_t b, index_t t, output_rows to, auto c, detail::no_state, auto const& in) {
    value h = in.h, keep = broadcast<W>(A(1));
    if constexpr (Shape.mixer_path) { h = h + value(in.hx); }
    if constexpr (Shape.dropout) { keep = dropout.next(b, t, c.first); }
    if constexpr (!Backward) {
      if constexpr (Shape.update_gate) {
        this->store(to.y, c, gate::update(value(in.x), value(in.u), h, keep));
      } else {
        this->store(to.y, c, gate::update(value(in.x), h, keep));
      }
    } else {
      gate::update_gradients<A, W> g;
      if constexpr (Shape.update_gate) {
        g = gate::update_gradient(value(in.x), value(in.u), h, keep, value(in.grad_y));
      } else {
        g = gate::update_gradient(h, keep, value(in.grad_y));
      }
      if (params.grad_x.present()) this->store(to.grad_x, c, g.x);
      if (params.grad_h.present()) this->store(to.grad_h, c, g.h);
      if (Shape.update_gate && params.grad_u.present()) this->store(to.grad_u, c, g.u);
      if (Shape.mixer_path && params.grad_hx.present()) this->store(to.grad_hx, c, g.h);
    }
  }
};

}  // namespace tcnca
