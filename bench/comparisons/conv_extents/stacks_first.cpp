#include "bind.hpp"

namespace tcnca::bench {
template contender bind_cpu<first>(use, int, pass, sequences<float> const&, float const*);
}  // namespace tcnca::bench
