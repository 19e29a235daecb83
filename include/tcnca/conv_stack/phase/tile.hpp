// The tiles of the register-phase kernel between global and shared memory: x into the stage, y out of its buffer.
#pragma once
#include "../../block/mma.hpp"
#include "plan.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Loads x at the positions [begin - plan.stage_halo, begin + plan.tile) into the stage, zeros outside of [0, length).
/// `begin` is a multiple of a vector of 16 bytes. Called by all threads; complete after warp.wait() and a barrier of
/// the group.
template <element T, conv_stack_shape Shape, layer_range Layers, class Group>
TCNCA_HOST_DEVICE void load_tile(Group group, warp_of<Group> const& warp, T* stage, T const* row, int begin, int length,
                                 bool vectorizable) {
  using stage_of = phase_stage<T>;
  constexpr conv_stack_phase_plan plan = phase_forward_plan<T, Shape, Layers>;
  constexpr int vector = stage_of::vector, halo = plan.stage_halo;
  constexpr int loaded_halo = round_up(plan.phase[0].halo, vector);
  int const rank = group.rank();
  if (vectorizable) {
    auto const to = warp.address(stage + stage_of::offset(halo + rank * vector));
    if (begin + plan.tile <= length) {
      static_assert(plan.threads * vector % stage_of::line == 0 && plan.tile % (plan.threads * vector) == 0);
      T const* const from = row + begin + rank * vector;
      TCNCA_UNROLL
      for (int i = 0; i < plan.tile / vector; i += plan.threads)
        warp.copy_16(to + uint32(stage_of::offset(i * vector)) * uint32(sizeof(T)), from + i * vector, true);
    } else {
      for (int i = rank * vector; i < plan.tile; i += plan.threads * vector) {
        int const present = length - begin - i;
        T const* const from = row + begin + i;
        T* const at = stage + stage_of::offset(halo + i);
        if (present <= 0 || present >= vector) {
          warp.copy_16(warp.address(at), present > 0 ? from : row, present > 0);
        } else {
          for (int e = 0; e < vector; e++) at[e] = e < present ? from[e] : T{};
        }
      }
    }
    if (rank < loaded_halo / vector) {
      int const i = halo - loaded_halo + rank * vector, t = begin - loaded_halo + rank * vector;
      // t + vector <= begin, and a tile begins before the end of the row
      warp.copy_16(warp.address(stage + stage_of::offset(i)), t >= 0 ? row + t : row, t >= 0);
    }
  } else {
    for (int i = halo - loaded_halo + rank; i < halo + plan.tile; i += plan.threads) {
      int const t = begin - halo + i;
      bool const present = t >= 0 && t < length;
      T* const at = stage + stage_of::offset(i);
      if constexpr (sizeof(T) == 4) {
        warp.copy_4(warp.address(at), present ? row + t : row, present);
      } else {
        *at = present ? row[t] : T{};
      }
    }
  }
  warp.commit();
}

/// Writes y at the positions [first, last) of the tile that begins at `begin`, from a buffer in shared memory. Called
/// by all threads after a barrier; the buffer may be written again after the next one.
template <element T, conv_stack_shape Shape, layer_range Layers, class Group>
TCNCA_HOST_DEVICE void store_tile(Group group, accumulate_t<T> const* buffer, T* row, int begin, int first, int last,
                                  bool vectorizable) {
  constexpr conv_stack_phase_plan plan = phase_forward_plan<T, Shape, Layers>;
  constexpr padded_layout place = plan.buffer[plan.count - 1];
  constexpr int vector = 16 / int(sizeof(accumulate_t<T>));
  if (vectorizable && begin >= first && begin + plan.tile <= last) {
    TCNCA_UNROLL
    for (int i = 0; i < plan.tile; i += plan.threads * vector) {
      int const p = i + group.rank() * vector;
      store<vector>(row + begin + p, load<vector>(buffer + place(p)));
    }
  } else {
    int const end = min_of(last - begin, plan.tile);
    for (int p = max_of(first - begin, 0) + group.rank(); p < end; p += plan.threads)
      store<1>(row + begin + p, load<1>(buffer + place(p)));
  }
}

}  // namespace tcnca::detail
