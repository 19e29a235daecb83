// The mixers of fp32 models on CUDA that see what came before.
#include "make_mixer.hpp"

template std::unique_ptr<tcnca::models::mixer<float, tcnca::cuda>> tcnca::models::make_mixer<float, tcnca::cuda, true>(
    model_config const&, context<float, tcnca::cuda>&, tcnca::index_t);
