// Calls of the passes on threads that the caller lends. Free of XLA: only handler.cpp knows it.
#pragma once
#include <tcnca/launch/launch.hpp>
#include "binding.hpp"

namespace tcnca_jax {

using tcnca::index_t;

/// Threads of the caller. run(context, n, work, data) calls work(data, 0) to work(data, n - 1), each once, and returns
/// when all have returned.
struct pool {
  void* context;
  index_t threads;
  void (*run)(void* context, index_t threads, void (*work)(void* data, index_t worker), void* data);
};

struct call : tcnca_torch::call {
  pool workers;  ///< CPU
};

/// The functions of a pass: bytes of workspace, and the code of its status.
using query_function = index_t (*)(call const*);
using run_function = int (*)(call const*);

#if defined(__CUDACC__)
inline tcnca::cuda executor(call const& c) { return {c.stream}; }
#else
struct on_pool {
  pool const* workers;
};
inline on_pool executor(call const& c) { return {&c.workers}; }
#endif

}  // namespace tcnca_jax

#if !defined(__CUDACC__)
template <>
struct tcnca::executor_traits<tcnca_jax::on_pool> : tcnca::cpu_executor_traits<tcnca_jax::on_pool> {
  static bool valid(tcnca_jax::on_pool e) { return e.workers->threads >= 1; }
  static index_t threads(tcnca_jax::on_pool e) { return e.workers->threads; }
  static void run(tcnca_jax::on_pool e, index_t threads, void (*work)(void*, index_t), void* data) {
    e.workers->run(e.workers->context, threads, work, data);
  }
};
#endif
