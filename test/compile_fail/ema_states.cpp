// expect: tcnca::ema: states must be at least 1
#include <tcnca/ema.hpp>

template struct tcnca::ema<float, tcnca::ema_shape{.states = 0}>;
