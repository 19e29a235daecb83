#include "bind.hpp"

namespace tcnca::bench {
template contender bind_cpu<last>(use, int, pass, sequences<float> const&, float const*);
}  // namespace tcnca::bench
