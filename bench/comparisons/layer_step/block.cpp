#include "block.hpp"

#include <cmath>

namespace tcnca::bench {

using models::require;

step_block::step_block(step_problem const& p) : p_(p), c_(p.threads, p.batch, p.length) {
  auto const make_choice = [&](step_context& c, index_t channels) {
    auto choice = std::make_unique<mixer_choice>(chosen_);
    mixers_ = choice.get();
    auto const make = [&](models::mixer_kind kind, char const* stack) {
      models::model_config config;
      config.mixer = kind;
      if (stack != nullptr) config.stack = stack;
      choice->add(models::make_mixer<float, cpu, true>(config, c, channels));
    };
    make(models::mixer_kind::convolution, "4x6"), make(models::mixer_kind::convolution, "17x4");
    scan_parameters_ = c.parameters().size();
    make(models::mixer_kind::ema, nullptr);
    fft_parameters_ = c.parameters().size();
    make(models::mixer_kind::ema_by_fft, nullptr);
    return std::unique_ptr<models::mixer<float, cpu>>(std::move(choice));
  };
  models::layer_config config;
  config.channels = p.channels, config.value_dim = p.value_dim, config.key_dim = p.key_dim, config.chunk = p.chunk;
  config.bias = models::bias_kind::rotary;
  layer_ = std::make_unique<layer>(c_, config, make_choice);
  models::feed_forward_config second;
  second.channels = p.channels, second.hidden = p.hidden;
  feed_forward_ = std::make_unique<models::feed_forward<float, cpu>>(c_, second);

  index_t const n = c_.rows(), d = p.channels, h = p.value_dim, z = p.key_dim, f = p.hidden,
                widest = std::max(d, std::max(h, f));
  for (auto const& [in, out] :
       {std::pair(d, h), std::pair(d, p.columns()), std::pair(h, d), std::pair(d, f), std::pair(f, d)})
    products_.emplace_back(c_, in, out);
  auto const take = [&](index_t count, auto&... to) { ((to = c_.kept.take(count)), ...); };
  take(n * d, x_, middle_, y_, grad_, normed_, mixed_, grad_mixed_, grad_normed_);
  take(n * widest, hidden_, grad_hidden_), take(n * p.columns(), columns_, grad_columns_);
  take(n * z, q_, k_, grad_q_, grad_k_), take(n * h, v_, o_, grad_v_, grad_o_), take(2 * n, lse_);
  take(2 * p.chunk - 1, bias_, grad_bias_), take(4 * z, vectors_, grad_vectors_);

  c_.commit();
  layer_->reserve(c_);
  c_.reserve(attention::forward_workspace(c_.executor(), attention_forward()));
  c_.reserve(attention::backward_workspace(c_.executor(), attention_backward()));
  c_.reserve(gates::mix_backward_workspace(c_.executor(), gates_mix_backward()));
  c_.commit_scratch();
  c_.initialise(1);
  uint32 bits = 1;
  for (models::region const& r :
       {x_, normed_, grad_mixed_, hidden_, columns_, q_, k_, v_, grad_q_, grad_k_, grad_o_, bias_, vectors_})
    for (size_t i = 0; i < r.count; i++)
      bits = bits * 1664525u + 1013904223u, c_.kept[r][i] = float(bits >> 8) * 0x1p-24f - 0.5f;
}

void step_block::forward(step_mixer m) {
  chosen_ = m;
  layer_->forward(c_, c_.kept[x_], c_.kept[middle_]);
  feed_forward_->forward(c_, c_.kept[middle_], c_.kept[y_]);
}
void step_block::backward(step_mixer m) {
  chosen_ = m;
  std::copy_n(c_.kept[x_], x_.count, c_.kept[grad_]);
  feed_forward_->backward(c_, c_.kept[middle_], c_.kept[grad_]);
  layer_->backward(c_, c_.kept[x_], c_.kept[grad_]);
}
void step_block::mix(step_mixer m) { mixers_->at(m).forward(c_, c_.kept[normed_], c_.kept[mixed_]); }
void step_block::mix_backward(step_mixer m) {
  mixers_->at(m).backward(c_, c_.kept[normed_], c_.kept[grad_mixed_], c_.kept[grad_normed_]);
}

tensor_view<float, 3> step_block::rows(models::region r, index_t first, index_t columns, index_t stride) const {
  return models::rows_view(c_.kept[r] + first, p_.batch, p_.length, columns, stride);
}
step_block::attention::forward_args step_block::attention_forward() const {
  auto const& kept = c_.kept;
  index_t const b = p_.batch, l = p_.length;
  attention::forward_args a;
  a.q = models::head_view(kept[q_], b, l, p_.key_dim), a.k = models::head_view(kept[k_], b, l, p_.key_dim);
  a.v = models::head_view(kept[v_], b, l, p_.value_dim), a.bias = contiguous(kept[bias_], 1, 2 * p_.chunk - 1),
  a.chunk = p_.chunk;
  a.o = models::head_view(kept[o_], b, l, p_.value_dim), a.lse = contiguous(kept[lse_], b, 1, l, 2);
  return a;
}
step_block::attention::backward_args step_block::attention_backward() const {
  auto const& kept = c_.kept;
  index_t const b = p_.batch, l = p_.length;
  auto const f = attention_forward();
  attention::backward_args a;
  a.q = f.q, a.k = f.k, a.v = f.v, a.bias = f.bias, a.chunk = f.chunk, a.o = f.o, a.lse = f.lse;
  a.grad_o = models::head_view(kept[grad_o_], b, l, p_.value_dim),
  a.grad_v = models::head_view(kept[grad_v_], b, l, p_.value_dim);
  a.grad_q = models::head_view(kept[grad_q_], b, l, p_.key_dim),
  a.grad_k = models::head_view(kept[grad_k_], b, l, p_.key_dim);
  a.grad_bias = contiguous(kept[grad_bias_], 1, 2 * p_.chunk - 1);
  return a;
}
step_block::gates::mix_backward_args step_block::gates_mix_backward() const {
  index_t const z = p_.key_dim, d = p_.channels, all = p_.columns();
  auto const vector = [&](models::region r, index_t i) { return contiguous(c_.kept[r] + i * z, z); };
  gates::mix_backward_args a;
  a.z = rows(columns_, d, z, all), a.gq = vector(vectors_, 0), a.gk = vector(vectors_, 2);
  a.grad_q = rows(grad_q_, 0, z, z), a.grad_k = rows(grad_k_, 0, z, z), a.grad_z = rows(grad_columns_, d, z, all);
  a.grad_gq = vector(grad_vectors_, 0), a.grad_mq = vector(grad_vectors_, 1), a.grad_gk = vector(grad_vectors_, 2),
  a.grad_mk = vector(grad_vectors_, 3);
  return a;
}

void step_block::run(step_part part) {
  index_t const d = p_.channels, h = p_.value_dim, z = p_.key_dim, all = p_.columns();
  if (part == step_part::products) {
    for (auto const& m : products_) m.forward(c_, c_.kept[hidden_], c_.kept[grad_columns_]);
  } else if (part == step_part::attention) {
    require(attention::forward(c_.executor(), attention_forward(), c_.scratch()));
  } else {
    auto const back = gates_mix_backward();
    gates::mix_args mix;
    mix.z = back.z, mix.q = rows(grad_q_, 0, z, z), mix.k = rows(grad_k_, 0, z, z), mix.gq = back.gq, mix.gk = back.gk;
    mix.mq = contiguous(c_.kept[vectors_] + z, z), mix.mk = contiguous(c_.kept[vectors_] + 3 * z, z);
    require(gates::mix(c_.executor(), mix));
    require(gates::reset(c_.executor(),
                         {.o = rows(v_, 0, h, h), .r = rows(columns_, d + z, h, all), .y = rows(grad_v_, 0, h, h)}));
    gates::update_args u;
    u.x = rows(x_, 0, d, d), u.u = rows(columns_, 0, d, all), u.hx = rows(columns_, d + z + h, d, all),
    u.h = rows(normed_, 0, d, d);
    u.y = rows(y_, 0, d, d);
    require(gates::update(c_.executor(), u));
  }
}
void step_block::run_backward(step_part part) {
  index_t const d = p_.channels, h = p_.value_dim, z = p_.key_dim, all = p_.columns();
  if (part == step_part::products) {
    for (auto const& m : products_) m.backward(c_, c_.kept[hidden_], c_.kept[columns_], c_.kept[grad_hidden_]);
  } else if (part == step_part::attention) {
    require(attention::backward(c_.executor(), attention_backward(), c_.scratch()));
  } else {
    gates::update_backward_args u;
    u.x = rows(x_, 0, d, d), u.u = rows(columns_, 0, d, all), u.hx = rows(columns_, d + z + h, d, all),
    u.h = rows(normed_, 0, d, d);
    u.grad_y = rows(grad_mixed_, 0, d, d), u.grad_x = rows(grad_, 0, d, d), u.grad_h = rows(grad_normed_, 0, d, d);
    u.grad_u = rows(grad_columns_, 0, d, all), u.grad_hx = rows(grad_columns_, d + z + h, d, all);
    require(gates::update_backward(c_.executor(), u));
    require(gates::reset_backward(c_.executor(), {.o = rows(v_, 0, h, h),
                                                  .r = rows(columns_, d + z, h, all),
                                                  .grad_y = rows(o_, 0, h, h),
                                                  .grad_o = rows(grad_v_, 0, h, h),
                                                  .grad_r = rows(grad_columns_, d + z, h, all)}));
    require(gates::mix_backward(c_.executor(), gates_mix_backward(), c_.scratch()));
  }
}

double step_block::fft_difference() {
  for (size_t i = 0; i < 5; i++) {
    auto const &from = c_.parameters()[scan_parameters_ + i].where, &to = c_.parameters()[fft_parameters_ + i].where;
    std::copy_n(c_.values[from], from.count, c_.values[to]);
  }
  std::vector<float> results[2];
  for (int i = 0; i < 2; i++) {
    step_mixer const m = i == 0 ? step_mixer::scan : step_mixer::fft;
    forward(m), backward(m);
    results[i].assign(c_.kept[y_], c_.kept[y_] + y_.count);
    results[i].insert(results[i].end(), c_.kept[grad_], c_.kept[grad_] + grad_.count);
  }
  double largest = 0, distance = 0;
  for (size_t i = 0; i < results[0].size(); i++) {
    largest = std::max(largest, std::abs(double(results[0][i])));
    double const apart = std::abs(double(results[0][i]) - double(results[1][i]));
    if (!(apart <= distance)) distance = apart;
  }
  return distance / largest;
}

}  // namespace tcnca::bench
