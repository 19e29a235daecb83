// Prints the message and one further error, which ends the compilation.
// expect: tcnca needs C++20: compile with -std=c++20 or later
// arguments: -std=c++17
// errors: 2
#include <tcnca/tcnca.hpp>
