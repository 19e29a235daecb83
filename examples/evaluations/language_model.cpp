// Character-level language modelling, an evaluation of the TCNCA paper (arXiv 2312.05605): trains on a text, reports
// bits per character, generates text.
#include "language/program.hpp"
#include "training/wide_kernels.hpp"

int main(int argc, char** argv) {
  tcnca::training::choose_wide_kernels(argv);
  return language::run(argc, argv);
}
