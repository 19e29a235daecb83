// The kernel of an EMA, kappa[l] = sum over the states of u w q^l, and its gradient. No power is computed an element: with blocks of B
// positions q^(b B + i) = q^(b B) q^i, a product of two small tables. Powers are built in fp64, so that long kernels stay exact.
#pragma once
#include "reduce.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What both directions are given; the same for all groups. kappa, grad_kappa: [channels (bidirectional: 2 channels), length].
template <class A>
struct ema_kernel_params {
  ema_parameters<A> parameters;
  tensor_view<A, 2> kappa;
  tensor_view<A const, 2> grad_kappa;
  ema_gradients<A> gradients;
};

/// One item: the kernel of one row of parameters, or its gradient where Backward. Near memory: shared_memory_elements. Far memory: none.
template <class Group, element T, ema_shape Shape, ema_policy Policy, bool Backward>
struct ema_kernel_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = ema_kernel_params<A>;
  static constexpr int group_size = Group::size();
  static constexpr int N = Shape.states, W = Policy.width, packs = group_size > 1 ? 1 : 4;
  static constexpr int block = group_size * W * packs, chunk = 16;  // positions of a block, blocks between barriers
  using value = pack<A, W>;

  // In elements of A: fp64 tables [state] of q, u, w, q^block, the power at the chunk's first position, and (backward) two totals; then q^i of
  // the block's positions [state][pack][thread]; anchors [state][block of the chunk]; and (backward) partial sums [kind][state][pack][thread].
  static constexpr int vectorizable = int(sizeof(double) / sizeof(A)), table = round_up(7 * N * vectorizable, 16);
  static constexpr int own = packs * group_size * W, anchor = table + N * own, sums = round_up(anchor + N * chunk, 16);
  static constexpr size_t shared_memory_elements = size_t(sums + (Backward ? 2 * N * own : 0));
  static constexpr index_t items(params_type const& p) { return Backward ? p.grad_kappa.extent[0] : p.kappa.extent[0]; }

  Group group;
  params_type const& params;
  A* shared_memory;
  TCNCA_HOST_DEVICE ema_kernel_agent(Group g, params_type const& p, A* shared_memory, A*)
      : group(g), params(p), shared_memory(shared_memory) {}

  TCNCA_HOST_DEVICE void operator()(index_t row) const {
    begin(row);
    index_t const length = Backward ? params.grad_kappa.extent[1] : params.kappa.extent[1];
    for (index_t first = 0; first < length; first += block * chunk) {
      group.sync();
      for (int n = group.rank(); n < N; n += group.size()) {
        double power = wide_at(anchor_power)[n];
        for (int b = 0; b < chunk; b++, power *= wide_at(step)[n]) shared_memory[anchor + n * chunk + b] = A(power);
        wide_at(anchor_power)[n] = power;
      }
      group.sync();
      if constexpr (Backward) {
        gather(row, first, length);
        if ((first / (block * chunk) + 1) % chunks_of_a_sum == 0) add_to_totals();
      } else {
        generate(row, first, length);
      }
    }
    if constexpr (Backward) { finish(row, length); }
    group.sync();  // the next item reuses the memory
  }

 private:
  enum { q, u, w, step, anchor_power, of_power, of_moment };
  // A partial sum in A has at most 1024 terms. It is then added to the fp64 totals.
  static constexpr index_t chunks_of_a_sum = 1024 / chunk;
  TCNCA_HOST_DEVICE double* wide_at(int kind) const { return reinterpret_cast<double*>(shared_memory) + kind * N; }
  /// The first position of this thread's pack j in a block.
  TCNCA_HOST_DEVICE int place(int j) const { return (j * group_size + group.rank()) * W; }
  TCNCA_HOST_DEVICE value get(int at) const { return load<W>(const_cast<A const*>(shared_memory + at)); }

  TCNCA_HOST_DEVICE static double sigmoid(A x) { return detail::sigmoid(broadcast<1>(double(x))).lane(0); }
  TCNCA_HOST_DEVICE static double raise(double x, int n) {
    double y = 1;
    for (; n > 0; n /= 2, x *= x)
      if (n % 2 == 1) y *= x;
    return y;
  }

  TCNCA_HOST_DEVICE void begin(index_t row) const {
    auto const& from = params.parameters;
    for (int n = group.rank(); n < N; n += group.size()) {
      double const p = sigmoid(*from.delta.at(row, n)), a = sigmoid(*from.alpha.at(row, n));
      wide_at(q)[n] = 1 - p * a;
      wide_at(u)[n] = p * double(*from.beta.at(row, n));
      wide_at(w)[n] = double(*from.gamma.at(row, n)) * detail::ema_scale<N>;
      wide_at(step)[n] = raise(1 - p * a, block);
      wide_at(anchor_power)[n] = Backward ? 1 : wide_at(u)[n] * wide_at(w)[n];
      wide_at(of_power)[n] = wide_at(of_moment)[n] = 0;
    }
    group.sync();
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
    for (int n = 0; n < N; n++)
      for (int j = 0; j < packs; j++) {
        double const decay = wide_at(q)[n];
        double power_of_q = raise(decay, place(j));
        for (int i = 0; i < W; i++, power_of_q *= decay) shared_memory[table + n * own + place(j) + i] = A(power_of_q);
        if constexpr (Backward) {
          for (int kind = 0; kind < 2; kind++)
            store<W>(shared_memory + sums + (kind * N + n) * own + place(j), broadcast<W>(A(0)));
        }
      }
  }

  TCNCA_HOST_DEVICE void generate(index_t row, index_t first, index_t length) const {
    for (int b = 0; b < chunk && first + b * block < length; b++) {
      detail::array<value, packs> sum;
      unroll<0, packs>([&](auto j) { sum[j] = broadcast<W>(A(0)); });
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
      for (int n = 0; n < N; n++) {
        value const scale = broadcast<W>(shared_memory[anchor + n * chunk + b]);
        unroll<0, packs>([&](auto j) { sum[j] = fma(scale, get(table + n * own + place(j)), sum[j]); });
      }
      unroll<0, packs>([&](auto j) {
        index_t const l = first + b * block + place(j);
        if (l + W <= length) store<W>(params.kappa.at(row, l), sum[j]);
        else if (l < length) store_some<W>(params.kappa.at(row, l), 1, length - l, sum[j]);
      });
    }
  }

  /// Sums over the blocks, for each place in a block: of grad q^l', and of l' grad q^l', where l' is the block's first position.
  TCNCA_HOST_DEVICE void gather(index_t row, index_t first, index_t length) const {
    auto const read = [&](index_t l) {
      if (l + W <= length) return load<W>(params.grad_kappa.at(row, l));
      return l < length ? load_some<W>(params.grad_kappa.at(row, l), 1, length - l) : broadcast<W>(A(0));
    };
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
    for (int n = 0; n < N; n++) {
      detail::array<value, packs> plain, moment;
      A* const at = shared_memory + sums + n * own;
      unroll<0, packs>([&](auto j) {
        plain[j] = load<W>(const_cast<A const*>(at + place(j)));
        moment[j] = load<W>(const_cast<A const*>(at + N * own + place(j)));
      });
      for (int b = 0; b < chunk && first + b * block < length; b++) {
        index_t const l = first + b * block;
        value const scale = broadcast<W>(shared_memory[anchor + n * chunk + b]),
                    moment_scale = scale * broadcast<W>(A(l));
        unroll<0, packs>([&](auto j) {
          value const g = read(l + place(j));
          plain[j] = fma(scale, g, plain[j]);
          moment[j] = fma(moment_scale, g, moment[j]);
        });
      }
      unroll<0, packs>(
          [&](auto j) { store<W>(at + place(j), plain[j]), store<W>(at + N * own + place(j), moment[j]); });
    }
  }

  /// Adds the partial sums of all places to the fp64 totals and resets them to zero.
  TCNCA_HOST_DEVICE void add_to_totals() const {
    group.sync();
    for (int n = group.rank(); n < N; n += group.size()) {
      A *const plain_at = shared_memory + sums + n * own, *const moment_at = plain_at + N * own;
      for (int i = 0; i < own; i++) {
        double const power_of_q = double(shared_memory[table + n * own + i]), plain = double(plain_at[i]);
        wide_at(of_power)[n] += power_of_q * plain;
        wide_at(of_moment)[n] += power_of_q * (double(moment_at[i]) + i * plain);
        plain_at[i] = moment_at[i] = A(0);
      }
    }
  }

  TCNCA_HOST_DEVICE void finish(index_t row, index_t length) const {
    add_to_totals();
    for (int n = group.rank(); n < N; n += group.size()) {  // this thread wrote these totals: no barrier
      double const decay = wide_at(q)[n], of_w = wide_at(u)[n] * wide_at(of_power)[n],
                   of_u = wide_at(w)[n] * wide_at(of_power)[n];
      // sum of l q^(l-1) grad; a decay of zero leaves its second term
      double const derivative = decay > 0    ? wide_at(of_moment)[n] / decay
                                : length > 1 ? double(*params.grad_kappa.at(row, 1))
                                             : 0;
      params.gradients.store(params.parameters, row, n, A(detail::ema_scale<N>), of_u, of_w,
                             wide_at(u)[n] * wide_at(w)[n] * derivative);
    }
  }
};

}  // namespace tcnca
