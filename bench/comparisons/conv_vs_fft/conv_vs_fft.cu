// The CUDA fixture of conv_vs_fft: cuFFT, the scan and the library's stacks on the same sequences.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../../baselines/ceilings_cuda.cuh"
#include "../../baselines/fft_cuda.cuh"
#include "../../support/device_cuda.cuh"
#include "bind_compared.hpp"
#include "bind_scan.hpp"
#include "fixture_cuda.hpp"
#include "inputs.hpp"

namespace tcnca::bench {
namespace {

template <class T>
class cuda_conv_fixture final : public conv_fixture {
 public:
  cuda_conv_fixture(problem p, text const& input)
      : p_(p),
        parameters_(initial_ema(p.channels)),
        y_(count()),
        grad_x_(count()),
        kappa_(static_cast<size_t>(p.channels * p.length)) {
    std::vector<T> host(count());
    auto const view = sequence(host.data(), compared_layout, p.batch, p.channels, p.length);
    input.embed(view);
    x_ = host;
    text::noise(view, 2);
    grad_y_ = host;
    ema_on_device(parameters_).generate(raw(kappa_), p.length);
    for (size_t s = 0; s < compared_stacks.size(); s++) {
      std::vector<T> w(weight_count(s, p));
      initial_weight(s, p, w.data());
      weights_.emplace_back(w);
    }
  }

  contender fft(pass direction, bool generated) override {
    auto const f = std::make_shared<fft_recurrence_cuda>(p_.batch, p_.channels, p_.length);
    auto const ema = std::make_shared<ema_on_device>(parameters_);
    if (direction == pass::forward) {
      auto const result = [this] { return outcome{cuda_device::read(raw(y_), count()), {}}; };
      if (generated)
        return {[=, this] { return device_seconds([&] { f->forward(raw(x_), *ema, raw(y_)); }); }, result, {}};
      return {[=, this] { return device_seconds([&] { f->forward(raw(x_), raw(kappa_), raw(y_)); }); }, result, {}};
    }
    f->save(raw(x_), raw(kappa_));
    if (generated)
      return {[=, this] { return device_seconds([&] { f->backward(raw(grad_y_), raw(grad_x_), *ema); }); },
              [=, this] {
                return outcome{cuda_device::read(raw(grad_x_), count()), ema->gradients()};
              },
              {}};
    auto const grad = std::make_shared<thrust::device_vector<float>>(kappa_.size());
    return {[=, this] { return device_seconds([&] { f->backward(raw(grad_y_), raw(grad_x_), raw(*grad)); }); },
            [=, this] {
              return outcome{cuda_device::read(raw(grad_x_), count()), to_host(*grad)};
            },
            {}};
  }
  contender scan(pass direction) override { return bind_scan(cuda_device{}, direction, shared(), parameters_); }
  contender stack(size_t which, pass direction, int) override {
    return bind_compared_stack(cuda_device{}, which, direction, shared(), static_cast<T const*>(raw(weights_[which])));
  }
  contender levels(size_t, pass, double) override { return {{}, {}, "PyTorch calls cuDNN"}; }

  double fma_rate(int) override { return common_cuda_ceilings().fma_rate(); }
  double copy_rate(int, size_t moved_bytes) override { return common_cuda_ceilings().copy_rate(moved_bytes); }
  std::string fft_variant() const override { return "cuFFT, R2C and C2R of all rows in one batch"; }
  void clear_outputs() override {
    require(cudaMemset(raw(y_), 0x7f, count() * sizeof(T)));
    require(cudaMemset(raw(grad_x_), 0x7f, count() * sizeof(T)));
  }

  std::vector<float> x() override { return cuda_device::read(raw(x_), count()); }
  std::vector<float> grad_y() override { return cuda_device::read(raw(grad_y_), count()); }
  std::vector<float> kernel() override { return to_host(kappa_); }
  ema_parameters const& ema() override { return parameters_; }
  std::vector<float> weight(size_t which) override {
    return cuda_device::read(raw(weights_[which]), weights_[which].size());
  }

 private:
  size_t count() const { return static_cast<size_t>(p_.elements()); }
  sequences<T> shared() { return {p_, raw(x_), raw(grad_y_), raw(y_), raw(grad_x_)}; }

  problem p_;
  ema_parameters parameters_;
  thrust::device_vector<T> x_, grad_y_, y_, grad_x_;
  thrust::device_vector<float> kappa_;
  std::vector<thrust::device_vector<T>> weights_;
};

}  // namespace

bool cuda_device_found() { return cuda_found(); }

std::string cuda_device_name() { return device_name(); }

std::unique_ptr<conv_fixture> make_cuda_conv_fixture(std::string const& dtype, problem p, text const& input) {
  if (dtype == "fp32") return std::make_unique<cuda_conv_fixture<float>>(p, input);
  return std::make_unique<cuda_conv_fixture<bf16>>(p, input);
}

}  // namespace tcnca::bench
