// Reads golden vectors; golden/make_golden.py documents the format.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace tcnca::testing {

struct golden_tensor {
  std::vector<long> extent;
  std::vector<double> values;
};
struct golden_case {
  std::string name;
  std::map<std::string, std::vector<long>> options;
  std::map<std::string, golden_tensor> tensors;

  long option(std::string const& key) const { return options.at(key).at(0); }
  bool has(std::string const& key) const { return tensors.count(key) > 0; }
  std::vector<double> const& values(std::string const& key) const { return tensors.at(key).values; }
  std::vector<double> values_or_none(std::string const& key) const {
    return has(key) ? values(key) : std::vector<double>{};
  }
};

/// All cases of a file in test/golden, or of an absolute path; none if it cannot be read.
inline std::vector<golden_case> read_golden(std::filesystem::path const& file) {
  std::ifstream in(std::filesystem::path(__FILE__).parent_path() / "../golden" / file);
  std::vector<golden_case> cases;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string kind, key, word;
    words >> kind >> key;
    if (kind == "case") {
      cases.push_back({key, {}, {}});
    } else if (kind == "option") {
      for (long v; words >> v;) cases.back().options[key].push_back(v);
    } else if (kind == "tensor") {
      golden_tensor& t = cases.back().tensors[key];
      while (words >> word && word != ":") t.extent.push_back(std::atol(word.c_str()));
      while (words >> word) t.values.push_back(std::strtod(word.c_str(), nullptr));
    }
  }
  return cases;
}

}  // namespace tcnca::testing
