#include "commit.hpp"

#include "bench_commit.hpp"  // written by cmake/commit.cmake

namespace tcnca::bench {

char const* built_commit() { return TCNCA_BENCH_COMMIT; }

}  // namespace tcnca::bench
