// ListOps files of the Long Range Arena release: basic_train.tsv, basic_val.tsv and basic_test.tsv.
#pragma once
#include "files.hpp"
#include "listops.hpp"

namespace lra::listops {

/// Lines "expression TAB value" after the header "Source TAB Target". Expressions are binary trees with parentheses
/// around every node, such as "( ( ( [MAX 4 ) 3 ) ] )"; all but the parentheses are tokens. Values are recomputed and
/// must match. Reads `most` lines; negative: all.
inline dataset read(std::filesystem::path const& file, long longest, long most = -1) {
  lines in(file);
  std::string line;
  if (!in.next(line) || line != "Source\tTarget") in.wrong("the first line must be \"Source\", a tab, and \"Target\"");
  dataset result;
  std::vector<std::uint8_t> tokens;
  while (result.examples() != most && in.next(line)) {
    auto const fields = split(line, '\t');
    if (fields.size() != 2)
      in.wrong("the line has " + std::to_string(fields.size()) +
               " fields between tabs, but must have an expression and its value");
    tokens.clear();
    long open = 0;
    for (std::string_view const w : words(fields[0])) {
      if (w == "(" || w == ")") {
        open += w == "(" ? 1 : -1;
        if (open < 0) in.wrong("a parenthesis closes that was not opened");
      } else if (w.size() == 1 && w[0] >= '0' && w[0] <= '9') {
        tokens.push_back(std::uint8_t(digit + (w[0] - '0')));
      } else {
        auto const at = std::find(names.begin(), names.end(), w);
        if (at == names.end()) in.wrong("\"" + std::string(w) + "\" is no token of ListOps");
        tokens.push_back(std::uint8_t(at - names.begin()));
      }
    }
    if (open != 0) in.wrong("a parenthesis is not closed");
    auto const v = value(tokens);
    if (!v) in.wrong("the operators, digits and brackets are no expression");
    if (fields[1] != std::to_string(*v))
      in.wrong("the expression is " + std::to_string(*v) + ", but the line says \"" + std::string(fields[1]) + "\"");
    if (long(tokens.size()) > longest)
      in.wrong("the expression has " + std::to_string(tokens.size()) + " tokens, but the model takes " +
               std::to_string(longest) + " (see --length)");
    result.add(tokens, *v);
  }
  if (result.examples() == 0 && most != 0) in.wrong("there is no example");
  return result;
}

inline splits read(std::filesystem::path const& data, long longest, counts const& most) {
  auto const folder = folder_with(data, {"", "listops-1000", "lra_release/listops-1000"}, "basic_train.tsv",
                                  "ListOps of the Long Range Arena's release");
  return {read(folder / "basic_train.tsv", longest, most.training),
          read(folder / "basic_val.tsv", longest, most.validation),
          read(folder / "basic_test.tsv", longest, most.test)};
}

}  // namespace lra::listops
