// Decoding: a prompt in one call, then token by token with a key-value cache of one chunk. Compares the result with one
// call for the whole sequence.
#include <tcnca/chunked_attention.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

#include "scratch.hpp"

using attention = tcnca::chunked_attention<float, tcnca::chunked_attention_shape{.causal = true, .bias = true}>;

int main() {
  constexpr long heads = 1, length = 300, prompt = 200, chunk = 128, key_dim = 64, value_dim = 512;
  auto const numbers = [](std::size_t n, float scale) {
    std::vector<float> v(n);
    for (std::size_t i = 0; i < n; i++) v[i] = scale * (float(i * 7919 % 1009) / 504 - 1);
    return v;
  };
  auto const q = numbers(length * key_dim, 2), k = numbers(length * key_dim, 1), v = numbers(length * value_dim, 1),
             bias = numbers(2 * chunk - 1, 1);
  std::vector<float> whole(v.size()), pieces(v.size()), key_cache(chunk * key_dim), value_cache(chunk * value_dim);

  tcnca::cpu const cpu;
  auto const run = [&](long first, long count, std::vector<float>& o, bool cached) {
    auto const rows = [&](auto* p, long dim) { return tcnca::contiguous(p + first * dim, 1, heads, count, dim); };
    attention::forward_args args{.q = rows(q.data(), key_dim),
                                 .k = rows(k.data(), key_dim),
                                 .v = rows(v.data(), value_dim),
                                 .bias = tcnca::contiguous(bias.data(), heads, 2 * chunk - 1),
                                 .o = rows(o.data(), value_dim),
                                 .chunk = chunk,
                                 .position = first};
    if (cached) {  // in place: new keys and values are appended; the cache restarts with each chunk
      args.keys_in = args.keys_out = tcnca::contiguous(key_cache.data(), 1, heads, chunk, key_dim);
      args.values_in = args.values_out = tcnca::contiguous(value_cache.data(), 1, heads, chunk, value_dim);
    }
    scratch_memory const scratch(attention::forward_workspace(cpu, args));
    return attention::forward(cpu, args, scratch).ok();
  };

  if (!run(0, length, whole, false) || !run(0, prompt, pieces, true)) return 1;
  for (long t = prompt; t < length; t++)
    if (!run(t, 1, pieces, true)) return 1;

  float error = 0;
  for (std::size_t i = 0; i < whole.size(); i++) error = std::fmax(error, std::fabs(whole[i] - pieces[i]));
  std::printf("%ld tokens after a prompt of %ld differ by at most %.1e from one call\n", length - prompt, prompt,
              double(error));
  return error < 1e-5f ? 0 : 1;
}
