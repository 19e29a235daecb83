// The same headers in a second translation unit.
#include <tcnca/tcnca.hpp>

long long receptive_field() {
  return tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 2, .depth = 2}>::receptive_field;
}
