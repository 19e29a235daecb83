// The reference of check_compile_cost.sh: standard library templates only, independent of this library.
#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

template <int N>
struct key {
  std::string name;
  int value = N;
  auto operator<=>(key const&) const = default;
};

template <int N>
int containers(std::vector<std::string> const& words) {
  std::map<key<N>, std::vector<int>> sorted;
  std::unordered_map<std::string, key<N>> hashed;
  std::vector<key<N>> list;
  for (auto const& word : words) {
    sorted[key<N>{word}].push_back(N);
    hashed.emplace(word, key<N>{word});
    list.push_back({word, int(word.size()) % N});
  }
  std::stable_sort(list.begin(), list.end());
  std::sort(list.begin(), list.end(), [](auto const& a, auto const& b) { return a.value < b.value; });
  std::function<int(int)> const add = [&](int n) { return n + int(sorted.size() + hashed.size()); };
  return add(list.empty() ? 0 : list.front().value);
}

int reference(std::vector<std::string> const& words) { return containers<1>(words) + containers<2>(words); }
