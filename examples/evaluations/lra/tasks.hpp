// The six tasks of the Long Range Arena, with the models of MEGA's authors (arXiv 2209.10655, table and public
// commands).
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "../training/settings.hpp"

namespace lra {

namespace models = tcnca::models;
namespace training = tcnca::training;

/// A task and its row of the table. `steps` and `warmup` count batches of `batch` examples.
struct task_info {
  char const *name, *description;
  models::head_kind head;
  models::embedding_kind embedding;
  long vocabulary, classes, length;
  long layers, channels, value_dim, key_dim, hidden;
  models::norm_kind norm;
  models::attention_kind attention;
  bool pre_norm;
  double rate, decay, dropout;
  long batch, steps, warmup;
  char const* stack;  ///< convolution stack whose receptive field covers the length; our choice
  bool generated;     ///< if no files are given

  bool images() const { return embedding == models::embedding_kind::level; }
  long side() const { return length == 16384 ? 128 : 32; }
};

inline std::array<task_info, 6> const& tasks() {
  using enum models::head_kind;
  using enum models::norm_kind;
  using enum models::attention_kind;
  constexpr auto table = models::embedding_kind::table, level = models::embedding_kind::level;
  static constexpr std::array<task_info, 6> all{{{"listops",
                                                  "nested MIN, MAX, MED, SM of digits",
                                                  sequence_class,
                                                  table,
                                                  15,
                                                  10,
                                                  2000,  //
                                                  6,
                                                  80,
                                                  160,
                                                  64,
                                                  160,
                                                  layer,
                                                  softmax,
                                                  false,
                                                  1e-3,
                                                  0.01,
                                                  0.1,
                                                  64,
                                                  90000,
                                                  3000,
                                                  "4x6",
                                                  true},
                                                 {"text",
                                                  "film reviews as bytes: liked or not",
                                                  sequence_class,
                                                  table,
                                                  256,
                                                  2,
                                                  4000,  //
                                                  4,
                                                  128,
                                                  256,
                                                  64,
                                                  256,
                                                  scale,
                                                  softmax,
                                                  false,
                                                  4e-3,
                                                  0.01,
                                                  0.1,
                                                  50,
                                                  25000,
                                                  10000,
                                                  "4x6",
                                                  false},
                                                 {"retrieval", "two papers as bytes: does one cite the other",
                                                  pair_class,  table,
                                                  256,         2,
                                                  4000,  //
                                                  6,           128,
                                                  256,         64,
                                                  256,         scale,
                                                  softmax,     false,
                                                  3e-3,        0.04,
                                                  0.1,         64,
                                                  91960,       10000,
                                                  "4x6",       false},
                                                 {"image",
                                                  "CIFAR-10 in grey, 32 x 32 pixels",
                                                  sequence_class,
                                                  level,
                                                  256,
                                                  10,
                                                  1024,  //
                                                  8,
                                                  160,
                                                  320,
                                                  96,
                                                  320,
                                                  models::norm_kind::batch,
                                                  laplace,
                                                  true,
                                                  1e-2,
                                                  0.02,
                                                  0,
                                                  50,
                                                  180000,
                                                  9000,
                                                  "4x6",
                                                  false},
                                                 {"pathfinder",
                                                  "are two discs the ends of one curve? 32 x 32 pixels",
                                                  sequence_class,
                                                  level,
                                                  256,
                                                  2,
                                                  1024,  //
                                                  6,
                                                  128,
                                                  256,
                                                  64,
                                                  256,
                                                  models::norm_kind::batch,
                                                  laplace,
                                                  true,
                                                  1e-2,
                                                  0.01,
                                                  0,
                                                  128,
                                                  250000,
                                                  50000,
                                                  "4x6",
                                                  true},
                                                 {"pathx",
                                                  "the same, 128 x 128 pixels",
                                                  sequence_class,
                                                  level,
                                                  256,
                                                  2,
                                                  16384,  //
                                                  4,
                                                  64,
                                                  128,
                                                  32,
                                                  128,
                                                  models::norm_kind::batch,
                                                  laplace,
                                                  true,
                                                  1e-2,
                                                  0.01,
                                                  0,
                                                  128,
                                                  125000,
                                                  25000,
                                                  "8x5",
                                                  true}}};
  return all;
}

/// Null if there is no task of this name.
inline task_info const* find_task(std::string_view name) {
  for (task_info const& t : tasks())
    if (name == t.name) return &t;
  return nullptr;
}

}  // namespace lra
