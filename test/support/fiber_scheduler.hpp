// The scheduler of fibers: runs the threads of a group as fibers of one CPU thread. Between two barriers the fibers run
// one after another in random order, so a missing barrier changes bits for some seed. A barrier that only some fibers
// reach is divergence and fails the launch. Under ThreadSanitizer each fiber is a thread, and only barriers order them.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <tcnca/launch/cpu.hpp>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TCNCA_TEST_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define TCNCA_TEST_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define TCNCA_TEST_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define TCNCA_TEST_TSAN 1
#endif
#if defined(TCNCA_TEST_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(TCNCA_TEST_TSAN)
#include <sanitizer/tsan_interface.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

// The race detector must not see the memory of the scheduler, which is not under test.
#define TCNCA_TEST_SCHEDULER __attribute__((noinline, no_sanitize("thread")))

namespace tcnca::testing {

/// splitmix64: a seed gives the same numbers on every machine.
struct random_bits {
  std::uint64_t state;
  TCNCA_TEST_SCHEDULER std::uint64_t operator()() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// In [0, n).
  TCNCA_TEST_SCHEDULER int below(int n) { return int(((*this)() >> 32) * std::uint64_t(n) >> 32); }
  TCNCA_TEST_SCHEDULER void permute(int* p, int n) {
    for (int i = 0; i < n; i++) p[i] = i;
    for (int i = n - 1; i > 0; i--) {
      int const j = below(i + 1), t = p[i];
      p[i] = p[j];
      p[j] = t;
    }
  }
};

#if defined(__x86_64__)
// Saves the callee-saved registers and the stack pointer of this context, and switches to the other.
// ucontext makes a system call for each switch.
__attribute__((naked, noinline)) inline void switch_stacks(void** /*save*/, void* /*load*/) {
  asm("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret");
}
#endif

/// Runs groups of fibers, one group at a time, on the thread that calls.
class fiber_scheduler {
 public:
  static constexpr int max_fibers = 4096, max_groups = 16, warp = 32, warpgroup = 128;
  using body = void (*)(void* argument, int rank);

  static fiber_scheduler& get() {
    static fiber_scheduler s;
    return s;
  }

  /// Calls f(argument, rank) for each rank in [0, n) on its own fiber. False if some fibers reach a barrier that others
  /// never reach. `group` identifies the group; only join() orders groups. `block`: the number of fibers of each group
  /// of a cluster.
  TCNCA_TEST_SCHEDULER bool run(int n, body f, void* argument, std::uint64_t seed, int group, int block = max_fibers) {
    random_.state = seed;
    body_ = f, argument_ = argument, count_ = n, block_ = block, group_ = group % max_groups;
    position_ = finished_ = waiting_ = phase_ = arrivals_count_ = arrivals_phase_ = 0;
    failed_ = false;
    random_.permute(order_, n);
    for (int i = 0; i < n; i++) {
      if (!fibers_[i].stack) create(fibers_[i]);
      fibers_[i].rank = order_[i], fibers_[i].arrived = false;
      fiber_of_[order_[i]] = i;
      states_[i] = state::ready;
    }
    for (auto& arrived : arrived_)
      for (int& a : arrived) a = 0;
    random_.permute(order_, n);
    release(&launched_);
    go(&main_, &fibers_[order_[0]]);
    if (finished_ == n) return !failed_;
    std::fprintf(
        stderr,
        "fiber_group: divergence: %d of %d fibers wait at barrier %d, %d at one of fewer, the others have returned\n",
        waiting_, n, phase_, n - finished_ - waiting_);
    acquire(&barriers_[group_][phase_ & 1]);
    for (int k = 0; k < 3; k++)
      for (int p = 0; p < max_fibers / warp; p++) acquire(&part_barriers_[group_][k][p][part_phases_[k][p] & 1]);
    for (int i = 0; i < n; i++)  // fibers that still wait are abandoned
      if (states_[i] != state::finished) abandon(fibers_[i]);
    return false;
  }

  /// Orders all work of the groups before everything after this call.
  TCNCA_TEST_SCHEDULER void join() { acquire(&done_); }

  /// Called by a fiber: returns when all fibers of the group have called it.
  TCNCA_TEST_SCHEDULER void barrier() { block_ < count_ ? part_barrier(2, block_) : cluster_barrier(); }
  /// The same for all groups of the cluster, for the fibers of the caller's warp, for those of its warpgroup.
  TCNCA_TEST_SCHEDULER void warp_barrier() { part_barrier(0, warp); }
  TCNCA_TEST_SCHEDULER void warpgroup_barrier() { part_barrier(1, warpgroup); }
  TCNCA_TEST_SCHEDULER void cluster_barrier() {
    char* const sync =
        &barriers_[group_][phase_ & 1];  // alternating: this barrier must not acquire the releases of the next
    release(sync);
    states_[current_ - fibers_] = state::waiting;
    waiting_++;
    pass_on();
    acquire(sync);
  }
  /// The halves of a barrier of the cluster, called alternately: cluster_wait returns when all fibers have called
  /// cluster_arrive. Fibers between the two calls run in any order.
  TCNCA_TEST_SCHEDULER void cluster_arrive() {
    if (current_->arrived) fail("a fiber arrives twice at a barrier of the cluster");
    current_->arrived = true, current_->arrival = arrivals_phase_;
    release(&arrivals_[group_][arrivals_phase_ & 1]);
    if (++arrivals_count_ < count_) return;
    arrivals_count_ = 0, arrivals_phase_++, position_ = random_.below(count_);
    for (int i = 0; i < count_; i++)
      if (states_[i] == state::waiting_for_arrivals) states_[i] = state::ready;
  }
  TCNCA_TEST_SCHEDULER void cluster_wait() {
    if (!current_->arrived) fail("a fiber waits at a barrier of the cluster before it arrives");
    if (current_->arrival == arrivals_phase_) {
      states_[current_ - fibers_] = state::waiting_for_arrivals;
      pass_on();
    }
    current_->arrived = false;
    acquire(&arrivals_[group_][current_->arrival & 1]);
  }
  /// Of the `most` fibers of which the caller is one.
  TCNCA_TEST_SCHEDULER void part_barrier(int kind, int most) {
    int const p = current_->rank / most, first = p * most, size = count_ - first < most ? count_ - first : most;
    char* const sync = &part_barriers_[group_][kind][p][part_phases_[kind][p] & 1];
    release(sync);
    states_[current_ - fibers_] = state::waiting_in_part;
    if (++arrived_[kind][p] == size) {
      arrived_[kind][p] = 0, position_ = random_.below(count_);  // any fiber that is ready may continue first
      part_phases_[kind][p]++;
      for (int lane = 0; lane < size; lane++) states_[fiber_of_[first + lane]] = state::ready;
    }
    pass_on();
    acquire(sync);
  }

  /// Of the fiber that calls: its rank (in its cluster), barriers that its warp, warpgroup has passed, which group of
  /// its cluster, the group's (cluster's) number; and a random number of its own.
  TCNCA_TEST_SCHEDULER int rank() const { return current_->rank; }
  TCNCA_TEST_SCHEDULER int warp_phase() const { return part_phases_[0][current_->rank / warp]; }
  TCNCA_TEST_SCHEDULER int warpgroup_phase() const { return part_phases_[1][current_->rank / warpgroup]; }
  TCNCA_TEST_SCHEDULER int block() const { return current_->rank / block_; }
  TCNCA_TEST_SCHEDULER int group() const { return group_; }
  TCNCA_TEST_SCHEDULER int random(int n) { return random_.below(n); }

  /// Called by a fiber: the launch fails.
  TCNCA_TEST_SCHEDULER void fail(char const* message) {
    if (!failed_) std::fprintf(stderr, "fiber_group: %s\n", message);
    failed_ = true;
  }

 private:
  enum class state : char { ready, waiting, waiting_in_part, waiting_for_arrivals, finished };
  struct fiber {
    void* stack = nullptr;  // lowest address that may be used
    void* saved = nullptr;  // stack pointer
    void* asan = nullptr;   // AddressSanitizer's fake stack
    void const* bottom = nullptr;
    std::size_t bytes = 0;
    void* tsan = nullptr;       // ThreadSanitizer's thread
    int rank = 0, arrival = 0;  // arrival: the phase of its last cluster_arrive
    bool arrived = false;       // and has not waited since
#if !defined(__x86_64__)
    ucontext_t context;
#endif
  };
  static constexpr std::size_t stack_bytes = 256 * 1024, page = 4096;

  fiber main_, *current_ = &main_;
  fiber fibers_[max_fibers];
  state states_[max_fibers] = {};
  int order_[max_fibers] = {}, fiber_of_[max_fibers] = {};  // fiber_of_: a rank
  int arrived_[3][max_fibers / warp] = {},
                               part_phases_[3][max_fibers / warp] = {};  // of warps, warpgroups, groups of a cluster
  bool failed_ = false;
  random_bits random_{0};
  body body_ = nullptr;
  void* argument_ = nullptr;
  int count_ = 0, block_ = 0, group_ = 0, position_ = 0, finished_ = 0, waiting_ = 0, phase_ = 0;
  int arrivals_count_ = 0, arrivals_phase_ = 0;
  char launched_ = 0, done_ = 0, barriers_[max_groups][2] = {}, arrivals_[max_groups][2] = {},
       part_barriers_[max_groups][3][max_fibers / warp][2] = {};

  fiber_scheduler() = default;

  /// This fiber has arrived at a barrier or returned: the next in the order that can goes on, or all have arrived and
  /// the next phase begins.
  TCNCA_TEST_SCHEDULER void pass_on() {
    fiber* const self = current_;
    if (waiting_ == count_) {
      for (int i = 0; i < count_; i++) states_[i] = state::ready;
      waiting_ = 0, phase_++, position_ = -1;
      random_.permute(order_, count_);
    }
    for (int n = 0; n < count_; n++) {
      if (++position_ >= count_) position_ = 0;
      if (states_[order_[position_]] == state::ready) {
        go(self, &fibers_[order_[position_]]);
        return;
      }
    }
    go(self, &main_);
  }

  /// The main loop of a fiber: one body after another.
  TCNCA_TEST_SCHEDULER static void live() {
    fiber_scheduler& s = get();
    arrive(s.current_);
    for (;;) {
      fiber* const self = s.current_;
      acquire(&s.launched_);
      s.body_(s.argument_, self->rank);
      release(&s.done_);
      s.states_[self - s.fibers_] = state::finished;
      s.finished_++;
      s.pass_on();
    }
  }

  TCNCA_TEST_SCHEDULER void go(fiber* from, fiber* to) {
    if (from == to) return;
    current_ = to;
#if defined(TCNCA_TEST_ASAN)
    __sanitizer_start_switch_fiber(&from->asan, to->bottom, to->bytes);
#endif
#if defined(TCNCA_TEST_TSAN)
    if (from == &main_) from->tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
    switch_stacks(&from->saved, to->saved);
#else
    swapcontext(&from->context, &to->context);
#endif
    arrive(from);
  }

  TCNCA_TEST_SCHEDULER static void arrive([[maybe_unused]] fiber* self) {
#if defined(TCNCA_TEST_ASAN)
    fiber& main = get().main_;
    void const* bottom = nullptr;
    std::size_t bytes = 0;
    __sanitizer_finish_switch_fiber(self->asan, &bottom, &bytes);
    if (!main.bottom) main.bottom = bottom, main.bytes = bytes;  // the first switch comes from there
#endif
  }

  TCNCA_TEST_SCHEDULER static void create(fiber& f) {
    char* const memory = static_cast<char*>(
        mmap(nullptr, stack_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
      std::fprintf(stderr, "fiber_group: no memory for a stack\n");
      std::abort();
    }
    f.stack = memory + page;
    f.bottom = f.stack, f.bytes = stack_bytes;
    begin(f);
  }

  TCNCA_TEST_SCHEDULER static void begin(fiber& f) {
    f.asan = nullptr;
#if defined(TCNCA_TEST_TSAN)
    f.tsan = __tsan_create_fiber(0);
#endif
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(static_cast<char*>(f.stack) + stack_bytes);
    *--top = nullptr;  // no caller
    *--top = reinterpret_cast<void*>(&fiber_scheduler::live);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f.saved = top;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = stack_bytes;
    f.context.uc_link = nullptr;
    makecontext(&f.context, &fiber_scheduler::live, 0);
#endif
  }

  TCNCA_TEST_SCHEDULER static void abandon(fiber& f) {
#if defined(TCNCA_TEST_ASAN)
    __asan_unpoison_memory_region(f.stack, stack_bytes);
#endif
#if defined(TCNCA_TEST_TSAN)
    __tsan_destroy_fiber(f.tsan);
#endif
    begin(f);
  }

  TCNCA_TEST_SCHEDULER static void acquire([[maybe_unused]] char* object) {
#if defined(TCNCA_TEST_TSAN)
    __tsan_acquire(object);
#endif
  }
  TCNCA_TEST_SCHEDULER static void release([[maybe_unused]] char* object) {
#if defined(TCNCA_TEST_TSAN)
    __tsan_release(object);
#endif
  }
};

}  // namespace tcnca::testing
