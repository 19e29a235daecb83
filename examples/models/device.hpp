// What a model needs of the machine beside the library: memory on its side, copies, and what its BLAS wants.
#pragma once
#include <tcnca/core/executor.hpp>
#include <tcnca/core/workspace.hpp>

#include <cstring>
#include <new>

namespace tcnca::models {

/// Of an executor E. This one is the host, which has nothing of its own; device.cuh has that of CUDA, whose copies wait for its stream.
template <class E>
class device {
 public:
  explicit device(int threads) {
    if constexpr (requires { executor_.threads; }) { executor_.threads = threads; }
  }
  E executor() const { return executor_; }

  /// Zeroed, and aligned as a workspace is. Throws where there is none.
  static void* allocate(size_t bytes) {
    return std::memset(::operator new(bytes, std::align_val_t(workspace::alignment)), 0, bytes);
  }
  static void release(void* p) { ::operator delete(p, std::align_val_t(workspace::alignment)); }
  /// Bytes that it keeps for itself.
  size_t bytes() const { return 0; }

  /// From the host's memory to the device's, and back; the call returns when the bytes are there.
  void upload(void const* from, void* to, size_t bytes) const {
    if (bytes > 0) std::memcpy(to, from, bytes);  // from nowhere, nothing
  }
  void download(void const* from, void* to, size_t bytes) const { upload(from, to, bytes); }

 private:
  E executor_{};
};

}  // namespace tcnca::models

#if defined(__CUDACC__)
#include "device.cuh"
#endif
