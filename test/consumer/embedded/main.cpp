// Two levels of two taps with all weights 1 compute the running sum of four samples: on the CPU and, if compiled by
// nvcc, on a GPU.
#include <tcnca/tcnca.hpp>

#include <cstdio>

using stack = tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 2, .depth = 2}>;
long long receptive_field();  // other.cpp

struct buffers {
  alignas(256) unsigned char scratch[1 << 20];
  float x[8], weight[4], y[8];
};

template <class Executor>
static tcnca::status run(Executor where, buffers& b) {
  for (float& x : b.x) x = 1;
  for (float& w : b.weight) w = 1;
  for (float& y : b.y) y = -1;
  return stack::forward(where,
                        {.x = tcnca::contiguous(b.x, 1, 1, 8),
                         .weight = tcnca::contiguous(b.weight, 2, 2, 1),
                         .y = tcnca::contiguous(b.y, 1, 1, 8)},
                        {b.scratch, sizeof b.scratch});
}

static bool is_right(char const* backend, tcnca::status answer, buffers const& b) {
  bool right = answer.ok();
  for (int i = 0; i < 8; i++) right = right && b.y[i] == static_cast<float>(i < 3 ? i + 1 : 4);
  std::printf("%s: %s, the results are %s\n", backend, to_string(answer), right ? "right" : "wrong");
  return right;
}

int main() {
  static buffers host;
  bool right = receptive_field() == 4 && is_right("cpu", run(tcnca::cpu{}, host), host);
#ifdef __CUDACC__
  buffers* device = nullptr;
  if (cudaMallocManaged(&device, sizeof *device) == cudaSuccess) {
    tcnca::status const answer = run(tcnca::cuda{}, *device);
    right = cudaDeviceSynchronize() == cudaSuccess && is_right("cuda", answer, *device) && right;
  } else {  // returns an error and writes nothing
    tcnca::status const answer = run(tcnca::cuda{}, host);
    std::printf("cuda, without a device: %s\n", to_string(answer));
    right = right && !answer.ok() && host.y[0] == -1;
  }
#endif
  return right ? 0 : 1;
}
