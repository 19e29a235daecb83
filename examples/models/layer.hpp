// The layer of TCNCA; with an EMA as its mixer, the layer of MEGA.
#pragma once
#include <tcnca/chunked_attention.hpp>
#include <tcnca/gated_fusion.hpp>

#include "bias.hpp"
#include "dropout.hpp"
#include "linear.hpp"
#include "mixer.hpp"
#include "norm.hpp"
#include "padding.hpp"

namespace tcnca::models {

struct layer_config {
  index_t channels = 64;    ///< d
  index_t value_dim = 128;  ///< h
  index_t key_dim = 32;     ///< z
  index_t chunk = 64;
  norm_kind norm = norm_kind::layer;
  bool pre_norm = true;  ///< the layer's input is normalized, otherwise its output
  bias_kind bias = bias_kind::simple;
  double dropout = 0;            ///< dropout of the mixer's result and of the candidate
  double attention_dropout = 0;  ///< dropout of the attention weights
  uint32 site = 0;               ///< identifies the dropout mask; layers are 4 apart
};

/// The interface of a layer. Activations are [batch, length, channels].
template <class T, class E>
class any_layer {
 public:
  virtual ~any_layer() = default;
  any_layer(any_layer const&) = delete;
  any_layer& operator=(any_layer const&) = delete;

  /// Call after `commit`: reserves the workspace of forward and backward.
  virtual void reserve(context<T, E>& c) const = 0;
  virtual void forward(context<T, E> const& c, T const* x, T* y, passage<T, E> const& at = {}) const = 0;
  /// In place: `grad` holds the gradient of y on entry and that of x on return. Only for sequences that begin with the
  /// call.
  virtual void backward(context<T, E> const& c, T const* x, T* grad) const = 0;

  /// Causal layers: takes the state that is carried from piece to piece from `states`.
  virtual void plan_states(context<T, E> const& c, memory_of<T, E>& states) = 0;
  /// Call after the states have been committed: reserves the workspace of a piece.
  virtual void reserve_piece(context<T, E>& c, passage<T, E> const& at) const = 0;
  /// Call before the first piece of a sequence in a slot.
  virtual void clear_state(context<T, E> const& c, memory_of<T, E> const& states, index_t slot) const = 0;

  /// Results of the mixer and of attention, to find which of them first became non-finite.
  virtual region mixed() const = 0;
  virtual region attended() const = 0;

 protected:
  any_layer() = default;
};

/// One layer of TCNCA (arXiv 2312.05605): that of MEGA (arXiv 2209.10655) with a temporal convolution network in place
/// of the EMA.
///   V = silu(norm(X) Wv + bv),  M = mixer(norm(X)),  [u | z | r | hx] = M Wm + bm,  q, k = silu(z) g + m,  O =
///   attention(q, k, V),
///   H = silu(hx + (O silu(r)) Wh + bh),  Y = X + sigmoid(u) (H - X).
/// Gates absent from the shape have no columns in Wm; without any, Y = X + silu(O Wh + bh). The configuration sets the
/// dropout. Activations are [batch, length, channels]. Gradients are overwritten.
///
/// `make_mixer(c, channels)` returns a std::unique_ptr<mixer<T, E>>; it is called when the mixer's parameters are next
/// in order.
template <class T, class E, gated_fusion_shape Gates, chunked_attention_shape Attention>
class layer final : public any_layer<T, E> {
  static_assert(Attention.bias, "a layer's attention has a table of relative positions");
  static_assert(!Attention.dropout, "the configuration says whether a layer's attention has dropout");

 public:
  layer(context<T, E>& c, layer_config const& config, auto const& make_mixer)
      : config_(config),
        norm_(c, config.norm, config.channels),
        values_(c, config.channels, config.value_dim),
        mixer_(make_mixer(c, config.channels)),
        mix_(c, config.channels, columns(config).all),
        gain_q_(c.parameter(config.key_dim, {.deviation = 0.02})),
        mean_q_(c.parameter(config.key_dim, {})),
        gain_k_(c.parameter(config.key_dim, {.deviation = 0.02})),
        mean_k_(c.parameter(config.key_dim, {})),
        bias_(c, config.bias, config.chunk, config.key_dim),
        candidate_(c, config.value_dim, config.channels) {
    index_t const n = c.rows(), d = config.channels, h = config.value_dim, z = config.key_dim;
    normed_ = c.kept.take(n * d), mixed_ = c.kept.take(n * d), columns_ = c.kept.take(n * columns(config).all);
    v_before_ = c.kept.take(n * h), v_ = c.kept.take(n * h), q_ = c.kept.take(n * z), k_ = c.kept.take(n * z);
    o_ = c.kept.take(n * h), gated_ = c.kept.take(n * h), lse_ = c.kept.take(2 * n), h_ = c.kept.take(n * d);
    if (!config.pre_norm) unnormed_ = c.kept.take(n * d);
    size_t const begin = c.temporary.end();
    grad_columns_ = c.temporary.take(n * columns(config).all), grad_h_ = c.temporary.take(n * d),
    grad_o_ = c.temporary.take(n * h);
    grad_v_ = c.temporary.take(n * h), grad_q_ = c.temporary.take(n * z), grad_k_ = c.temporary.take(n * z);
    grad_mixed_ = c.temporary.take(n * d), grad_normed_ = c.temporary.take(n * d);
    c.temporary.rewind(begin);
  }

  void reserve(context<T, E>& c) const override {
    mixer_->reserve(c, c.kept[normed_], c.kept[mixed_]);
    with_attention(c, true, [&]<class Op>(Op) {
      c.reserve(Op::forward_workspace(c.executor(), attention_forward<Op>(c)));
      c.reserve(Op::backward_workspace(c.executor(), attention_backward<Op>(c)));
    });
    c.reserve(gates::mix_backward_workspace(c.executor(), mix_backward(c)));
  }
  void plan_states(context<T, E> const& c, memory_of<T, E>& states) override {
    mixer_->plan_states(c, states);
    keys_ = states.take(c.batch * config_.chunk * config_.key_dim),
    values_seen_ = states.take(c.batch * config_.chunk * config_.value_dim);
  }
  void reserve_piece(context<T, E>& c, passage<T, E> const& at) const override {
    mixer_->reserve_piece(c, at, c.kept[normed_], c.kept[mixed_]);
    c.reserve(attention_of_pieces::forward_workspace(c.executor(), attention_piece(c, at)));
  }
  /// Attention reads no keys and values from before a sequence.
  void clear_state(context<T, E> const& c, memory_of<T, E> const& states, index_t slot) const override {
    mixer_->clear_state(c, states, slot);
  }
  region mixed() const override { return mixed_; }
  region attended() const override { return o_; }

  void forward(context<T, E> const& c, T const* x, T* y, passage<T, E> const& at = {}) const override {
    auto const& kept = c.kept;
    E const e = c.executor();
    index_t const n = c.rows(), d = config_.channels;
    if (config_.pre_norm) norm_.forward(c, x, kept[normed_]);
    else copy(e, n * d, x, kept[normed_]);
    zero_padding(c, d, kept[normed_]);
    values_.forward_silu(c, kept[normed_], kept[v_before_], kept[v_]);
    if (at.states) mixer_->forward_continued(c, at, kept[normed_], kept[mixed_]);
    else mixer_->forward(c, kept[normed_], kept[mixed_]);
    dropout(c, config_.dropout, config_.site, n * d, kept[mixed_]);
    mix_.forward(c, kept[mixed_], kept[columns_]);

    typename gates::mix_args mix;
    mix.z = z_columns(c, kept[columns_]), mix.q = key_rows(c, kept[q_]), mix.k = key_rows(c, kept[k_]);
    mix.gq = vector(c.values[gain_q_]), mix.mq = vector(c.values[mean_q_]), mix.gk = vector(c.values[gain_k_]),
    mix.mk = vector(c.values[mean_k_]);
    require(gates::mix(e, mix));
    bias_.forward(c);
    if (at.states) require(attention_of_pieces::forward(e, attention_piece(c, at), c.scratch()));
    else
      with_attention(c, drops_weights(c),
                     [&]<class Op>(Op) { require(Op::forward(e, attention_forward<Op>(c), c.scratch())); });
    if constexpr (Gates.reset_gate) {
      require(gates::reset(
          e, {.o = value_rows(c, kept[o_]), .r = r_columns(c, kept[columns_]), .y = value_rows(c, kept[gated_])}));
    }
    candidate_.forward(c, gated(c), kept[h_]);

    T* const result = config_.pre_norm ? y : kept[unnormed_];
    if (drops(c)) update<dropping>(c, x, result);
    else update<gates>(c, x, result);
    if (!config_.pre_norm) norm_.forward(c, kept[unnormed_], y);
  }

  void backward(context<T, E> const& c, T const* x, T* grad) const override {
    auto const &kept = c.kept, &temporary = c.temporary;
    E const e = c.executor();
    index_t const n = c.rows(), d = config_.channels;
    if (!config_.pre_norm) norm_.backward(c, kept[unnormed_], grad, grad, false);

    if (drops(c)) update_backward<dropping>(c, x, grad);
    else update_backward<gates>(c, x, grad);
    candidate_.backward(c, gated(c), temporary[grad_h_], temporary[grad_o_]);
    if constexpr (Gates.reset_gate) {
      auto const o = value_rows(c, temporary[grad_o_]);
      require(gates::reset_backward(e, {.o = value_rows(c, kept[o_]),
                                        .r = r_columns(c, kept[columns_]),
                                        .grad_y = o,
                                        .grad_o = o,
                                        .grad_r = r_columns(c, temporary[grad_columns_])}));
    }
    with_attention(c, drops_weights(c),
                   [&]<class Op>(Op) { require(Op::backward(e, attention_backward<Op>(c), c.scratch())); });
    bias_.backward(c);
    require(gates::mix_backward(e, mix_backward(c), c.scratch()));
    mix_.backward(c, kept[mixed_], temporary[grad_columns_], temporary[grad_mixed_]);
    dropout(c, config_.dropout, config_.site, n * d, temporary[grad_mixed_]);
    mixer_->backward(c, kept[normed_], temporary[grad_mixed_], temporary[grad_normed_]);
    values_.backward_silu(c, kept[normed_], kept[v_before_], temporary[grad_v_], temporary[grad_normed_], true);
    zero_padding(c, d, temporary[grad_normed_]);
    if (config_.pre_norm) norm_.backward(c, x, temporary[grad_normed_], grad, true);
    else add(e, n * d, static_cast<T const*>(temporary[grad_normed_]), grad);
  }

 private:
  // Separate instantiations, so that calls without dropout generate no random numbers, and those without slots and
  // packed sequences use no tables. Only causal layers have these.
  using attention = chunked_attention<T, Attention>;
  using attention_dropping =
      chunked_attention<T, chunked_attention_shape{Attention.function, Attention.causal, true, true}>;
  using attention_of_pieces = chunked_attention<
      T, chunked_attention_shape{
             .function = Attention.function, .causal = Attention.causal, .bias = true, .packed = Attention.causal}>;
  using gates = gated_fusion<T, gated_fusion_shape{Gates.update_gate, Gates.reset_gate, Gates.mixer_path, false}>;
  using dropping = gated_fusion<T, gated_fusion_shape{Gates.update_gate, Gates.reset_gate, Gates.mixer_path, true}>;

  /// First column of each part in a row of the product M Wm.
  struct column_list {
    index_t u, z, r, hx, all;
  };
  static column_list columns(layer_config const& config) {
    index_t const z = Gates.update_gate ? config.channels : 0, r = z + config.key_dim,
                  hx = r + (Gates.reset_gate ? config.value_dim : 0);
    return {0, z, r, hx, hx + (Gates.mixer_path ? config.channels : 0)};
  }
  tensor_view<T, 3> part(context<T, E> const& c, T* matrix, index_t first, index_t count) const {
    return rows_view(matrix + first, c.batch, c.length, count, columns(config_).all);
  }
  tensor_view<T, 3> u_columns(context<T, E> const& c, T* m) const {
    return part(c, m, columns(config_).u, config_.channels);
  }
  tensor_view<T, 3> z_columns(context<T, E> const& c, T* m) const {
    return part(c, m, columns(config_).z, config_.key_dim);
  }
  tensor_view<T, 3> r_columns(context<T, E> const& c, T* m) const {
    return part(c, m, columns(config_).r, config_.value_dim);
  }
  tensor_view<T, 3> hx_columns(context<T, E> const& c, T* m) const {
    return part(c, m, columns(config_).hx, config_.channels);
  }
  template <class U>
  tensor_view<U, 3> channel_rows(context<T, E> const& c, U* p) const {
    return rows_view(p, c.batch, c.length, config_.channels, config_.channels);
  }
  tensor_view<T, 3> value_rows(context<T, E> const& c, T* p) const {
    return rows_view(p, c.batch, c.length, config_.value_dim, config_.value_dim);
  }
  tensor_view<T, 3> key_rows(context<T, E> const& c, T* p) const {
    return rows_view(p, c.batch, c.length, config_.key_dim, config_.key_dim);
  }
  tensor_view<T, 1> vector(T* p) const { return contiguous(p, config_.key_dim); }

  /// The input of the product with Wh.
  T const* gated(context<T, E> const& c) const { return c.kept[Gates.reset_gate ? gated_ : o_]; }

  /// Blends the candidate into x by the update gate.
  template <class Op>
  void update(context<T, E> const& c, T const* x, T* y) const {
    typename Op::update_args a;
    a.x = channel_rows(c, x), a.h = channel_rows(c, c.kept[h_]), a.y = channel_rows(c, y);
    update_inputs(c, a);
    require(Op::update(c.executor(), a));
  }
  template <class Op>
  void update_backward(context<T, E> const& c, T const* x, T* grad) const {
    T* const m = c.temporary[grad_columns_];
    typename Op::update_backward_args a;
    if constexpr (Gates.update_gate) { a.x = channel_rows(c, x), a.grad_u = u_columns(c, m); }
    if constexpr (Gates.mixer_path) { a.grad_hx = hx_columns(c, m); }
    a.h = channel_rows(c, c.kept[h_]), a.grad_h = channel_rows(c, c.temporary[grad_h_]);
    a.grad_y = channel_rows(c, grad), a.grad_x = channel_rows(c, grad);
    update_inputs(c, a);
    require(Op::update_backward(c.executor(), a));
  }
  void update_inputs(context<T, E> const& c, auto& a) const {
    if constexpr (Gates.update_gate) { a.u = u_columns(c, c.kept[columns_]); }
    if constexpr (Gates.mixer_path) { a.hx = hx_columns(c, c.kept[columns_]); }
    if (drops(c)) a.dropout = config_.dropout, a.seed = ~(c.seed + config_.site), a.offset = c.step * uint64(c.length);
  }
  bool drops(context<T, E> const& c) const { return c.training && config_.dropout > 0; }

  typename gates::mix_backward_args mix_backward(context<T, E> const& c) const {
    typename gates::mix_backward_args a;
    a.z = z_columns(c, c.kept[columns_]), a.gq = vector(c.values[gain_q_]), a.gk = vector(c.values[gain_k_]);
    a.grad_q = key_rows(c, c.temporary[grad_q_]), a.grad_k = key_rows(c, c.temporary[grad_k_]),
    a.grad_z = z_columns(c, c.temporary[grad_columns_]);
    a.grad_gq = vector(c.gradients[gain_q_]), a.grad_mq = vector(c.gradients[mean_q_]);
    a.grad_gk = vector(c.gradients[gain_k_]), a.grad_mk = vector(c.gradients[mean_k_]);
    return a;
  }
  bool drops_weights(context<T, E> const& c) const { return c.training && config_.attention_dropout > 0; }
  /// Calls f with the attention operation to use.
  void with_attention(context<T, E> const& c, bool dropping_weights, auto const& f) const {
    bool const drops_any = dropping_weights && config_.attention_dropout > 0;
    if (c.packed() && (drops_any || !Attention.causal))
      throw std::invalid_argument("packed sequences are for causal layers without dropout of attention");
    if (c.packed()) f(attention_of_pieces{});
    else if (drops_any) f(attention_dropping{});
    else f(attention{});
  }
  template <class Op>
  void attention_inputs(context<T, E> const& c, auto& a) const {
    index_t const b = c.batch, l = c.length;
    a.q = head_view(c.kept[q_], b, l, config_.key_dim), a.k = head_view(c.kept[k_], b, l, config_.key_dim);
    a.v = head_view(c.kept[v_], b, l, config_.value_dim), a.bias = bias_.table(c), a.chunk = config_.chunk;
    if (c.lengths()) a.lengths = contiguous(c.lengths(), b);
    if constexpr (same<Op, attention_of_pieces>) { a.offsets = c.offsets(), a.max_length = c.longest(); }
    if constexpr (same<Op, attention_dropping>) {
      a.dropout = config_.attention_dropout, a.seed = ~(c.seed + config_.site + 1),
      a.offset = c.step * uint64(c.length);
    }
  }
  template <class Op>
  typename Op::forward_args attention_forward(context<T, E> const& c) const {
    typename Op::forward_args a;
    attention_inputs<Op>(c, a);
    a.o = head_view(c.kept[o_], c.batch, c.length, config_.value_dim);
    if (softmax) a.lse = contiguous(c.kept[lse_], c.batch, 1, c.length, 2);
    return a;
  }
  typename attention_of_pieces::forward_args attention_piece(context<T, E> const& c, passage<T, E> const& at) const {
    index_t const rows = at.state_rows, chunk = config_.chunk;
    auto a = attention_forward<attention_of_pieces>(c);
    a.lse = {};
    a.keys_in = a.keys_out = head_view((*at.states)[keys_], rows, chunk, config_.key_dim);
    a.values_in = a.values_out = head_view((*at.states)[values_seen_], rows, chunk, config_.value_dim);
    a.slots = at.slots, a.position = at.position, a.positions = at.positions;
    return a;
  }
  template <class Op>
  typename Op::backward_args attention_backward(context<T, E> const& c) const {
    index_t const b = c.batch, l = c.length;
    typename Op::backward_args a;
    attention_inputs<Op>(c, a);
    if (softmax) a.o = head_view(c.kept[o_], b, l, config_.value_dim), a.lse = contiguous(c.kept[lse_], b, 1, l, 2);
    a.grad_o = head_view(c.temporary[grad_o_], b, l, config_.value_dim),
    a.grad_q = head_view(c.temporary[grad_q_], b, l, config_.key_dim);
    a.grad_k = head_view(c.temporary[grad_k_], b, l, config_.key_dim),
    a.grad_v = head_view(c.temporary[grad_v_], b, l, config_.value_dim);
    a.grad_bias = bias_.grad_table(c);
    return a;
  }
  static constexpr bool softmax = Attention.function == attention_function::softmax;

  layer_config config_;
  norm<T, E> norm_;
  linear<T, E> values_;
  std::unique_ptr<mixer<T, E>> mixer_;
  linear<T, E> mix_;
  region gain_q_, mean_q_, gain_k_, mean_k_;
  relative_bias<T, E, attention> bias_;
  linear<T, E> candidate_;
  region normed_, mixed_, columns_, v_before_, v_, q_, k_, o_, gated_, lse_, h_, unnormed_, keys_, values_seen_;
  region grad_columns_, grad_h_, grad_o_, grad_v_, grad_q_, grad_k_, grad_mixed_, grad_normed_;
};

}  // namespace tcnca::models
