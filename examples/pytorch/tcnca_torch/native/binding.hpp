// A C interface to one pass of an operation, free of PyTorch: arrays of pointers, extents and strides in, a status code
// and a message out. Python calls it through ctypes.
#pragma once
#include <tcnca/core/executor.hpp>
#include <tcnca/core/numeric.hpp>
#include <tcnca/core/status.hpp>
#include <tcnca/core/tensor.hpp>
#include <tcnca/core/text.hpp>
#include <tcnca/core/workspace.hpp>

namespace tcnca_torch {

using tcnca::index_t;

/// A tensor of rank 4 or less. An absent one has a null pointer and extents of 0.
struct array {
  void* data;
  index_t extent[4];
  index_t stride[4];
};

/// The arguments of one call. `arrays`, `integers` and `reals` are in the order of the members of the C++ argument
/// struct.
struct call {
  array const* arrays;
  index_t const* integers;
  double const* reals;
  index_t threads;      ///< CPU
  CUstream_st* stream;  ///< CUDA
  void* workspace;
  index_t workspace_bytes;
  char* message;  ///< receives the text of an error, at most message_bytes with the final 0
  index_t message_bytes;
};

/// Reads the arguments of a call one after another. Each conversion takes the next one; a braced initializer evaluates
/// its members in order.
class reader {
 public:
  explicit reader(call const& c) : array_(c.arrays), integer_(c.integers), real_(c.reals) {}

  template <class T, int Rank>
  operator tcnca::tensor_view<T, Rank>() {
    array const& a = *array_++;
    tcnca::tensor_view<T, Rank> v;
    v.data = static_cast<T*>(a.data);
    for (int r = 0; r < Rank; r++) v.extent[r] = a.extent[r], v.stride[r] = a.stride[r];
    return v;
  }
  operator index_t() { return *integer_++; }
  operator tcnca::uint64() { return tcnca::uint64(*integer_++); }
  operator double() { return *real_++; }

 private:
  array const* array_;
  index_t const* integer_;
  double const* real_;
};

#if defined(__CUDACC__)
inline tcnca::cuda executor(call const& c) { return {c.stream}; }
#else
inline tcnca::cpu executor(call const& c) { return {int(c.threads)}; }
#endif

/// Bytes of workspace of a pass; 0 for one that needs none.
template <class Pass>
index_t workspace_bytes(auto executor, call const& c) {
  if constexpr (requires { Pass::workspace(executor, Pass::arguments(reader(c))); }) {
    return index_t(Pass::workspace(executor, Pass::arguments(reader(c))));
  } else {
    return 0;
  }
}

/// Runs a pass. Returns the code of its status; unless it is success, writes the message.
template <class Pass>
int run(auto executor, call const& c) {
  tcnca::status const status =
      Pass::run(executor, Pass::arguments(reader(c)), {c.workspace, std::size_t(c.workspace_bytes)});
  if (!status.ok()) {
    auto const text = describe(status);
    index_t n = 0;
    for (; text.c_str()[n] != 0 && n + 1 < c.message_bytes; n++) c.message[n] = text.c_str()[n];
    if (c.message_bytes > 0) c.message[n] = 0;
  }
  return int(status.code());
}

/// The same on the executor of the call.
template <class Pass>
index_t workspace_bytes(call const& c) {
  return workspace_bytes<Pass>(executor(c), c);
}
template <class Pass>
int run(call const& c) {
  return run<Pass>(executor(c), c);
}

}  // namespace tcnca_torch
