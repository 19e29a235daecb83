// The backward pass of an EMA. The gradient of the states runs against the states themselves, as an EMA of its own:
//   l[t] = g[t] + q l[t+1],   grad_x[t] = sum of u w l[t],   and its derivative by q,   e[t] = l[t+1] + q e[t+1],
// where g is grad_y through the final SiLU. Then grad of (u w) = sum of l x and grad of q = u w sum of e x: no state of the forward pass is
// needed again. Only the final SiLU needs y, which is computed again first; g is kept in the workspace of the group, an element a position.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What a backward pass is given; the same for all groups.
template <element T>
struct ema_backward_params {
  ema_parameters<accumulate_t<T>> parameters;
  sequence_view<T const> x;
  sequence_view<accumulate_t<T> const> state_in;
  sequence_view<T const> grad_y;
  sequence_view<accumulate_t<T> const> grad_state_out;
  sequence_view<T> grad_x;
  sequence_view<accumulate_t<T>> grad_state_in;
  tensor_view<double, 3> sums;  // [batch, 3 states + 1, halves * channels]: gradients of u, w, q of each state; of omega
  bool x_vectorizable = false, grad_y_vectorizable = false, grad_x_vectorizable = false;
};

/// The backward pass of one item: some channels of one sequence. Memory: shared_memory_elements, global_scratch_elements.
template <class Group, element T, ema_shape Shape, ema_policy Policy, class Scan = group_scan>
struct ema_backward_agent : detail::ema_group<Group, T, Shape, Policy, Scan> {
  using base = detail::ema_group<Group, T, Shape, Policy, Scan>;
  using typename base::A, typename base::value, typename base::tiling, typename base::memory, typename base::share;
  using base::group, base::shared_memory, base::N, base::W, base::channels, base::shared, base::run, base::worker_,
      base::pack_;
  using group_type = Group;
  using params_type = ema_backward_params<T>;
  static constexpr int group_size = Group::size(), workers = tiling::workers;
  static constexpr bool bidirectional = Shape.directions() == 2;

  // States before a tile: h forward; of l and e backward, those driven by g and then those that come from grad_state_out.
  static constexpr int carry = memory::first, back = carry + memory::table, back_derivative = back + 2 * memory::table;
  static constexpr int terminal = back_derivative + 2 * memory::table, tile_x = round_up(terminal + memory::table, 16);
  static constexpr int tile_g = tile_x + round_up(tiling::buffer, 16), other = tile_g + round_up(tiling::buffer, 16);
  static constexpr int table = other + (bidirectional ? round_up(tiling::buffer, 16) : 0);
  static constexpr int slots = shared ? tiling::slots(N) : 0, stage = table + 2 * slots,
                       scratch = stage + tiling::stage;
  static constexpr int sums =
      scratch + int(round_up(Scan::template bytes<dual<A>, group_size> / sizeof(A) + 1, size_t(16)));
  static constexpr int sum_width = group_size * W;
  static constexpr size_t shared_memory_elements(params_type const& p) {
    return size_t(sums + (4 * N + 1) * sum_width - (p.grad_state_out.given() ? 0 : 2 * N * sum_width));
  }
  // A thread sums at most this many terms in A. In longer sequences the partial sums are added to fp64 totals, one for each sum of a channel.
  static constexpr int longest_sum = 1024, tiles_of_a_sum = max_of(1, longest_sum / (run * Policy.runs));
  TCNCA_HOST_DEVICE static constexpr bool is_long(params_type const& p) {
    return p.x.extent[2] > index_t(tiles_of_a_sum) * tiling::tile;
  }
  TCNCA_HOST_DEVICE static constexpr size_t total_elements(params_type const& p) {
    return is_long(p) ? size_t((4 * N + 1) * channels) * (sizeof(double) / sizeof(A)) : 0;
  }
  static constexpr size_t global_scratch_elements(params_type const& p) {
    return total_elements(p) + size_t(p.x.extent[2]) * channels * ((Shape.skip ? 1 : 0) + (bidirectional ? 1 : 0));
  }
  static constexpr index_t items(params_type const& p) { return base::items(p.x.extent[0], p.x.extent[1]); }

  params_type const& params;
  A *scratch_g, *scratch_x;
  TCNCA_HOST_DEVICE ema_backward_agent(Group g, params_type const& p, A* shared_memory, A* global_scratch)
      : base(g, shared_memory),
        params(p),
        scratch_g(global_scratch + total_elements(p)),
        scratch_x(scratch_g + (Shape.skip ? p.x.extent[2] * channels : 0)),
        totals_(is_long(p) ? reinterpret_cast<double*>(global_scratch) : nullptr) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const groups = divide_up(params.x.extent[1], index_t(channels));
    batch_ = item / groups;
    channel_ = item % groups * channels;
    x_ = {params.x, batch_, channel_, params.x_vectorizable};
    grad_y_ = {params.grad_y, batch_, channel_, params.grad_y_vectorizable};
    grad_x_ = {params.grad_x, batch_, channel_, params.grad_x_vectorizable};
    if constexpr (Shape.skip) {
      if (params.state_in.present()) recompute_forward<0, true>();
      else recompute_forward<0, false>();
      if constexpr (bidirectional) { recompute_forward<1, false>(); }
    }
    adjoint<0>();
    if constexpr (bidirectional) { adjoint<1>(); }
  }

 private:
  double* totals_;  // [kind][channel]; null where the sequence is short
  index_t batch_, channel_;
  detail::ema_sequence<Group, T const, tiling> x_, grad_y_;
  detail::ema_sequence<Group, T, tiling> grad_x_;

  TCNCA_HOST_DEVICE A* scratch_at(A* global_scratch, index_t t) const { return global_scratch + t * channels; }
  TCNCA_HOST_DEVICE value state_of(sequence_view<A const> const& state, int n, int c, int count) const {
    return state.present() ? this->load_state(state, batch_, channel_ + c, n, count) : broadcast<W>(A(0));
  }
  TCNCA_HOST_DEVICE void begin(int half) const {
    this->load_coefficients(params.parameters, channel_, x_.existing, half * params.x.extent[1]);
    this->for_each_row(x_.existing, [&](int r, int n, int c, int count) {
      this->put(carry, r, state_of(params.state_in, n, c, count));
      this->put(terminal, r, state_of(params.grad_state_out, n, c, count));
      for (int part = 0; part < 2; part++)
        this->put(back, part * N * tiling::packs + r, broadcast<W>(A(0))),
            this->put(back_derivative, part * N * tiling::packs + r, broadcast<W>(A(0)));
    });
  }

  /// y once more, for the derivative of the final SiLU: g to far memory.
  template <int Direction, bool Exact>
  TCNCA_HOST_DEVICE void recompute_forward() const {
    constexpr bool Reverse = Direction == 1, last = Direction + 1 == Shape.directions();
    begin(Direction);
    this->template for_each_tile<Reverse>(params.x.extent[2], [&](index_t first, int n) {
      group.sync();  // the tile before has been stored
      x_.load(group, first, n, shared_memory + tile_x, shared_memory + stage);
      if (last) grad_y_.load(group, first, n, shared_memory + tile_g, shared_memory + stage);
      if (bidirectional && last) this->copy(scratch_at(scratch_g, first), shared_memory + other, n * channels);
      group.sync();
      value const omega = this->omega();
      auto const prepare = [&](int r) TCNCA_INLINE {  // GCC drops the call of a function that only prefetches
        x_.prefetch(this->template after<Reverse>(first, n), r, params.x.extent[2]);
        if (last) grad_y_.prefetch(this->template after<Reverse>(first, n), r, params.x.extent[2]);
      };
      this->template recurrence<Reverse, Exact>(
          shared_memory + tile_x, n, carry, table, scratch, prepare, [&](int at, value x, value y) TCNCA_INLINE {
            A* const g = shared_memory + tile_g + at;
            if constexpr (bidirectional && last) { y = y + load<W>(const_cast<A const*>(shared_memory + other + at)); }
            if constexpr (last) {
              y = load<W>(const_cast<A const*>(g)) * activate<activation::silu>(fma(omega, x, y)).derivative;
            }
            store<W>(g, y);
          });
      group.sync();
      this->copy(shared_memory + tile_g, scratch_at(scratch_g, first), n * channels);
    });
    group.sync();
  }

  /// The gradients of one half, against the order of its own walk.
  template <int Direction>
  TCNCA_HOST_DEVICE void adjoint() const {
    constexpr bool Reverse = Direction == 0, last = Direction + 1 == Shape.directions();
    bool const state = params.grad_state_out.present();
    begin(Direction);
    for (int i = 0; i < kinds(); i++) store<W>(sum_at(i), broadcast<W>(A(0)));
    for (int j = group.rank(); totals_ && j < kinds() * channels; j += group.size()) totals_[j] = 0;
    bool start = true;
    int tiles = 0;
    this->template for_each_tile<Reverse>(params.x.extent[2], [&](index_t first, int n) {
      group.sync();
      x_.load(group, first, n, shared_memory + tile_x, shared_memory + stage);
      if constexpr (Shape.skip) {
        this->copy(scratch_at(scratch_g, first), shared_memory + tile_g, n * channels);
      } else {
        grad_y_.load(group, first, n, shared_memory + tile_g, shared_memory + stage);
      }
      if (bidirectional && last) this->copy(scratch_at(scratch_x, first), shared_memory + other, n * channels);
      group.sync();
      index_t const next = this->template after<Reverse>(first, n);
      for (int r = 0; r < Policy.runs; r++) {
        share const mine = this->template share_of<Reverse>(r, n);
        if (!shared && mine.count == 0) break;
        x_.prefetch(next, r, params.x.extent[2]);
        if (!Shape.skip) grad_y_.prefetch(next, r, params.x.extent[2]);
        if (last) grad_x_.prefetch(next, r, params.x.extent[2]);
        bool const injects = start && r == 0 && worker_ == 0;
        run_of<Direction, true>(mine, injects);
        if (state) {
          if constexpr (shared) { group.sync(); }  // the table is used again
          run_of<Direction, false>(mine, injects);
        }
      }
      start = false;
      group.sync();
      if constexpr (last) {
        grad_x_.store(group, first, n, shared_memory + tile_g, shared_memory + stage);
      } else {
        this->copy(shared_memory + tile_g, scratch_at(scratch_x, first), n * channels);
      }
      if (totals_ && ++tiles % tiles_of_a_sum == 0) add_to_totals();
    });
    group.sync();
    finish(Direction);
    group.sync();  // the next walk reuses the memory
  }

  /// This thread's run of a tile: grad_x comes in the place of g. Driven: what comes from g; else, added, what comes from grad_state_out
  /// alone, which enters with the first position of the walk.
  template <int Direction, bool Driven>
  TCNCA_HOST_DEVICE void run_of(share const& mine, bool injects) const {
    if constexpr (shared) { scan_states<Driven>(mine, injects); }
    if (mine.count == run) part<run, Direction, Driven>(mine, 0, injects);
    else
      for (int i = 0; i < mine.count; i++) part<1, Direction, Driven>(mine, i, injects && i == 0);
  }

  /// Threads that share a sequence: the states before each one's run, into the table.
  template <bool Driven>
  TCNCA_HOST_DEVICE void scan_states(share const& mine, bool injects) const {
    spread_table<dual<A>> const slots_at{shared_memory + table, slots};
    if (worker_ < workers) {
      value g[run];
      if constexpr (Driven) { this->load_run(shared_memory + tile_g, mine, 0, g); }
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
      for (int s = 0; s < N; s++) {
        int const k = this->row(s);
        value const q = this->get(memory::q, k);
        value l = broadcast<W>(A(0)), e = l;
        if constexpr (Driven) {
          l = g[0];
        } else {
          if (injects) l = this->get(terminal, k);
        }
        unroll<1, run>([&](auto i) {
          e = fma(q, e, l);
          if constexpr (Driven) {
            l = fma(q, l, g[i]);
          } else {
            l = q * l;
          }
        });
        slots_at.store(k * workers + worker_, {l.lane(0), e.lane(0)});
      }
    }
    group.sync();
    constexpr int shift = (Driven ? 0 : N) * tiling::packs;
    scan_rows<workers, Scan>(
        group, slots_at, N * tiling::packs, shared_memory + scratch,
        [&](int i) {
          return dual<A>{shared_memory[memory::run_decay + i], shared_memory[memory::run_derivative + i]};
        },
        [&](int i) {
          return dual<A>{shared_memory[back + shift + i], shared_memory[back_derivative + shift + i]};
        });
    group.sync();
  }

  /// Count positions of a run: all of them, or a single one where the sequence ends within it.
  template <int Count, int Direction, bool Driven>
  TCNCA_HOST_DEVICE void part(share const& mine, int first, bool injects) const {
    detail::array<value, Count> x, g, grad_x;
    this->load_run(shared_memory + tile_x, mine, first, x);
    this->load_run(shared_memory + tile_g, mine, first, g);
    if constexpr (!Driven) {
      unroll<0, Count>([&](auto i) { grad_x[i] = g[i]; });
    } else if constexpr (Shape.skip && Direction == 0) {
      value const omega = this->omega();
      value of_omega = load<W>(const_cast<A const*>(sum_at(2 * N)));
      unroll<0, Count>([&](auto i) { grad_x[i] = omega * g[i], of_omega = fma(g[i], x[i], of_omega); });
      store<W>(sum_at(2 * N), of_omega);
    } else {
      unroll<0, Count>([&](auto i) { grad_x[i] = broadcast<W>(A(0)); });
    }
    int s = 0;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (; s + Policy.together <= N; s += Policy.together)
      states<Policy.together, Driven>(mine, first, s, injects, x, g, grad_x);
    if constexpr (N % Policy.together != 0) {
      for (; s < N; s++) states<1, Driven>(mine, first, s, injects, x, g, grad_x);
    }
    unroll<0, Count>([&](auto i) {
      int const at = mine.offset + (first + i) * mine.step;
      if constexpr (bidirectional && Direction == 1) {
        grad_x[i] = grad_x[i] + load<W>(const_cast<A const*>(shared_memory + other + at));
      }
      store<W>(shared_memory + tile_g + at, grad_x[i]);
    });
  }

  /// Those of States states from s on, side by side.
  template <int States, bool Driven, int Count>
  TCNCA_HOST_DEVICE void states(share const& mine, int first, int s, bool injects, detail::array<value const, Count>& x,
                                detail::array<value const, Count>& g, detail::array<value, Count>& grad_x) const {
    bool const ends = !shared || (mine.last && first + Count == mine.count);
    spread_table<dual<A>> const slots_at{shared_memory + table, slots};
    A* const k = this->at(memory::q, this->row(s));
    A* const c = this->at(back + (Driven ? 0 : N) * channels, this->row(s));
    A* const sum = sum_at((Driven ? 0 : 2 * N + 1) + 2 * s);
    int const slot = this->row(s) * workers + worker_;
    constexpr int derivative = back_derivative - back;
    detail::array<value, States> q, weight, l, e, of_l, of_e;
    unroll<0, States>([&](auto j) {
      q[j] = load<W>(k + j * channels), weight[j] = load<W>(k + (Driven ? memory::uw : memory::u) + j * channels);
      of_l[j] = load<W>(const_cast<A const*>(sum + 2 * j * sum_width)),
      of_e[j] = load<W>(const_cast<A const*>(sum + (2 * j + 1) * sum_width));
      if constexpr (shared) {
        auto const before = slots_at.load(slot + j * base::next_slot);
        l[j] = broadcast<W>(before.value), e[j] = broadcast<W>(before.derivative);
      } else {
        l[j] = load<W>(const_cast<A const*>(c + j * channels)),
        e[j] = load<W>(const_cast<A const*>(c + derivative + j * channels));
      }
    });
    unroll<0, Count>([&](auto i) {
      unroll<0, States>([&](auto j) {
        e[j] = fma(q[j], e[j], l[j]);
        if constexpr (Driven) {
          l[j] = fma(q[j], l[j], g[i]);
        } else {
          l[j] = i == 0 && injects ? load<W>(k + (terminal - memory::q) + j * channels) : q[j] * l[j];
        }
        of_e[j] = fma(e[j], x[i], of_e[j]);
      });
      unroll<0, States>([&](auto j) {
        grad_x[i] = fma(weight[j], l[j], grad_x[i]);
        of_l[j] = fma(l[j], x[i], of_l[j]);
      });
    });
    unroll<0, States>([&](auto j) {
      store<W>(sum + 2 * j * sum_width, of_l[j]), store<W>(sum + (2 * j + 1) * sum_width, of_e[j]);
      if constexpr (shared && Count == 1) { slots_at.store(slot + j * base::next_slot, {l[j].lane(0), e[j].lane(0)}); }
      if (ends) store<W>(c + j * channels, l[j]), store<W>(c + derivative + j * channels, e[j]);
    });
  }

  /// This thread's own sum i.
  TCNCA_HOST_DEVICE A* sum_at(int i) const { return shared_memory + sums + i * sum_width + group.rank() * W; }

  /// Sums of a channel: two a state for what g drives, one for omega, and, with grad_state_out, two a state for what that drives.
  TCNCA_HOST_DEVICE int kinds() const { return (params.grad_state_out.present() ? 4 : 2) * N + 1; }
  /// Adds the threads' partial sums to the fp64 totals and resets them to zero. Needs a barrier before the call, and one before threads add again.
  TCNCA_HOST_DEVICE void add_to_totals() const {
    if constexpr (group_size == 1) {
      A* const own = sum_at(0);
      for (int j = 0; j < kinds() * W; j++) totals_[j] += double(own[j]), own[j] = A(0);
    } else {
      for (int j = group.rank(); j < kinds() * channels; j += group.size()) {
        int const c = j % channels, i = j / channels;
        totals_[j] += double(total(i, c, j));
        for (int w = 0; w < workers; w++) shared_memory[sums + i * sum_width + c + w * channels] = A(0);
      }
    }
  }

  /// The threads' sums of channel c in a fixed order: another for each of the threads that add them up, so that they do not collide.
  TCNCA_HOST_DEVICE A total(int i, int c, int start) const {
    A const* const all = shared_memory + sums + i * sum_width + c;  // W == 1, or one thread
    A sum = 0;
    for (int w = 0, at = start % workers; w < workers; w++, at = at + 1 < workers ? at + 1 : 0)
      sum += all[at * channels];
    return sum;
  }

  /// What the walk has summed up: the gradients of u, w, q of each state, of omega, of state_in.
  TCNCA_HOST_DEVICE void finish(int half) const {
    bool const state = params.grad_state_out.present();
    if (totals_) {
      add_to_totals();
    } else {
      for (int j = group.rank(); j < kinds() * channels; j += group.size()) {
        int const c = j % channels, i = j / channels;
        shared_memory[sums + i * sum_width + c] = total(i, c, j);  // no other thread reads this slot
      }
    }
    group.sync();
    index_t const half_row = half * params.x.extent[1];
    auto const sum_of = [&](int i, int c) {
      return totals_ ? totals_[i * channels + c] : double(shared_memory[sums + i * sum_width + c]);
    };
    if (Shape.skip && half == 0)
      for (int c = group.rank(); c < x_.existing; c += group.size())
        *params.sums.at(batch_, 3 * N, channel_ + c) = sum_of(2 * N, c);
    for (int j = group.rank(); j < N * channels; j += group.size()) {
      int const c = j % channels, n = j / channels;
      if (c >= x_.existing) continue;
      auto const sum = [&](int i) { return sum_of(i, c); };
      A const q = shared_memory[memory::q + j], u = shared_memory[memory::u + j], w = shared_memory[memory::w + j],
              h = half == 0 ? initial(n, c) : A(0);
      A const l = shared_memory[back + j], e = shared_memory[back_derivative + j];
      double const of_l = sum(2 * n), of_e = sum(2 * n + 1);
      double of_u = double(w) * of_l, of_w = double(u) * of_l + double(q * h * l);
      double of_q = double(w) * (double(u) * of_e + double(h * (l + q * e)));
      A of_h = w * q * l;
      if (state) {
        A const end = shared_memory[back + N * channels + j],
                derivative = shared_memory[back_derivative + N * channels + j];
        of_u += sum(2 * N + 1 + 2 * n);
        of_q += double(u) * sum(2 * N + 2 + 2 * n) + double(h * (end + q * derivative));
        of_h += params.x.extent[2] > 0 ? q * end : shared_memory[terminal + j];
      }
      *params.sums.at(batch_, 3 * n, half_row + channel_ + c) = of_u;
      *params.sums.at(batch_, 3 * n + 1, half_row + channel_ + c) = of_w;
      *params.sums.at(batch_, 3 * n + 2, half_row + channel_ + c) = of_q;
      if (params.grad_state_in.present()) *params.grad_state_in.at(batch_, channel_ + c, n) = of_h;
    }
  }
  TCNCA_HOST_DEVICE A initial(int n, int c) const {
    return params.state_in.present() ? *params.state_in.at(batch_, channel_ + c, n) : A(0);
  }
};

}  // namespace tcnca
