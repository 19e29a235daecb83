// Tensors in guarded memory: guards before and after them, and between strided rows.
#pragma once
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <tcnca/core/tensor.hpp>
#include <tcnca/core/workspace.hpp>

#include "numbers.hpp"
#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

namespace tcnca::testing {

/// Bytes with guards before and after. Host memory (poisoned guards under AddressSanitizer); in a CUDA program managed
/// memory.
class guarded_bytes {
 public:
  static constexpr std::size_t guard = 512;
  static constexpr unsigned char pattern = 0xa7;

  guarded_bytes() = default;
  /// `offset`: of the first byte from a multiple of 256.
  guarded_bytes(std::size_t bytes, std::size_t offset) : bytes_(bytes), offset_(offset) {
    std::size_t const all = total();
#if defined(__CUDACC__)
    if (cudaMallocManaged(&memory_, all) != cudaSuccess) memory_ = nullptr;
#else
    if (posix_memalign(&memory_, 256, all) != 0) memory_ = nullptr;
#endif
    if (!memory_) {
      std::fprintf(stderr, "no memory for %zu bytes\n", all);
      std::abort();
    }
    std::memset(memory_, pattern, all);
    poison(true);
  }
  ~guarded_bytes() {
    if (!memory_) return;
    poison(false);
#if defined(__CUDACC__)
    cudaFree(memory_);
#else
    std::free(memory_);
#endif
  }
  guarded_bytes(guarded_bytes&& o) noexcept { swap(o); }
  guarded_bytes& operator=(guarded_bytes o) noexcept {
    swap(o);
    return *this;
  }

  unsigned char* data() const { return static_cast<unsigned char*>(memory_) + (memory_ ? guard + offset_ : 0); }
  std::size_t size() const { return bytes_; }

  /// Whether the guards are unchanged.
  bool intact() const {
    if (!memory_) return true;
    poison(false);
    bool good = true;
    auto const* const all = static_cast<unsigned char const*>(memory_);
    for (std::size_t i = 0; i < total(); i++)
      if (i < guard + offset_ || i >= guard + offset_ + bytes_) good = good && all[i] == pattern;
    poison(true);
    return good;
  }

 private:
  void* memory_ = nullptr;
  std::size_t bytes_ = 0, offset_ = 0;

  std::size_t total() const { return bytes_ + offset_ + 2 * guard; }
  void swap(guarded_bytes& o) {
    std::swap(memory_, o.memory_);
    std::swap(bytes_, o.bytes_);
    std::swap(offset_, o.offset_);
  }
  void poison([[maybe_unused]] bool yes) const {
#if defined(TCNCA_TEST_ASAN)
    if (yes) {
      __asan_poison_memory_region(memory_, guard + offset_);
      __asan_poison_memory_region(data() + bytes_, guard);
    } else {
      __asan_unpoison_memory_region(memory_, total());
    }
#endif
  }
};

/// The placement of a tensor: padding elements between rows, and an offset in elements from an alignment of 256 bytes.
struct placement {
  int padding = 0, offset = 0;
};

/// A tensor that owns its memory. Elements and padding are NaN at first.
template <class T, int Rank>
class tensor {
 public:
  tensor() = default;
  /// `order`: the axes from the outermost to the innermost.
  tensor(index_t const (&extents)[Rank], int const (&order)[Rank], placement where = {}) {
    index_t stride = 1;
    for (int r = Rank - 1; r >= 0; r--) {
      int const axis = order[r];
      view_.extent[axis] = extents[axis];
      view_.stride[axis] = stride;
      stride = stride * extents[axis] + where.padding;
    }
    elements_ = stride > where.padding ? stride - where.padding : 0;
    memory_ = guarded_bytes(std::size_t(elements_) * sizeof(T), std::size_t(where.offset) * sizeof(T));
    view_.data = reinterpret_cast<T*>(memory_.data());
    clear();
  }
  /// A sequence [batch, channels, length] in the given layout.
  static tensor sequence(layout order, index_t batch, index_t channels, index_t length, placement where = {}) {
    if (order == layout::batch_channels_length) return {{batch, channels, length}, {0, 1, 2}, where};
    return {{batch, channels, length}, {0, 2, 1}, where};
  }

  tensor_view<T, Rank> view() const { return view_; }
  index_t count() const { return view_.count(); }
  bool present() const { return view_.present(); }
  index_t bytes() const { return elements_ * index_t(sizeof(T)); }
  guarded_bytes const& memory() const { return memory_; }

  /// All NaN.
  void clear() {
    if (memory_.size() > 0) std::memset(memory_.data(), 0xff, memory_.size());
  }

  T* at(index_t i) const {  // row-major number of an element
    index_t at = 0;
    for (int r = Rank - 1; r >= 0; r--) {
      at += i % view_.extent[r] * view_.stride[r];
      i /= view_.extent[r];
    }
    return view_.data + at;
  }
  /// f(element) in row-major order.
  template <class F>
  void for_each(F f) const {
    if (count() > 0) visit<0>(view_.data, f);
  }
  void assign(std::vector<double> const& values) {
    for (std::size_t i = 0; i < values.size(); i++) *at(index_t(i)) = from_double<T>(values[i]);
  }
  std::vector<double> values() const {
    std::vector<double> v;
    v.reserve(static_cast<std::size_t>(count()));
    for_each([&](T const& x) { v.push_back(to_double(x)); });
    return v;
  }
  /// The elements' bits, row-major.
  std::vector<unsigned char> bits() const {
    std::vector<unsigned char> v(static_cast<std::size_t>(count()) * sizeof(T));
    unsigned char* to = v.data();
    for_each([&](T const& x) { std::memcpy(to, &x, sizeof(T)), to += sizeof(T); });
    return v;
  }
  /// All bytes, those between the rows included.
  std::vector<unsigned char> image() const { return {memory_.data(), memory_.data() + memory_.size()}; }

  /// Whether only elements were written since clear().
  bool intact() const {
    if (!memory_.intact()) return false;
    if (elements_ == count()) return true;
    std::vector<bool> is_element(static_cast<std::size_t>(elements_));
    for_each([&](T const& x) { is_element[std::size_t(&x - view_.data)] = true; });
    unsigned char const* const p = memory_.data();
    for (std::size_t i = 0; i < is_element.size() * sizeof(T); i++)
      if (!is_element[i / sizeof(T)] && p[i] != 0xff) return false;
    return true;
  }

 private:
  tensor_view<T, Rank> view_;
  index_t elements_ = 0;
  guarded_bytes memory_;

  template <int Axis, class F>
  void visit(T* p, F& f) const {
    if constexpr (Axis == Rank) {
      f(*p);
    } else {
      for (index_t i = 0; i < view_.extent[Axis]; i++, p += view_.stride[Axis]) visit<Axis + 1>(p, f);
    }
  }
};

/// Random elements in [-scale, scale); returns them as values().
template <class T, int Rank>
std::vector<double> fill(tensor<T, Rank>& t, random_bits& r, double scale) {
  t.for_each([&](T& x) { x = from_double<T>(scale * uniform(r)); });
  return t.values();
}

/// Scratch memory of exactly the given size, not better aligned than it must be, filled with NaN.
class scratch_memory {
 public:
  explicit scratch_memory(std::size_t bytes) : memory_(bytes, workspace::alignment) {
    if (bytes > 0) std::memset(memory_.data(), 0xff, bytes);
  }
  workspace get() const { return {memory_.size() > 0 ? memory_.data() : nullptr, memory_.size()}; }
  bool intact() const { return memory_.intact(); }

 private:
  guarded_bytes memory_;
};

}  // namespace tcnca::testing
