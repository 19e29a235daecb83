// The convolution kernel of an EMA, kappa[l] = sum of u w q^l over the states, and its gradient. No element needs a
// power of its own: with blocks of B positions, q^(b B + i) = q^(b B) q^i is the product of two table entries. The
// tables are built in fp64, so that long kernels are accurate.
#pragma once
#include "../block/agent.hpp"
#include "../block/unroll.hpp"
#include "coefficients.hpp"
#include "tuning.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Forward: parameters, kappa. Backward: parameters, grad_kappa, gradients. kappa, grad_kappa: [rows of the parameters,
/// length].
template <class A>
struct ema_kernel_params {
  ema_parameters<A> parameters = {};
  tensor_view<A, 2> kappa = {};
  tensor_view<A const, 2> grad_kappa = {};
  ema_gradients<A> gradients = {};
};

/// One item: the kernel of one row of parameters, or (Backward) the gradients of that row. The group computes
/// chunk_blocks blocks of positions between barriers.
template <class Group, element T, ema_shape Shape, ema_policy Policy, bool Backward>
struct ema_kernel_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = ema_kernel_params<A>;
  static constexpr int N = Shape.states, W = Policy.width, threads = Group::size(), packs = threads > 1 ? 1 : 4;
  static constexpr int block = threads * W * packs, chunk_blocks = 16;
  using value = pack<A, W>;

  // Shared memory, in elements of A: fp64 tables [state], see `table`; q^i of the positions i of a block
  // [state][position]; u w q^l (backward: q^l) of the first position l of each block [state][block of the chunk];
  // backward: partial sums [kind][state][position].
  static constexpr int fp64_tables = 7, elements_per_double = int(sizeof(double) / sizeof(A));
  static constexpr int powers_begin = round_up(fp64_tables * N * elements_per_double, 16);
  static constexpr int factors_begin = powers_begin + N * block;
  static constexpr int sums_begin = round_up(factors_begin + N * chunk_blocks, 16);
  static constexpr int shared_elements = sums_begin + (Backward ? 2 * N * block : 0);

  Group group;
  params_type const& params;
  A* shared_memory;
  TCNCA_HOST_DEVICE ema_kernel_agent(Group g, params_type const& p, A* shared, A*)
      : group(g), params(p), shared_memory(shared) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return Backward ? p.grad_kappa.extent[0] : p.kappa.extent[0];
  }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) {
    return {.shared_memory_bytes = shared_elements * sizeof(A)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t row) const {
    build_tables(row);
    index_t const length = Backward ? params.grad_kappa.extent[1] : params.kappa.extent[1];
    for (index_t first = 0; first < length; first += block * chunk_blocks) {
      group.sync();
      for (int n = group.rank(); n < N; n += group.size()) {
        double power = fp64(chunk_power)[n];
        for (int b = 0; b < chunk_blocks; b++, power *= fp64(block_decay)[n])
          shared_memory[factors_begin + n * chunk_blocks + b] = A(power);
        fp64(chunk_power)[n] = power;
      }
      group.sync();
      if constexpr (Backward) {
        add_chunk(row, first, length);
        if ((first / (block * chunk_blocks) + 1) % chunks_per_sum == 0) add_to_totals();
      } else {
        store_chunk(row, first, length);
      }
    }
    if constexpr (Backward) { store_gradients(row, length); }
    group.sync();  // the next item reuses the memory
  }

 private:
  /// fp64 tables: the coefficients; q^block; the factor of the next chunk's first position; totals of q^l grad and of l
  /// q^l grad.
  enum table { q, u, w, block_decay, chunk_power, total, total_moment };
  // A partial sum in A has at most 1024 terms, then it is added to the fp64 totals.
  static constexpr index_t chunks_per_sum = 1024 / chunk_blocks;

  TCNCA_HOST_DEVICE double* fp64(table t) const { return reinterpret_cast<double*>(shared_memory) + int(t) * N; }
  /// The first position in a block of this thread's pack j.
  TCNCA_HOST_DEVICE int position(int j) const { return (j * threads + group.rank()) * W; }
  TCNCA_HOST_DEVICE value power(int n, int j) const {
    return load<W>(const_cast<A const*>(shared_memory + powers_begin + n * block + position(j)));
  }
  TCNCA_HOST_DEVICE A factor(int n, int b) const { return shared_memory[factors_begin + n * chunk_blocks + b]; }

  TCNCA_HOST_DEVICE static double sigmoid(A x) { return detail::sigmoid(broadcast<1>(double(x))).lane(0); }
  /// x^n by repeated squaring.
  TCNCA_HOST_DEVICE static double integer_power(double x, int n) {
    double y = 1;
    for (; n > 0; n /= 2, x *= x)
      if (n % 2 == 1) y *= x;
    return y;
  }

  TCNCA_HOST_DEVICE void build_tables(index_t row) const {
    auto const& parameters = params.parameters;
    for (int n = group.rank(); n < N; n += group.size()) {
      double const p = sigmoid(*parameters.delta.at(row, n)), a = sigmoid(*parameters.alpha.at(row, n));
      fp64(q)[n] = 1 - p * a;
      fp64(u)[n] = p * double(*parameters.beta.at(row, n));
      fp64(w)[n] = double(*parameters.gamma.at(row, n)) * detail::ema_scale<N>;
      fp64(block_decay)[n] = integer_power(1 - p * a, block);
      fp64(chunk_power)[n] = Backward ? 1 : fp64(u)[n] * fp64(w)[n];
      fp64(total)[n] = fp64(total_moment)[n] = 0;
    }
    group.sync();
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
    for (int n = 0; n < N; n++)
      for (int j = 0; j < packs; j++) {
        double const decay = fp64(q)[n];
        double power = integer_power(decay, position(j));
        for (int i = 0; i < W; i++, power *= decay)
          shared_memory[powers_begin + n * block + position(j) + i] = A(power);
        if constexpr (Backward) {
          for (int kind = 0; kind < 2; kind++)
            store<W>(shared_memory + sums_begin + (kind * N + n) * block + position(j), broadcast<W>(A(0)));
        }
      }
  }

  TCNCA_HOST_DEVICE void store_chunk(index_t row, index_t first, index_t length) const {
    for (int b = 0; b < chunk_blocks && first + b * block < length; b++) {
      detail::array<value, packs> sum;
      unroll<0, packs>([&](auto j) { sum[j] = broadcast<W>(A(0)); });
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
      for (int n = 0; n < N; n++) {
        value const f = broadcast<W>(factor(n, b));
        unroll<0, packs>([&](auto j) { sum[j] = fma(f, power(n, j), sum[j]); });
      }
      unroll<0, packs>([&](auto j) {
        index_t const l = first + b * block + position(j);
        if (l + W <= length) store<W>(params.kappa.at(row, l), sum[j]);
        else if (l < length) store_some<W>(params.kappa.at(row, l), 1, length - l, sum[j]);
      });
    }
  }

  /// For each position of a block, adds over the blocks: q^l' grad and l' q^l' grad, where l' is the block's first
  /// position.
  TCNCA_HOST_DEVICE void add_chunk(index_t row, index_t first, index_t length) const {
    auto const read = [&](index_t l) {
      if (l + W <= length) return load<W>(params.grad_kappa.at(row, l));
      return l < length ? load_some<W>(params.grad_kappa.at(row, l), 1, length - l) : broadcast<W>(A(0));
    };
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
    for (int n = 0; n < N; n++) {
      detail::array<value, packs> sum, moment;
      A *const sums = shared_memory + sums_begin + n * block, *const moments = sums + N * block;
      unroll<0, packs>([&](auto j) {
        sum[j] = load<W>(const_cast<A const*>(sums + position(j)));
        moment[j] = load<W>(const_cast<A const*>(moments + position(j)));
      });
      for (int b = 0; b < chunk_blocks && first + b * block < length; b++) {
        index_t const l = first + b * block;
        value const f = broadcast<W>(factor(n, b)), moment_f = f * broadcast<W>(A(l));
        unroll<0, packs>([&](auto j) {
          value const g = read(l + position(j));
          sum[j] = fma(f, g, sum[j]);
          moment[j] = fma(moment_f, g, moment[j]);
        });
      }
      unroll<0, packs>(
          [&](auto j) { store<W>(sums + position(j), sum[j]), store<W>(moments + position(j), moment[j]); });
    }
  }

  /// Adds the partial sums of all positions to the fp64 totals and sets them to zero. Called by all threads; a barrier
  /// must follow.
  TCNCA_HOST_DEVICE void add_to_totals() const {
    group.sync();
    for (int n = group.rank(); n < N; n += group.size()) {
      A *const sums = shared_memory + sums_begin + n * block, *const moments = sums + N * block;
      for (int i = 0; i < block; i++) {
        double const q_i = double(shared_memory[powers_begin + n * block + i]), sum = double(sums[i]);
        fp64(total)[n] += q_i * sum;
        fp64(total_moment)[n] += q_i * (double(moments[i]) + i * sum);
        sums[i] = moments[i] = A(0);
      }
    }
  }

  TCNCA_HOST_DEVICE void store_gradients(index_t row, index_t length) const {
    add_to_totals();
    for (int n = group.rank(); n < N; n += group.size()) {  // no barrier: this thread wrote these totals
      double const decay = fp64(q)[n], grad_w = fp64(u)[n] * fp64(total)[n], grad_u = fp64(w)[n] * fp64(total)[n];
      // The sum of l q^(l-1) grad. If q is 0, only l = 1 is left.
      double const derivative = decay > 0    ? fp64(total_moment)[n] / decay
                                : length > 1 ? double(*params.grad_kappa.at(row, 1))
                                             : 0;
      params.gradients.store(params.parameters, row, n, A(detail::ema_scale<N>), grad_u, grad_w,
                             fp64(u)[n] * fp64(w)[n] * derivative);
    }
  }
};

}  // namespace tcnca
