// The mixers of fp32 models on CUDA that see both directions.
#include "make_mixer.hpp"

template std::unique_ptr<tcnca::models::mixer<float, tcnca::cuda>> tcnca::models::make_mixer<float, tcnca::cuda, false>(
    model_config const&, context<float, tcnca::cuda>&, tcnca::index_t);
