// The header alone. check_compile_cost.sh subtracts its compile time from those of the instantiations.
#include <tcnca/conv_stack.hpp>
