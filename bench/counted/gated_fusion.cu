// One call of the gates through the public API, for count_passes.py, as in conv_stack.cu. Arguments: the function,
// batch, length, columns.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <tcnca/gated_fusion.hpp>

#include "address.hpp"

using namespace tcnca;

namespace {

using T = COUNTED_TYPE;
using gates = gated_fusion<T, gated_fusion_shape{.dropout = COUNTED_DROPOUT}>;

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  index_t const batch = std::atoll(argv[2]), length = std::atoll(argv[3]), columns = std::atoll(argv[4]);
  auto const in = [&](std::uintptr_t i) { return contiguous(address<T const>(i), batch, length, columns); };
  auto const out = [&](std::uintptr_t i) { return contiguous(address<T>(i), batch, length, columns); };
  auto const parameter = [&](std::uintptr_t i) { return contiguous(address<gates::accumulate const>(i), columns); };
  auto const gradient = [&](std::uintptr_t i) { return contiguous(address<gates::accumulate>(i), columns); };
  double const dropout = COUNTED_DROPOUT ? 0.1 : 0;
  tcnca::cuda const e{};
  auto const is = [&](char const* name) { return std::strcmp(argv[1], name) == 0; };
  status result = status_code::invalid_value;
  if (is("mix")) {
    result = gates::mix(e, {in(1), parameter(2), parameter(3), parameter(4), parameter(5), out(6), out(7)});
  } else if (is("mix_backward")) {
    gates::mix_backward_args const a{in(1),  parameter(2), parameter(3), in(4),       in(5),
                                     out(6), gradient(7),  gradient(8),  gradient(9), gradient(10)};
    result = gates::mix_backward(e, a, {address<char>(11), gates::mix_backward_workspace(e, a)});
  } else if (is("reset")) {
    result = gates::reset(e, {in(1), in(2), out(3)});
  } else if (is("reset_backward")) {
    result = gates::reset_backward(e, {in(1), in(2), in(3), out(4), out(5)});
  } else if (is("update")) {
    result = gates::update(e, {in(1), in(2), in(3), in(4), out(5), dropout, 1, 2});
  } else if (is("update_backward")) {
    result =
        gates::update_backward(e, {in(1), in(2), in(3), in(4), in(5), out(6), out(7), out(8), out(9), dropout, 1, 2});
  }
  if (!result.ok()) std::fprintf(stderr, "%s\n", to_string(result));
  return result.ok() ? 0 : 1;
}
