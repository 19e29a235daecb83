// The device of an executor: memory, copies, and a BLAS handle.
#pragma once
#include <tcnca/core/executor.hpp>
#include <tcnca/core/workspace.hpp>

#include <cstring>
#include <new>

namespace tcnca::models {

/// The primary template is the host. device.cuh specializes it for CUDA, whose copies wait for its stream.
template <class E>
class device {
 public:
  explicit device(int threads) {
    if constexpr (requires { executor_.threads; }) { executor_.threads = threads; }
  }
  E executor() const { return executor_; }

  /// Zeroed memory with the alignment of a workspace. Throws if the allocation fails.
  static void* allocate(size_t bytes) {
    return std::memset(::operator new(bytes, std::align_val_t(workspace::alignment)), 0, bytes);
  }
  static void release(void* p) { ::operator delete(p, std::align_val_t(workspace::alignment)); }
  /// Bytes that the device object itself allocates.
  size_t bytes() const { return 0; }

  /// Copies from host to device and back. The call returns when the copy is complete.
  void upload(void const* from, void* to, size_t bytes) const {
    if (bytes > 0) std::memcpy(to, from, bytes);  // memcpy takes no null pointers
  }
  void download(void const* from, void* to, size_t bytes) const { upload(from, to, bytes); }

 private:
  E executor_{};
};

}  // namespace tcnca::models

#if defined(__CUDACC__)
#include "device.cuh"
#endif
