// The CPU fixture: FFTW, oneDNN, the scan and the library's stacks on the same sequences.
#pragma once
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "../../baselines/ceilings.hpp"
#include "../../baselines/fft_cpu.hpp"
#include "../../support/device_cpu.hpp"
#include "../../support/paired.hpp"
#include "inputs.hpp"

#if defined(TCNCA_BENCH_DNNL)
#include "../../baselines/dnnl.hpp"
#endif

namespace tcnca::bench {

template <class T>
class cpu_conv_fixture final : public conv_fixture {
 public:
  /// `ceilings` is shared by all fixtures of a run: each ceiling is measured once.
  cpu_conv_fixture(problem p, text const& input, std::shared_ptr<ceilings_by_threads> ceilings)
      : p_(p),
        ceilings_(std::move(ceilings)),
        x_(count()),
        grad_y_(count()),
        y_(count()),
        grad_x_(count()),
        ema_(initial_ema(p.channels)),
        kappa_(static_cast<size_t>(p.channels * p.length + 4 * lanes)) {
    input.embed(view(x_));
    text::noise(view(grad_y_), 2);
    for (index_t c = 0; c < p.channels; c++)
      generate_kernel(ema_channel(ema_, c), kappa_.data() + c * p.length, p.length);
    for (size_t s = 0; s < compared_stacks.size(); s++) {
      auto& w = weights_.emplace_back(weight_count(s, p));
      initial_weight(s, p, w.data());
    }
  }

  contender fft(pass direction, bool generated) override {
    choose_fft();
    return std::visit([&](auto const& f) { return bind_fft(f, direction, generated); }, fft_);
  }

  contender scan(pass direction) override { return make_cpu_scan(direction, shared(), ema_); }

  contender stack(size_t which, pass direction, int threads) override {
    auto s = shared();
    s.p.threads = threads;
    return make_cpu_stack(which, direction, s, static_cast<T const*>(weights_[which].data()));
  }

  contender levels([[maybe_unused]] size_t which, [[maybe_unused]] pass direction,
                   [[maybe_unused]] double limit_seconds) override {
#if defined(TCNCA_BENCH_DNNL)
    if constexpr (std::is_same_v<T, float>) { return bind_dnnl(which, direction, limit_seconds); }
    return {{}, {}, "it is compared in fp32 only"};
#else
    return {{}, {}, "it was not found when this program was built"};
#endif
  }

  double fma_rate(int threads) override { return ceilings_->of(threads).fma_rate(); }
  double copy_rate(int threads, size_t moved_bytes) override { return ceilings_->of(threads).copy_rate(moved_bytes); }
  std::string fft_variant() const override { return fft_variant_; }

  void clear_outputs() override {
    std::fill(y_.begin(), y_.end(), from_float<T>(1e30f));
    std::fill(grad_x_.begin(), grad_x_.end(), from_float<T>(1e30f));
  }

  std::vector<float> x() override { return read(x_); }
  std::vector<float> grad_y() override { return read(grad_y_); }
  std::vector<float> kernel() override { return {kappa_.data(), kappa_.data() + p_.channels * p_.length}; }
  ema_parameters const& ema() override { return ema_; }
  std::vector<float> weight(size_t which) override { return read(weights_[which]); }

 private:
  template <class Transform>
  using fft_of = std::shared_ptr<fft_recurrence<Transform>>;

  size_t count() const { return static_cast<size_t>(p_.elements()); }
  sequence_view<T> view(buffer<T>& b) const {
    return sequence(b.data(), compared_layout, p_.batch, p_.channels, p_.length);
  }
  sequences<T> shared() { return {p_, x_.data(), grad_y_.data(), y_.data(), grad_x_.data()}; }
  static std::vector<float> read(buffer<T> const& b) { return cpu_device::read(b.data(), b.size()); }
  template <class Call>
  static contender timed_contender(Call call, std::function<outcome()> result) {
    return {[call] { return cpu_device::time(call); }, std::move(result), {}};
  }

  /// Measures both transforms at this length and keeps the faster one. FFTW caches its plans for later fixtures.
  void choose_fft() {
    if (!fft_variant_.empty()) return;
    auto const real = std::make_shared<fft_recurrence<real_transform>>(p_.batch, p_.channels, p_.length, p_.threads);
    auto const packed =
        std::make_shared<fft_recurrence<packed_transform>>(p_.batch, p_.channels, p_.length, p_.threads);
    auto const times = measure_paired(
        {bind_fft(real, pass::forward, false).run, bind_fft(packed, pass::forward, false).run}, {p_.threads, 0.05, 3});
    bool const real_wins = times.ms[0] < times.ms[1] || std::isnan(times.ms[1]);
    if (real_wins) fft_ = real;
    else fft_ = packed;
    char note[160];
    std::snprintf(note, sizeof note, "(%s %.3g ms, %s %.3g ms)", real_transform::name, times.ms[0],
                  packed_transform::name, times.ms[1]);
    fft_variant_ = std::string(real_wins ? real_transform::name : packed_transform::name) + " " +
                   (times.reliable ? note : "(other programs disturbed the comparison of the two)");
  }

  template <class Transform>
  contender bind_fft(fft_of<Transform> f, pass direction, bool generated) {
    if (direction == pass::forward) {
      auto const result = [this] { return outcome{read(y_), {}}; };
      if (generated) return timed_contender([this, f] { f->forward(x_.data(), ema_, y_.data()); }, result);
      return timed_contender([this, f] { f->forward(x_.data(), kappa_.data(), y_.data()); }, result);
    }
    f->save(x_.data(), kappa_.data());
    if (generated) {
      auto const grad = std::make_shared<ema_parameters>(p_.channels, ema_.states);
      return timed_contender([this, f, grad] { f->backward(grad_y_.data(), grad_x_.data(), ema_, *grad); },
                             [this, grad] {
                               outcome o{read(grad_x_), {}};
                               for (auto const* part : {&grad->delta, &grad->alpha, &grad->beta, &grad->gamma})
                                 o.parameters.insert(o.parameters.end(), part->begin(), part->end());
                               return o;
                             });
    }
    auto const grad = std::make_shared<buffer<float>>(static_cast<size_t>(p_.channels * p_.length));
    return timed_contender([this, f, grad] { f->backward(grad_y_.data(), grad_x_.data(), grad->data()); },
                           [this, grad] {
                             return outcome{read(grad_x_), {grad->begin(), grad->end()}};
                           });
  }

#if defined(TCNCA_BENCH_DNNL)
  contender bind_dnnl(size_t which, pass direction, double limit_seconds) {
    auto const& shape = compared_stacks[which];
    std::vector<index_t> dilations;
    for (int layer = 0; layer < shape.layers(); layer++) dilations.push_back(shape.dilation(layer));
    bool const back = direction == pass::backward;
    auto const stack = std::make_shared<dnnl_stack>(p_.batch, p_.channels, p_.length, shape.taps, dilations, p_.threads,
                                                    back, limit_seconds);
    if (!stack->reason().empty()) return {{}, {}, stack->reason()};
    stack->load(x_.data(), weights_[which].data());
    if (!back)
      return timed_contender([stack] { stack->forward(); },
                             [this, stack] {
                               outcome o{std::vector<float>(count()), {}};
                               stack->store_y(o.sequence.data());
                               return o;
                             });
    stack->forward();
    stack->load_grad(grad_y_.data());
    return timed_contender([stack] { stack->backward(); },
                           [this, stack, which] {
                             outcome o{std::vector<float>(count()), std::vector<float>(weights_[which].size())};
                             stack->load_grad(grad_y_.data());
                             stack->backward();
                             stack->store_grads(o.sequence.data(), o.parameters.data());
                             return o;
                           });
  }
#endif

  problem p_;
  std::shared_ptr<ceilings_by_threads> ceilings_;
  buffer<T> x_, grad_y_, y_, grad_x_;
  ema_parameters ema_;
  buffer<float> kappa_;
  std::vector<buffer<T>> weights_;
  std::variant<fft_of<packed_transform>, fft_of<real_transform>> fft_;
  std::string fft_variant_;
};

}  // namespace tcnca::bench
