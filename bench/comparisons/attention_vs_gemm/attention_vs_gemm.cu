// The CUDA fixture of attention_vs_gemm: the library, and attention composed of cuBLAS products.
#include <memory>
#include <string>
#include <vector>

#include "../../baselines/attention_cuda.cuh"
#include "../../support/device_cuda.cuh"
#include "../../support/text.hpp"
#include "bind.hpp"
#include "fixture_cuda.hpp"

namespace tcnca::bench {
namespace {

template <class T>
class cuda_attention_fixture final : public attention_fixture {
 public:
  explicit cuda_attention_fixture(attention_problem const& p)
      : p_(p), lse_(static_cast<size_t>(2 * p.sequences() * p.length)) {
    for (part w : {part::q, part::k, part::grad_q, part::grad_k}) at(w) = memory(static_cast<size_t>(p.key_elements()));
    for (part w : {part::v, part::grad_o, part::o, part::grad_v})
      at(w) = memory(static_cast<size_t>(p.value_elements()));
    part const inputs[] = {part::q, part::k, part::v, part::grad_o};
    for (std::uint64_t i = 0; i < 4; i++) {
      std::vector<T> host(at(inputs[i]).size());
      text::noise(contiguous(host.data(), 1, 1, static_cast<index_t>(host.size())), 1 + i);
      at(inputs[i]) = host;
    }
  }

  contender library(pass direction) override { return bind_attention(cuda_device{}, direction, p_, view()); }
  std::vector<std::string> baselines() const override { return {"cuBLAS"}; }
  contender baseline(size_t, pass direction, bool tuned) override {
    auto const attention = std::make_shared<attention_by_cublas<T>>(p_);
    auto const t = view();
    bool const backward = direction == pass::backward;
    if (backward) attention->forward(t);
    if (tuned) attention->choose(t, backward);
    how_ = attention->describe();
    return {[=] { return device_seconds([&] { backward ? attention->backward(t) : attention->forward(t); }); }, {}, {}};
  }
  std::string how() const override { return how_; }
  double peak_rate() override {
    static double const rate = cublas_products().rate<T>();
    return rate;
  }
  std::string peak_name() const override { return "cuBLAS, a product of 8192 x 8192 x 8192"; }

  std::vector<float> read(part which) override { return cuda_device::read(raw(at(which)), at(which).size()); }
  void clear_outputs(pass direction) override {
    auto const fill = [&](part which) { require(cudaMemset(raw(at(which)), 0x7f, at(which).size() * sizeof(T))); };
    if (direction == pass::forward) return fill(part::o);
    fill(part::grad_q), fill(part::grad_k), fill(part::grad_v);
  }

 private:
  using memory = thrust::device_vector<T>;
  memory& at(part w) { return parts_[static_cast<int>(w)]; }
  attention_tensors<T> view() {
    return {raw(at(part::q)), raw(at(part::k)),      raw(at(part::v)),      raw(at(part::grad_o)), raw(at(part::o)),
            raw(lse_),        raw(at(part::grad_q)), raw(at(part::grad_k)), raw(at(part::grad_v))};
  }

  attention_problem p_;
  memory parts_[8];
  thrust::device_vector<float> lse_;
  std::string how_;
};

}  // namespace

bool attention_device_found() { return cuda_found(); }

std::string attention_device_name() { return device_name(); }

std::unique_ptr<attention_fixture> make_cuda_attention_fixture(std::string const& dtype, attention_problem const& p) {
  if (dtype == "fp32") return std::make_unique<cuda_attention_fixture<float>>(p);
  return std::make_unique<cuda_attention_fixture<bf16>>(p);
}

}  // namespace tcnca::bench
