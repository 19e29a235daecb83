// The mixers of fp32 models on the CPU that see both directions.
#include "make_mixer.hpp"

template std::unique_ptr<tcnca::models::mixer<float, tcnca::cpu>> tcnca::models::make_mixer<float, tcnca::cpu, false>(
    model_config const&, context<float, tcnca::cpu>&, tcnca::index_t);
