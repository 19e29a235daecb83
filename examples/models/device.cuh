// A CUDA device: its memory, one stream, and a cuBLAS handle.
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "device.hpp"

namespace tcnca::models {

/// The current device. Throws std::runtime_error with CUDA's message.
template <>
class device<cuda> {
 public:
  explicit device(int /*threads*/) {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
    stream_.reset(stream);
    cublasHandle_t blas = nullptr;
    check(cublasCreate(&blas), "start");
    blas_.reset(blas);
    check(cublasSetStream(blas, stream),
          "take a stream");  // this resets the workspace, so it is set afterwards
    // With a fixed workspace and without atomics, products are bitwise deterministic.
    workspace_.reset(allocate(workspace_bytes));
    check(cublasSetWorkspace(blas, workspace_.get(), workspace_bytes), "take a workspace");
    check(cublasSetAtomicsMode(blas, CUBLAS_ATOMICS_NOT_ALLOWED), "do without atomics");
    allow_tf32(false);
  }
  cuda executor() const { return {stream_.get()}; }
  cublasHandle_t blas() const { return blas_.get(); }
  /// Allows TF32 for fp32 products.
  void allow_tf32(bool allow) const {
    check(cublasSetMathMode(blas(), allow ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH), "choose its arithmetic");
  }

  static void* allocate(size_t bytes) {
    void* p = nullptr;
    if (cudaError_t const e = cudaMalloc(&p, bytes); e != cudaSuccess)
      fail("CUDA", "allocate " + std::to_string(bytes) + " bytes", cudaGetErrorString(e));
    check(cudaMemset(p, 0, bytes), "clear memory");
    check(cudaDeviceSynchronize(), "clear memory");  // the model's stream does not wait for the default stream
    return p;
  }
  static void release(void* p) { cudaFree(p); }
  size_t bytes() const { return workspace_bytes; }

  void upload(void const* from, void* to, size_t bytes) const {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_.get()), "copy to the device");
    check(cudaStreamSynchronize(stream_.get()), "copy to the device");
  }
  void download(void const* from, void* to, size_t bytes) const {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_.get()), "copy from the device");
    check(cudaStreamSynchronize(stream_.get()), "copy from the device");
  }

  static void check(cudaError_t e, char const* what) {
    if (e != cudaSuccess) fail("CUDA", what, cudaGetErrorString(e));
  }
  static void check(cublasStatus_t s, char const* what) {
    if (s != CUBLAS_STATUS_SUCCESS) fail("cuBLAS", what, cublasGetStatusString(s));
  }

 private:
  static constexpr size_t workspace_bytes = size_t(32) << 20;  // cuBLAS's recommendation for H100
  [[noreturn]] static void fail(std::string const& who, std::string const& what, char const* why) {
    throw std::runtime_error(who + " could not " + what + ": " + why);
  }
  struct closing {
    void operator()(cudaStream_t s) const { cudaStreamDestroy(s); }
    void operator()(cublasHandle_t h) const { cublasDestroy(h); }
    void operator()(void* p) const { release(p); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaStream_t>, closing> stream_;
  std::unique_ptr<void, closing> workspace_;
  std::unique_ptr<std::remove_pointer_t<cublasHandle_t>, closing> blas_;
};

}  // namespace tcnca::models
