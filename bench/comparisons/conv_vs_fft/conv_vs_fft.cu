// The arena of a CUDA device for conv_vs_fft: cuFFT, the scan and the library's stacks on the same sequences.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "baselines/ceilings_cuda.cuh"
#include "baselines/fft_cuda.cuh"
#include "headline/arena_cuda.hpp"
#include "headline/bind_scan.hpp"
#include "headline/bind_stack.hpp"
#include "headline/device_cuda.cuh"
#include "headline/inputs.hpp"

namespace tcnca::bench {
namespace {

template <class T>
class cuda_arena final : public arena {
 public:
  cuda_arena(problem p, text const& input, std::shared_ptr<cuda_ceilings> ceilings)
      : p_(p),
        ceilings_(std::move(ceilings)),
        parameters_(initial_ema(p.channels)),
        x_(count()),
        grad_y_(count()),
        y_(count()),
        grad_x_(count()),
        kappa_(static_cast<size_t>(p.channels * p.length)) {
    std::vector<T> host(count());
    auto const view = sequence(host.data(), headline_layout, p.batch, p.channels, p.length);
    input.embed(view);
    x_.write(host);
    text::noise(view, 2);
    grad_y_.write(host);
    ema_on_device(parameters_).generate(kappa_.data(), p.length);
    for (size_t s = 0; s < headline_stacks.size(); s++) {
      std::vector<T> w(weight_count(s, p));
      initial_weight(s, p, w.data());
      weights_.emplace_back(w.size()).write(w);
    }
  }

  contender fft(pass direction, bool generated) override {
    auto const f = std::make_shared<fft_recurrence_cuda>(p_.batch, p_.channels, p_.length);
    auto const ema = std::make_shared<ema_on_device>(parameters_);
    if (direction == pass::forward) {
      auto const result = [this] { return outcome{cuda_device::read(y_.data(), count()), {}}; };
      if (generated)
        return {[=, this] { return device_seconds([&] { f->forward(x_.data(), *ema, y_.data()); }); }, result, {}};
      return {
          [=, this] { return device_seconds([&] { f->forward(x_.data(), kappa_.data(), y_.data()); }); }, result, {}};
    }
    f->keep(x_.data(), kappa_.data());
    if (generated)
      return {[=, this] { return device_seconds([&] { f->backward(grad_y_.data(), grad_x_.data(), *ema); }); },
              [=, this] {
                return outcome{cuda_device::read(grad_x_.data(), count()), ema->gradients()};
              },
              {}};
    auto const grad = std::make_shared<device_memory<float>>(kappa_.size());
    return {[=, this] { return device_seconds([&] { f->backward(grad_y_.data(), grad_x_.data(), grad->data()); }); },
            [=, this] {
              return outcome{cuda_device::read(grad_x_.data(), count()), grad->read()};
            },
            {}};
  }
  contender scan(pass direction) override { return bind_scan(cuda_device{}, direction, shared(), parameters_); }
  contender stack(size_t which, pass direction) override {
    return bind_headline_stack(cuda_device{}, which, direction, shared(),
                               static_cast<T const*>(weights_[which].data()));
  }
  contender levels(size, pass, double) override { return {{}, {}, "cuDNN is compared by bench/baselines/peers.py"}; }

  double fma_rate() override { return ceilings_->fma_rate(); }
  double copy_rate(size_t moved_bytes) override { return ceilings_->copy_rate(moved_bytes); }
  std::string fft_variant() const override { return "cuFFT, R2C and C2R of all rows at once"; }
  void forget() override {
    require(cudaMemset(y_.data(), 0x7f, count() * sizeof(T)));
    require(cudaMemset(grad_x_.data(), 0x7f, count() * sizeof(T)));
  }

  std::vector<float> x() override { return cuda_device::read(x_.data(), count()); }
  std::vector<float> grad_y() override { return cuda_device::read(grad_y_.data(), count()); }
  std::vector<float> kernel() override { return kappa_.read(); }
  ema_parameters const& ema() override { return parameters_; }
  std::vector<float> weight(size_t which) override {
    return cuda_device::read(weights_[which].data(), weights_[which].size());
  }

 private:
  size_t count() const { return static_cast<size_t>(p_.elements()); }
  sequences<T> shared() { return {p_, x_.data(), grad_y_.data(), y_.data(), grad_x_.data()}; }

  problem p_;
  std::shared_ptr<cuda_ceilings> ceilings_;
  ema_parameters parameters_;
  device_memory<T> x_, grad_y_, y_, grad_x_;
  device_memory<float> kappa_;
  std::vector<device_memory<T>> weights_;
};

}  // namespace

bool cuda_device_found() { return cuda_found(); }

std::string cuda_device_name() { return device_name(); }

std::unique_ptr<arena> make_cuda_arena(std::string const& dtype, problem p, text const& input) {
  static auto const ceilings = std::make_shared<cuda_ceilings>();
  if (dtype == "fp32") return std::make_unique<cuda_arena<float>>(p, input, ceilings);
  return std::make_unique<cuda_arena<bf16>>(p, input, ceilings);
}

}  // namespace tcnca::bench
