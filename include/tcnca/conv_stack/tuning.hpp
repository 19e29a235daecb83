// Tuning of the convolution stack: the policy of a kernel and its default values for each target.
#pragma once
#include "../arch/host.hpp"
#include "../core/numeric.hpp"
#include "../core/target.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Which kernels may be used for a stack.
enum class stack_kernels {
  automatic,  ///< the fastest; on a GPU those on tensor cores, and stacks in several passes, round between layers to T
  fp32_between_layers,  ///< only kernels that keep what is passed between layers in accumulate_t<T>
  generic               ///< only the generic kernel, which serves all shapes on all targets
};

constexpr char const* type_name(stack_kernels) { return "stack_kernels"; }
constexpr char const* to_string(stack_kernels k) {
  switch (k) {
    case stack_kernels::automatic: return "automatic";
    case stack_kernels::fp32_between_layers: return "fp32_between_layers";
    case stack_kernels::generic: return "generic";
  }
  return "";
}

/// Tuning values of one kernel. Results do not depend on them, except for the order of summation of weight gradients,
/// and for `kernels`. Values from `width` to `segment_fields` are those of the generic kernel. The CPU's own kernels
/// use `width`, `streaming_bytes`, `segment_fields`, and `tile` and `single_tile_limit` as upper limits.
struct conv_stack_policy {
  int width;               ///< lanes of a pack, a power of two
  int packs;               ///< packs that a tile holds per position, if the lanes are channels
  int outputs_per_thread;  ///< outputs, a dilation apart, that share their inputs in registers
  int tile;      ///< positions per tile of the first layer, a multiple of the width and of 16 bytes of elements
  int tile_max;  ///< later layers use tiles of outputs_per_thread dilations, up to this many positions
  index_t single_tile_limit;   ///< sequences up to this length are one tile, if shared memory holds all layers
  int threads;                 ///< threads per group, a multiple of `packs`
  size_t shared_memory_bytes;  ///< shared memory per group; other buffers are in global scratch
  size_t streaming_bytes;      ///< results of at least this many bytes use non-temporal stores; 0: never
  index_t segment_fields;      ///< minimum length of a segment in receptive fields, where few sequences are split into
                               ///< segments to occupy all workers; 0: never split
  stack_kernels kernels = stack_kernels::automatic;

  friend constexpr bool operator==(conv_stack_policy const&, conv_stack_policy const&) = default;
  template <class F>
  constexpr void fields(F f) const {
    f("width", width), f("packs", packs), f("outputs_per_thread", outputs_per_thread), f("tile", tile);
    f("tile_max", tile_max), f("single_tile_limit", single_tile_limit), f("threads", threads);
    f("shared_memory_bytes", shared_memory_bytes), f("streaming_bytes", streaming_bytes);
    f("segment_fields", segment_fields), f("kernels", kernels);
  }
};

/// The default tuning. Any type with these two functions can replace it.
template <element T, conv_stack_shape Shape>
struct default_conv_stack_tuning {
  static constexpr conv_stack_policy forward(target t) { return t.is_cpu() ? cpu(32768) : cuda(); }
  static constexpr conv_stack_policy backward(target t) {
    if (t.compute_capability != 0) return cuda();
    return cpu(channels_last ? 512 : 4096);
  }

 private:
  static constexpr bool channels_last = Shape.order == layout::batch_length_channels;

  // Zen 5, one thread of a busy machine, 128 sequences, fp32, CPU time in ms at 16k | 64k (2026-11-24),
  // K 4 f 4 D 6 and K 17 f 16 D 4:
  //   tile (and tile_max backward)   1024           2048           4096          8192
  //   forward, K 4                   0.93 | 4.90    0.88 | 4.37    0.83 | 3.90   0.87 | 4.07
  //   forward, K 17                  1.40 | 7.55    1.39 | 7.40    1.38 | 7.02   1.32 | 6.87
  //   backward, K 4                  3.52 | 13.96   3.36 | 13.43   2.96 | 11.77  2.78 | 11.92
  //   backward, K 17                 5.00 | 22.10   4.76 | 21.82   4.35 | 19.98  4.31 | 20.22
  //   a single tile at 16k, else tiles of 4096: forward 0.86 (K 4), 1.35 (K 17), backward 2.64, 4.21.
  //   non-temporal stores of y and grad_x, tile 1024, 64k: K 4 forward 5.28 -> 4.90, backward 14.17 -> 13.96;
  //   K 17 forward 8.09 -> 7.55, backward 22.55 -> 22.10.
  static constexpr conv_stack_policy cpu(int tile_max) {
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
            .packs = 1,
            .outputs_per_thread = 8,
            .tile = channels_last ? 512 : 4096,
            .tile_max = tile_max,
            .single_tile_limit = channels_last ? 1024 : 16384,
            .threads = 1,
            .shared_memory_bytes = ~size_t(0),
            .streaming_bytes = size_t(16) << 20,
            .segment_fields = 2};
  }

  // Chosen by counting instructions and bank conflicts, not by measurement on a device. 5 outputs per thread: shared
  // memory accesses are free of bank conflicts where the dilation is a power of two. 96 KB: the most that every device
  // from sm_80 on grants a block.
  static constexpr conv_stack_policy cuda() {
    return {.width = channels_last ? 16 / int(sizeof(accumulate_t<T>)) : 1,
            .packs = 2,
            .outputs_per_thread = channels_last ? 3 : 5,
            .tile = channels_last ? 192 : 1280,
            .tile_max = channels_last ? 192 : 1280,
            .single_tile_limit = channels_last ? 8 * 192 : 8 * 1280,
            .threads = 256,
            .shared_memory_bytes = 96 * 1024,
            .streaming_bytes = 0,
            .segment_fields = 4};
  }
};

}  // namespace tcnca
