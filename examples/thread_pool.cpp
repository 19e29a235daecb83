// An executor of your own: the operations run on a pool of threads that your program already has, not on OpenMP's.
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <tcnca/conv_stack.hpp>

#include "scratch.hpp"

// A minimal pool: each thread takes the next task, and the thread that waits for the tasks takes part.
class thread_pool {
 public:
  explicit thread_pool(int threads) {
    for (int i = 1; i < threads; i++) threads_.emplace_back([this] { serve(); });
  }
  ~thread_pool() {
    {
      std::lock_guard const lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& t : threads_) t.join();
  }
  long size() const { return long(threads_.size()) + 1; }

  // task(0) to task(count - 1), on any threads; returns when all have returned. Calls wait for each other.
  void run(long count, std::function<void(long)> const& task) {
    std::lock_guard const one_call(calls_);
    std::unique_lock lock(mutex_);
    task_ = &task, next_ = 0, count_ = count, running_ = count;
    changed_.notify_all();
    while (take_one(lock)) {}
    changed_.wait(lock, [this] { return running_ == 0; });
    task_ = nullptr;
  }

 private:
  bool take_one(std::unique_lock<std::mutex>& lock) {
    if (task_ == nullptr || next_ == count_) return false;
    long const i = next_++;
    auto const& task = *task_;
    lock.unlock();
    task(i);
    lock.lock();
    if (--running_ == 0) changed_.notify_all();
    return true;
  }
  void serve() {
    std::unique_lock lock(mutex_);
    while (!stop_)
      if (!take_one(lock)) changed_.wait(lock);
  }

  std::mutex calls_, mutex_;
  std::condition_variable changed_;
  std::vector<std::thread> threads_;
  std::function<void(long)> const* task_ = nullptr;
  long next_ = 0, count_ = 0, running_ = 0;
  bool stop_ = false;
};

// The executor: a value that each call copies.
struct on_pool {
  thread_pool* pool;
};
template <>
struct tcnca::executor_traits<on_pool> : tcnca::cpu_executor_traits<on_pool> {
  static bool valid(on_pool e) { return e.pool != nullptr; }
  static index_t threads(on_pool e) { return e.pool->size(); }
  static void run(on_pool e, index_t threads, void (*work)(void* data, index_t worker), void* data) {
    e.pool->run(threads, [=](long worker) { work(data, worker); });
  }
};

int main() {
  using stack = tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 4, .depth = 4, .dilation_base = 4}>;
  constexpr auto order = tcnca::layout::batch_channels_length;
  constexpr long batch = 2, channels = 16, length = 20000;
  std::vector<float> x(batch * channels * length), y(x.size()), expected(x.size()),
      weight(stack::layers * 4 * channels);
  for (std::size_t i = 0; i < x.size(); i++) x[i] = float(i * 37 % 101) / 101;
  for (std::size_t i = 0; i < weight.size(); i++) weight[i] = float(i * 31 % 17) / 17;
  stack::forward_args args{.x = tcnca::sequence<float const>(x.data(), order, batch, channels, length),
                           .weight = tcnca::contiguous<float const>(weight.data(), stack::layers, 4, channels),
                           .y = tcnca::sequence(y.data(), order, batch, channels, length)};

  thread_pool pool(3);
  scratch_memory const scratch(stack::forward_workspace(on_pool{&pool}, args));
  tcnca::status status = stack::forward(on_pool{&pool}, args, scratch);
  if (!status.ok()) return std::puts(describe(status).c_str()), 1;

  args.y.data = expected.data();
  scratch_memory const one(stack::forward_workspace(tcnca::cpu{1}, args));
  status = stack::forward(tcnca::cpu{1}, args, one);
  bool const same_bits = status.ok() && y == expected;
  std::printf("a pool of %ld threads: %s\n", pool.size(), same_bits ? "the bits of one thread" : "other bits");
  return same_bits ? 0 : 1;
}
