// expect: tcnca::ema: an EMA is causal or bidirectional
#include <tcnca/ema.hpp>

template struct tcnca::ema<float, tcnca::ema_shape{.dir = tcnca::direction::symmetric}>;
