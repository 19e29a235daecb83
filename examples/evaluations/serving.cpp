// Serves many sequences at the same time with a language model: continuous batching over a pool of states.
#include "serving/program.hpp"

#include "training/wide_kernels.hpp"

int main(int argc, char** argv) {
  tcnca::training::choose_wide_kernels(argv);
  return serving::run(argc, argv);
}
