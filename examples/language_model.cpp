// Language modelling by characters, an evaluation of the TCNCA paper (arXiv 2312.05605): trains on a text, reports bits per character, writes text.
#include "language/program.hpp"

int main(int argc, char** argv) { return language::run(argc, argv); }
