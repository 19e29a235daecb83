// The handler that XLA calls, for all passes: translates buffers to views, lends XLA's threads and its memory, and
// calls the functions of a pass, which are registered by name. Compiled once for CPUs, once for CUDA.
#include <xla/ffi/api/ffi.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "pool.hpp"
#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#endif

namespace {

namespace ffi = xla::ffi;
using tcnca_jax::index_t;

struct functions {
  tcnca_jax::query_function query;
  tcnca_jax::run_function run;
};

struct registry {
  std::mutex mutex;
  std::map<std::string, functions, std::less<>> passes;

  static registry& instance() {
    static registry all;
    return all;
  }
};

#if !defined(__CUDACC__)
// The workers of one call. A task of the pool that starts late finds no worker left and returns: nobody waits for it,
// therefore a handler that runs on the last free thread of the pool does not block.
class shared_call {
 public:
  shared_call(index_t workers, void (*work)(void*, index_t), void* data)
      : workers_(workers), work_(work), data_(data) {}

  void take() {
    for (index_t i; (i = next_.fetch_add(1)) < workers_;) {
      work_(data_, i);
      if (finished_.fetch_add(1) + 1 == workers_) finished_.notify_all();
    }
  }
  void wait() const {
    for (index_t n; (n = finished_.load()) != workers_;) finished_.wait(n);
  }

 private:
  index_t const workers_;
  void (*const work_)(void*, index_t);
  void* const data_;
  std::atomic<index_t> next_ = 0, finished_ = 0;
};

void run_on_pool(void* context, index_t threads, void (*work)(void*, index_t), void* data) {
  auto const shared = std::make_shared<shared_call>(threads, work, data);
  for (index_t i = 1; i < threads; i++) static_cast<ffi::ThreadPool*>(context)->Schedule([shared] { shared->take(); });
  shared->take();
  shared->wait();
}

// XLA has no allocator of scratch memory on CPUs.
constexpr std::align_val_t workspace_alignment{tcnca::workspace::alignment};
struct free_memory {
  void operator()(void* p) const { operator delete(p, workspace_alignment); }
};
using cpu_memory = std::unique_ptr<void, free_memory>;
#endif

// What a buffer is, as bits.
constexpr index_t swapped = 1;   // a sequence whose channels are last; the library indexes it (batch, channels, length)
constexpr index_t in_pairs = 2;  // 64-bit integers as pairs of 32 bits, because JAX has no others by default
constexpr int kind_bits = 2;

// A contiguous buffer.
tcnca_torch::array view_of(ffi::AnyBuffer const& buffer, index_t kind) {
  tcnca_torch::array a = {.data = buffer.untyped_data()};
  int const rank = int(buffer.dimensions().size()) - (kind & in_pairs ? 1 : 0);
  index_t stride = 1;
  for (int r = rank - 1; r >= 0; r--) {
    a.extent[r] = buffer.dimensions()[r];
    a.stride[r] = stride;
    stride *= a.extent[r] > 0 ? a.extent[r] : 1;
  }
  if (kind & swapped) std::swap(a.extent[1], a.extent[2]), std::swap(a.stride[1], a.stride[2]);
  return a;
}

ffi::Error failed(ffi::ErrorCode code, std::string_view operation, std::string_view message) {
  return ffi::Error(code, "tcnca::" + std::string(operation) + ": " + std::string(message));
}

// members: for each tensor of the argument struct 4 i + kind, where i counts the arguments of the custom call and then
// its results; -1: absent. integers: their values, or, where `traced` is not -1, that argument.
ffi::Error handle(
#if defined(__CUDACC__)
    CUstream_st* stream, ffi::ScratchAllocator scratch,
#else
    ffi::ThreadPool threads,
#endif
    ffi::RemainingArgs arguments, ffi::RemainingRets results, std::string_view operation, std::string_view function,
    ffi::Span<index_t const> members, ffi::Span<index_t const> integers, ffi::Span<index_t const> traced,
    ffi::Span<double const> reals) {
  functions pass;
  {
    registry& all = registry::instance();
    std::lock_guard const lock(all.mutex);
    auto const found = all.passes.find(function);
    if (found == all.passes.end())
      return failed(ffi::ErrorCode::kFailedPrecondition, operation,
                    "the compiled program comes from another process; trace its function in this one first");
    pass = found->second;
  }

  constexpr std::size_t most = 32;
  tcnca_torch::array views[most];
  index_t numbers[most];
  if (members.size() > most || integers.size() > most)
    return failed(ffi::ErrorCode::kInternal, operation, "too many arguments");
  for (std::size_t i = 0; i < members.size(); i++) {
    views[i] = {};
    if (members[i] < 0) continue;
    std::size_t const index = std::size_t(members[i] >> kind_bits);
    index_t const kind = members[i] & ((1 << kind_bits) - 1);
    if (index < arguments.size()) views[i] = view_of(arguments.get<ffi::AnyBuffer>(index).value(), kind);
    else views[i] = view_of(*results.get<ffi::AnyBuffer>(index - arguments.size()).value(), kind);
  }
  for (std::size_t i = 0; i < integers.size(); i++) {
    numbers[i] = integers[i];
    if (traced[i] < 0) continue;
    void const* source = arguments.get<ffi::AnyBuffer>(std::size_t(traced[i])).value().untyped_data();
#if defined(__CUDACC__)
    if (cudaMemcpyAsync(&numbers[i], source, sizeof(index_t), cudaMemcpyDeviceToHost, stream) != cudaSuccess ||
        cudaStreamSynchronize(stream) != cudaSuccess)
      return failed(ffi::ErrorCode::kInternal, operation, "a number could not be copied from the device");
#else
    std::memcpy(&numbers[i], source, sizeof(index_t));
#endif
  }

  char message[1024] = "";
  tcnca_jax::call c = {};
  c.arrays = views, c.integers = numbers, c.reals = reals.begin();
  c.message = message, c.message_bytes = sizeof(message);
#if defined(__CUDACC__)
  c.stream = stream;
#else
  index_t const available = threads.num_threads();
  c.workers = {&threads, available < 1 ? 1 : available > 1024 ? 1024 : available, run_on_pool};
#endif
  std::size_t const bytes = std::size_t(pass.query(&c));
#if defined(__CUDACC__)
  c.workspace = bytes > 0 ? scratch.Allocate(bytes, tcnca::workspace::alignment).value_or(nullptr) : nullptr;
#else
  cpu_memory const memory(bytes > 0 ? operator new(bytes, workspace_alignment, std::nothrow) : nullptr);
  c.workspace = memory.get();
#endif
  c.workspace_bytes = index_t(bytes);
  if (bytes > 0 && c.workspace == nullptr)
    return failed(ffi::ErrorCode::kResourceExhausted, operation, "there is no memory for the workspace");
  auto const code = static_cast<tcnca::status_code>(pass.run(&c));
  if (code == tcnca::status_code::success) return ffi::Error::Success();
  bool const device = code == tcnca::status_code::unsupported_device || code == tcnca::status_code::launch_failed;
  return failed(device ? ffi::ErrorCode::kInternal : ffi::ErrorCode::kInvalidArgument, operation, message);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void tcnca_register(char const* name, tcnca_jax::query_function query,
                                                                      tcnca_jax::run_function run) {
  registry& all = registry::instance();
  std::lock_guard const lock(all.mutex);
  all.passes[name] = {query, run};
}

extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* tcnca_handler(XLA_FFI_CallFrame* frame) {
  static auto const handler = ffi::Ffi::Bind()
#if defined(__CUDACC__)
                                  .Ctx<ffi::PlatformStream<CUstream_st*>>()
                                  .Ctx<ffi::ScratchAllocator>()
#else
                                  .Ctx<ffi::ThreadPool>()
#endif
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<std::string_view>("operation")
                                  .Attr<std::string_view>("function")
                                  .Attr<ffi::Span<index_t const>>("members")
                                  .Attr<ffi::Span<index_t const>>("integers")
                                  .Attr<ffi::Span<index_t const>>("traced")
                                  .Attr<ffi::Span<double const>>("reals")
                                  .To(handle);
  return handler->Call(frame);
}
