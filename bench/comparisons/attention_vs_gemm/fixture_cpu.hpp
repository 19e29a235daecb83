// The CPU fixture: the library, and attention composed of OpenBLAS or oneDNN products.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../../baselines/attention_cpu.hpp"
#include "../../support/device_cpu.hpp"
#include "../../support/text.hpp"
#include "fixture.hpp"
#include "library.hpp"

namespace tcnca::bench {

template <class T>
class cpu_attention_fixture final : public attention_fixture {
 public:
  cpu_attention_fixture(attention_problem const& p, std::shared_ptr<cpu_ceilings> ceilings)
      : p_(p), ceilings_(std::move(ceilings)), tensors_(p) {
    part const inputs[] = {part::q, part::k, part::v, part::grad_o};
    for (std::uint64_t i = 0; i < 4; i++) {
      auto& b = tensors_.at(inputs[i]);
      text::noise(contiguous(b.data(), 1, 1, static_cast<index_t>(b.size())), 1 + i);
    }
  }

  contender library(pass direction) override { return make_cpu_attention(direction, p_, tensors_.view()); }
  std::vector<std::string> baselines() const override { return {"OpenBLAS", "oneDNN"}; }
  contender baseline(size_t which, [[maybe_unused]] pass direction, [[maybe_unused]] bool tuned) override {
    how_.clear();
    if (which == 0) {
#if defined(TCNCA_BENCH_OPENBLAS)
      return by_fp32_products<openblas_gemm>(direction, tuned);
#endif
    } else {
#if defined(TCNCA_BENCH_DNNL)
      if constexpr (std::is_same_v<T, bf16>) {
        if (multiplies_bf16()) return by_element_products<dnnl_gemm>(direction, tuned);
      }
      return by_fp32_products<dnnl_gemm>(direction, tuned);
#endif
    }
    return {{}, {}, "it was not found when this program was built"};
  }
  std::string how() const override { return how_; }
  double peak_rate() override { return ceilings_->fma_rate(); }
  std::string peak_name() const override { return "fp32 multiply-adds"; }

  std::vector<float> read(part which) override {
    auto const& b = tensors_.at(which);
    return cpu_device::read(b.data(), b.size());
  }
  void clear_outputs(pass direction) override {
    auto const fill = [&](part which) {
      std::fill(tensors_.at(which).begin(), tensors_.at(which).end(), from_float<T>(1e30f));
    };
    if (direction == pass::forward) return fill(part::o);
    fill(part::grad_q), fill(part::grad_k), fill(part::grad_v);
  }

 private:
  template <class U>
  struct memory {
    buffer<U> parts[8];
    buffer<float> lse;
    explicit memory(attention_problem const& p) : lse(static_cast<size_t>(2 * p.sequences() * p.length)) {
      for (part w : {part::q, part::k, part::grad_q, part::grad_k})
        at(w) = buffer<U>(static_cast<size_t>(p.key_elements()));
      for (part w : {part::v, part::grad_o, part::o, part::grad_v})
        at(w) = buffer<U>(static_cast<size_t>(p.value_elements()));
    }
    buffer<U>& at(part w) { return parts[static_cast<int>(w)]; }
    attention_tensors<U> view() {
      return {at(part::q).data(),      at(part::k).data(),      at(part::v).data(),
              at(part::grad_o).data(), at(part::o).data(),      lse.data(),
              at(part::grad_q).data(), at(part::grad_k).data(), at(part::grad_v).data()};
    }
  };

  /// Without the instruction, a bf16 product is slower than an fp32 product.
  static bool multiplies_bf16() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
  }
  /// Products in the element type.
  template <class Gemm>
  contender by_element_products(pass direction, bool tuned) {
    bool const backward = direction == pass::backward;
    auto const attention = std::make_shared<attention_by_products<Gemm, T>>(p_);
    auto const t = tensors_.view();
    if (backward) attention->forward(t);
    if (tuned) attention->choose(t, backward);
    how_ = attention->describe();
    return {
        [=] { return cpu_device::time([&] { backward ? attention->backward(t) : attention->forward(t); }); }, {}, {}};
  }
  /// Products in fp32; conversions from and to another element type are timed.
  template <class Gemm>
  contender by_fp32_products(pass direction, bool tuned) {
    if constexpr (std::is_same_v<T, float>) {
      return by_element_products<Gemm>(direction, tuned);
    } else {
      bool const backward = direction == pass::backward;
      auto const attention = std::make_shared<attention_by_products<Gemm>>(p_);
      auto const fp32 = std::make_shared<memory<float>>(p_);
      auto const t = fp32->view();
      auto const to_fp32 = [this, fp32](std::initializer_list<part> parts) {
        for (part w : parts) convert(fp32->at(w).data(), tensors_.at(w).data(), fp32->at(w).size());
      };
      auto const from_fp32 = [this, fp32](std::initializer_list<part> parts) {
        for (part w : parts) convert(tensors_.at(w).data(), fp32->at(w).data(), fp32->at(w).size());
      };
      to_fp32({part::q, part::k, part::v, part::grad_o});
      attention->forward(t);
      if (tuned) attention->choose(t, backward);
      how_ = attention->describe() + ", in fp32";
      if (!backward)
        return {[=] {
                  return (void)fp32, cpu_device::time([&] {
                           to_fp32({part::q, part::k, part::v}), attention->forward(t), from_fp32({part::o});
                         });
                },
                {},
                {}};
      from_fp32({part::o});
      return {[=] {
                return (void)fp32, cpu_device::time([&] {
                         to_fp32({part::q, part::k, part::v, part::grad_o, part::o});
                         attention->backward(t);
                         from_fp32({part::grad_q, part::grad_k, part::grad_v});
                       });
              },
              {},
              {}};
    }
  }
  template <class To, class From>
  void convert(To* to, From const* from, size_t count) const {
    constexpr size_t block = 16384;
    auto const blocks = static_cast<index_t>((count + block - 1) / block);
#pragma omp parallel for schedule(static) num_threads(p_.threads)
    for (index_t i = 0; i < blocks; i++) {
      size_t const first = static_cast<size_t>(i) * block;
      for (size_t j = first; j < std::min(count, first + block); j++) to[j] = from_float<To>(to_float(from[j]));
    }
  }

  attention_problem p_;
  std::shared_ptr<cpu_ceilings> ceilings_;
  memory<T> tensors_;
  std::string how_;
};

}  // namespace tcnca::bench
