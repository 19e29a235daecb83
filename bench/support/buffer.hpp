// Host memory of the benchmarks: aligned, on request in 2 MB pages, first touched by the threads that use it.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tcnca::bench {

/// The pages of buffers of 2 MB and more that are made from now on; by default those that any program gets.
enum class page_choice { system, small, huge };
inline page_choice& buffer_pages() {
  static page_choice chosen = page_choice::system;
  return chosen;
}

/// An owning array of trivially copyable elements, zeroed in parallel when constructed: no page is first touched in a
/// timed call.
template <class T>
class buffer {
 public:
  buffer() = default;
  explicit buffer(std::size_t count) : count_(count) {
    constexpr std::size_t huge = std::size_t{2} << 20;
    std::size_t const bytes = count * sizeof(T);
    std::size_t const alignment = bytes >= huge ? huge : 256;
    std::size_t const rounded = (bytes + alignment - 1) / alignment * alignment;
    if (rounded == 0) return;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, rounded));
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (bytes >= huge && buffer_pages() != page_choice::system)
      madvise(data_, rounded, buffer_pages() == page_choice::huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
    auto* const base = reinterpret_cast<unsigned char*>(data_);
    auto const pages = static_cast<std::ptrdiff_t>((rounded + huge - 1) / huge);
#pragma omp parallel for schedule(static)
    for (std::ptrdiff_t i = 0; i < pages; i++) {
      std::size_t const first = static_cast<std::size_t>(i) * huge;
      std::memset(base + first, 0, first + huge < rounded ? huge : rounded - first);
    }
  }
  buffer(buffer&& other) noexcept { swap(other); }
  buffer& operator=(buffer&& other) noexcept {
    buffer(std::move(other)).swap(*this);
    return *this;
  }
  ~buffer() { std::free(data_); }

  T* data() { return data_; }
  T const* data() const { return data_; }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t i) { return data_[i]; }
  T const& operator[](std::size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + count_; }
  T const* begin() const { return data_; }
  T const* end() const { return data_ + count_; }

 private:
  void swap(buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace tcnca::bench
