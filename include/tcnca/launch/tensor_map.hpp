// Tensor maps for bulk copies.
#pragma once
#include "../block/pipeline.hpp"
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"
#include "alignment.hpp"
#include "launch.hpp"
#if defined(__CUDACC__)
#include <cuda.h>
#endif

namespace tcnca::inline TCNCA_TARGET {

/// Makes tensor maps, if kernels of an executor can use them. encode(map, t, rows) describes tiles of 64 columns x
/// `rows` rows of t, whose elements have 16 bits and whose last axis is contiguous; coordinates are {column, row,
/// axis 1, axis 0}, 0 on an axis of stride 0. Tiles in shared memory have the layout of wgmma_tile. False if the
/// strides, the address or the driver do not permit a map.
template <class Executor>
struct tensor_map_encoder {
  static constexpr bool exists = false;
};

#if defined(__CUDACC__)
template <>
class tensor_map_encoder<cuda> {
 public:
  static constexpr bool exists = true;

  tensor_map_encoder() {
    detail::last_error const before;
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    cudaError_t const error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
    cudaError_t const error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    if (error != cudaSuccess) before.forget();
    else if (found == cudaDriverEntryPointSuccess) encode_ = reinterpret_cast<encode_function>(function);
  }

  template <element T>
  bool encode(tensor_map& map, tensor_view<T const, 4> const& t, int rows) const {
    static_assert(sizeof(T) == 2 && sizeof(tensor_map) == sizeof(CUtensorMap));
    if (encode_ == nullptr || !aligned_rows(8, t)) return false;
    cuuint64_t extent[4], stride[3];  // from the last axis to the first; bytes
    for (int axis = 0; axis < 4; axis++) {
      bool const one = t.stride[axis] == 0 || t.extent[axis] == 1;
      if (t.extent[axis] < 1 || t.extent[axis] >= index_t(1) << 31 || (axis == 2 && one && t.extent[axis] > 1))
        return false;
      extent[3 - axis] = one ? 1 : cuuint64_t(t.extent[axis]);
      if (axis < 3) stride[2 - axis] = one ? 16 : cuuint64_t(t.stride[axis]) * sizeof(T);
    }
    cuuint32_t const box[4] = {64, cuuint32_t(rows), 1, 1}, step[4] = {1, 1, 1, 1};
    return encode_(reinterpret_cast<CUtensorMap*>(&map),
                   same<T, bf16> ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4,
                   const_cast<T*>(t.data), extent, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                   CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
  }

 private:
  using encode_function = decltype(&cuTensorMapEncodeTiled);
  encode_function encode_ = nullptr;
};
#endif

}  // namespace tcnca
