// A stack of dilated depthwise convolutions by oneDNN, level by level, in fp32: the second baseline on the CPU.
//
// oneDNN (2.6) has no fast path for a dilated depthwise convolution: it falls back to a GEMM per channel, which is 6
// to 20 times slower. So the length is folded: positions [L] viewed as an image [L / d, d] turn the dilation d into a
// column of taps without dilation. The view costs nothing in both fast layouts of oneDNN, channels in blocks of 16
// and channels last; L is padded to a multiple of the longest dilation. A probe with 16 channels and about 4096
// positions selects the layout for the direction, and whether to fold the level of dilation 1. The backward pass of a
// level is two primitives, for data and weights. Sequences stay in oneDNN's layout; conversions are not timed.
// Backward uses the saved inputs of all levels.
#pragma once
#if defined(_OPENMP)
#include <omp.h>
#endif

#include <algorithm>
#include <array>
#include <cstdio>
#include <dnnl.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <tcnca/core/config.hpp>
#include "../support/buffer.hpp"
#include "../support/paired.hpp"
#include "ceilings.hpp"

namespace tcnca::bench {

/// One level: y[t] = sum_k w[k] x[t - k d], with three primitives, each in its fastest formulation.
class dnnl_level {
 public:
  using tag = dnnl::memory::format_tag;
  enum operation { forward, backward_data, backward_weights };
  struct shape {
    index_t batch, channels, length, taps, dilation;
  };

  dnnl_level(dnnl::engine const& engine, shape s, tag order) : engine_(engine), shape_(s), order_(order) {}

  /// Selects a formulation for each operation; returns the expected seconds of the direction for the real shape.
  double choose(bool with_backward) {
    shape probe = shape_;
    index_t const d = std::min(shape_.dilation, shape_.length);
    probe.batch = 1, probe.channels = std::min<index_t>(16, shape_.channels),
    probe.length = std::min(shape_.length, divide_up<index_t>(4096, d) * d);
    double const factor = static_cast<double>(shape_.batch * shape_.channels * shape_.length) /
                          static_cast<double>(probe.channels * probe.length);
    double expected = 0;
    for (operation op : {forward, backward_data, backward_weights}) {
      if (op != forward && !with_backward) continue;
      double best = 1e300;
      for (bool folded : {true, false}) {
        if (!folded && d > 1) continue;
        auto candidate = make(probe, op, folded);
        if (!candidate) continue;
        double const time = candidate->time();
        if (time < best) best = time, folded_[op] = folded;
      }
      if ((op != forward) == with_backward) expected += best * factor;
    }
    return expected;
  }
  void prepare(bool with_backward) {
    chosen_[forward] = make(shape_, forward, folded_[forward]);
    if (!with_backward) return;
    for (operation op : {backward_data, backward_weights}) chosen_[op] = make(shape_, op, folded_[op]);
  }

  /// Runs an operation on sequences in this layout; the level owns its weights.
  void run(operation op, float* x, float* y, dnnl::stream& stream) { chosen_[op]->run(x, y, stream); }

  /// Copies w [taps, channels], tap 0 the newest sample, to oneDNN's order and layout.
  void set_weight(float const* w) {
    for (operation op : {forward, backward_data})
      if (chosen_[op])
        chosen_[op]->copy_weight([&](index_t k, index_t c, float& value) { value = w[k * shape_.channels + c]; }, true);
  }
  void get_grad_weight(float* w) {
    chosen_[backward_weights]->copy_weight(
        [&](index_t k, index_t c, float& value) { w[k * shape_.channels + c] = value; }, false);
  }

 private:
  struct primitive {
    shape s;
    operation op;
    dnnl::primitive run_;
    dnnl::memory x, w, y;
    dnnl::memory::desc plain_weight;
    dnnl::engine engine;

    void run(float* px, float* py, dnnl::stream& stream) {
      x.set_data_handle(px), y.set_data_handle(py);
      if (op == forward) run_.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
      else if (op == backward_data)
        run_.execute(stream, {{DNNL_ARG_DIFF_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DIFF_DST, y}});
      else run_.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_WEIGHTS, w}, {DNNL_ARG_DIFF_DST, y}});
      stream.wait();
    }
    /// Seconds of a call on temporary memory.
    double time() {
      dnnl::stream stream(engine);
      buffer<float> a(x.get_desc().get_size() / sizeof(float)), b(y.get_desc().get_size() / sizeof(float));
      run(a.data(), b.data(), stream);
      return steady_seconds(1, [&] { run(a.data(), b.data(), stream); });
    }
    template <class Exchange>
    void copy_weight(Exchange const& exchange, bool to_library) {
      dnnl::stream stream(engine);
      dnnl::memory plain(plain_weight, engine);
      auto* const p = static_cast<float*>(plain.get_data_handle());
      if (!to_library) dnnl::reorder(w, plain).execute(stream, w, plain), stream.wait();
      for (index_t c = 0; c < s.channels; c++)
        for (index_t k = 0; k < s.taps; k++) exchange(k, c, p[c * s.taps + s.taps - 1 - k]);
      if (to_library) dnnl::reorder(plain, w).execute(stream, plain, w), stream.wait();
    }
  };

  std::optional<primitive> make(shape s, operation op, bool folded) const try {
    using memory = dnnl::memory;
    using dims = memory::dims;
    index_t const d = std::min(s.dilation, s.length);  // longer dilations read zeros only, as this one does
    dims const image = folded ? dims{s.batch, s.channels, s.length / d, d} : dims{s.batch, s.channels, 1, s.length};
    dims const kernel = folded ? dims{s.channels, 1, 1, s.taps, 1} : dims{s.channels, 1, 1, 1, s.taps};
    dims const dilation = folded ? dims{0, 0} : dims{0, d - 1};
    dims const before = folded ? dims{s.taps - 1, 0} : dims{0, (s.taps - 1) * d};
    dims const none{0, 0}, one{1, 1};
    auto const desc = [](dims const& size, tag order) { return memory::desc(size, memory::data_type::f32, order); };
    memory::desc const sequence = desc(image, order_), weight = desc(kernel, tag::any);
    auto const direct = dnnl::algorithm::convolution_direct;
    dnnl::convolution_forward::primitive_desc const f(
        {dnnl::prop_kind::forward_training, direct, sequence, weight, sequence, one, dilation, before, none}, engine_);
    auto const finish = [&](auto const& made, auto const& w) {
      return primitive{s,
                       op,
                       made,
                       memory(sequence, engine_, nullptr),
                       memory(w, engine_),
                       memory(sequence, engine_, nullptr),
                       desc(kernel, tag::goihw),
                       engine_};
    };
    if (op == forward) return finish(dnnl::convolution_forward(f), f.weights_desc());
    if (op == backward_data) {
      dnnl::convolution_backward_data::primitive_desc const b(
          {direct, sequence, weight, sequence, one, dilation, before, none}, engine_, f);
      return finish(dnnl::convolution_backward_data(b), b.weights_desc());
    }
    dnnl::convolution_backward_weights::primitive_desc const b(
        {direct, sequence, weight, sequence, one, dilation, before, none}, engine_, f);
    return finish(dnnl::convolution_backward_weights(b), b.diff_weights_desc());
  } catch (dnnl::error const&) { return std::nullopt; }

  dnnl::engine engine_;
  shape shape_;
  tag order_;
  bool folded_[3] = {};
  std::optional<primitive> chosen_[3];
};

/// The whole stack, for forward or for backward. If reason() is not empty, it says why the stack cannot run.
class dnnl_stack {
 public:
  dnnl_stack(index_t batch, index_t channels, index_t length, index_t taps, std::vector<index_t> const& dilations,
             int threads, bool with_backward, double limit)
      : batch_(batch),
        channels_(channels),
        length_(length),
        padded_(length),
        taps_(taps),
        engine_(dnnl::engine::kind::cpu, 0),
        stream_(engine_),
        with_backward_(with_backward) {
#if defined(_OPENMP)
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
    for (index_t d : dilations)
      if (d < length) padded_ = divide_up(length, d) * d;
    double best = 1e300;
    using tag = dnnl_level::tag;
    for (tag order : {tag::nChw16c, tag::nhwc}) {
      std::vector<dnnl_level> levels;
      double expected = 0;
      for (index_t d : dilations) {
        levels.emplace_back(engine_, dnnl_level::shape{batch, channels, padded_, taps, d}, order);
        expected += levels.back().choose(with_backward);
      }
      if (expected < best) best = expected, levels_ = std::move(levels), order_ = order;
    }
    if (levels_.empty() || best >= 1e300) {
      reason_ = "it has no such convolution";
    } else if (best > limit) {
      char text[120];
      std::snprintf(text, sizeof text,
                    "it would take %.1f s for the %s of %lld taps x %zu levels at length %lld, more than the limit",
                    best, with_backward ? "backward" : "forward", static_cast<long long>(taps), dilations.size(),
                    static_cast<long long>(length));
      reason_ = text;
      levels_.clear();
    }
    if (!reason_.empty()) return;
    for (auto& level : levels_) level.prepare(with_backward);
    size_t const count = sequence_desc(order_).get_size() / sizeof(float);
    for (size_t i = 0; i <= levels_.size(); i++)
      if (with_backward || i < 2) inputs_.emplace_back(count);
    if (with_backward)
      for (auto& g : grads_) g = buffer<float>(count);
  }

  std::string const& reason() const { return reason_; }
  char const* layout_name() const {
    return order_ == dnnl_level::tag::nhwc ? "channels last" : "channels in blocks of 16";
  }

  /// Copies x [batch, channels, length] and weight [levels, taps, channels], tap 0 the newest, to oneDNN's memory.
  void load(float const* x, float const* weight) {
    reorder_in(x, inputs_[0]);
    for (size_t l = 0; l < levels_.size(); l++)
      levels_[l].set_weight(weight + static_cast<index_t>(l) * taps_ * channels_);
  }
  void load_grad(float const* grad_y) { reorder_in(grad_y, grads_[levels_.size() % 2]); }
  void forward() {
    for (size_t l = 0; l < levels_.size(); l++)
      levels_[l].run(dnnl_level::forward, input(l).data(), input(l + 1).data(), stream_);
  }
  /// Call forward() first, and load_grad() again before each call whose result is read: two buffers alternate.
  void backward() {
    for (size_t l = levels_.size(); l-- > 0;) {
      levels_[l].run(dnnl_level::backward_weights, input(l).data(), grads_[(l + 1) % 2].data(), stream_);
      levels_[l].run(dnnl_level::backward_data, grads_[l % 2].data(), grads_[(l + 1) % 2].data(), stream_);
    }
  }
  void store_y(float* y) { reorder_out(y, input(levels_.size())); }
  void store_grads(float* grad_x, float* grad_weight) {
    reorder_out(grad_x, grads_[0]);
    for (size_t l = 0; l < levels_.size(); l++)
      levels_[l].get_grad_weight(grad_weight + static_cast<index_t>(l) * taps_ * channels_);
  }

 private:
  buffer<float>& input(size_t level) { return inputs_[with_backward_ ? level : level % 2]; }
  dnnl::memory::desc sequence_desc(dnnl_level::tag order) const {
    return {{batch_, channels_, 1, padded_}, dnnl::memory::data_type::f32, order};
  }
  void reorder_in(float const* from, buffer<float>& to) {
    buffer<float> plain(static_cast<size_t>(batch_ * channels_ * padded_));
    for (index_t r = 0; r < batch_ * channels_; r++)
      std::copy_n(from + r * length_, length_, plain.data() + r * padded_);
    dnnl::memory a(sequence_desc(dnnl_level::tag::nchw), engine_, plain.data()),
        b(sequence_desc(order_), engine_, to.data());
    dnnl::reorder(a, b).execute(stream_, a, b);
    stream_.wait();
  }
  void reorder_out(float* to, buffer<float>& from) {
    buffer<float> plain(static_cast<size_t>(batch_ * channels_ * padded_));
    dnnl::memory a(sequence_desc(order_), engine_, from.data()),
        b(sequence_desc(dnnl_level::tag::nchw), engine_, plain.data());
    dnnl::reorder(a, b).execute(stream_, a, b);
    stream_.wait();
    for (index_t r = 0; r < batch_ * channels_; r++) std::copy_n(plain.data() + r * padded_, length_, to + r * length_);
  }

  index_t batch_, channels_, length_, padded_, taps_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  bool with_backward_;
  dnnl_level::tag order_ = dnnl_level::tag::nhwc;
  std::string reason_;
  std::vector<dnnl_level> levels_;
  std::vector<buffer<float>> inputs_;
  std::array<buffer<float>, 2> grads_;
};

}  // namespace tcnca::bench
