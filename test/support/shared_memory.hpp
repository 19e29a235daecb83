// The shared memory of a group of fibers. Included by fiber.hpp.
#pragma once
#include <cstdlib>
#include <cstring>

namespace tcnca::testing {

/// Shared memory of one group, of exactly the given size: NaN at first, with guards that are checked.
class shared_memory {
 public:
  static constexpr std::size_t guard = 1024;  // and the alignment
  explicit shared_memory(std::size_t bytes) : bytes_(bytes) {
    if (posix_memalign(&memory_, guard, bytes + 2 * guard) != 0) std::abort();
    std::memset(memory_, 0xff, bytes + 2 * guard);
#if defined(TCNCA_TEST_ASAN)
    __asan_poison_memory_region(memory_, guard);
    __asan_poison_memory_region(data() + bytes, guard);
#endif
  }
  ~shared_memory() { std::free(memory_); }
  shared_memory(shared_memory const&) = delete;
  shared_memory& operator=(shared_memory const&) = delete;

  char* data() const { return static_cast<char*>(memory_) + guard; }
  bool intact() {
#if defined(TCNCA_TEST_ASAN)
    __asan_unpoison_memory_region(memory_, bytes_ + 2 * guard);
#endif
    for (std::size_t i = 0; i < guard; i++)
      if (data()[std::ptrdiff_t(i) - std::ptrdiff_t(guard)] != char(0xff) || data()[bytes_ + i] != char(0xff))
        return false;
    return true;
  }

 private:
  void* memory_ = nullptr;
  std::size_t bytes_;
};

}  // namespace tcnca::testing
