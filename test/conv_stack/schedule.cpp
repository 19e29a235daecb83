// The schedule of a stack's walk against a naive simulation that computes each tile as soon as its inputs exist.
#include <vector>

#include <gtest/gtest.h>

#include <tcnca/conv_stack/generic/schedule.hpp>

namespace tcnca::testing {
namespace {

// The timelines in the comment of conv_stack_schedule.
static_assert([] {
  conv_stack_schedule<2> const s{.tile = {4, 8}, .step = 4};
  index_t const after[] = {0, 8, 8, 16};
  for (int step = 0; step < 4; step++) {
    level_progress const first = s.output(s.input(0, 4 * step), 0, 0), second = s.output(first, 1, 0);
    if (first.before != 4 * step || first.after != 4 * step + 4) return false;
    if (second.after != after[step] || second.before != (step > 0 ? after[step - 1] : 0)) return false;
  }
  return true;
}());
static_assert([] {
  conv_stack_schedule<2> const s{.tile = {4, 4}, .step = 4};
  for (int step = 0; step < 4; step++) {
    level_progress const outputs = s.output(s.output(s.input(0, 4 * step), 0, 0), 1, 0);
    level_progress const gradient_1 = s.input_gradient(outputs, 1, 2, 0, 2),
                         gradient_0 = s.input_gradient(gradient_1, 0, 1, 0, 2);
    if (gradient_1.before != 4 * step - 2 || gradient_1.after != 4 * step + 2) return false;
    if (gradient_0.before != 4 * step - 4 || gradient_0.after != 4 * step) return false;
  }
  return true;
}());
// A single tile: one step computes everything; with a state also the positions before 0.
static_assert([] {
  conv_stack_schedule<1> const s{.tile = {8}, .step = 64, .single_tile = true};
  level_progress const outputs = s.output(s.input(0, 0), 0, 0);
  level_progress const gradient = s.input_gradient(outputs, 0, 3, 3, 2);
  return outputs.before == 0 && outputs.after == 64 && gradient.origin == -8 && gradient.before == -8 &&
         gradient.after >= 56;
}());

/// Walks 40 steps and compares each level with the simulation. Levels as in conv_stack_lags, from 1 on.
template <conv_stack_shape Shape>
void check(std::vector<index_t> const& tiles, index_t pack_positions) {
  constexpr int layers = Shape.layers(), levels = 2 * layers;
  conv_stack_schedule<layers> schedule{.step = tiles[0]};
  for (int l = 0; l < layers; l++) schedule.tile[l] = tiles[std::size_t(l)];
  conv_stack_lags<Shape> const lags(schedule, pack_positions);

  for (int direction = 0; direction < Shape.directions(); direction++) {
    SCOPED_TRACE(::testing::Message() << "direction " << direction);
    struct level {
      index_t look_ahead, tile, origin, completed;
    };
    std::vector<level> naive;
    for (int l = 0; l < layers; l++) naive.push_back({Shape.look_ahead(l, direction), schedule.tile[l], 0, 0});
    index_t origin = 0;
    for (int l = layers - 1; l >= 0; l--) {
      index_t const look_ahead = Shape.history(l) - Shape.look_ahead(l, direction);
      while (origin + look_ahead > naive.back().origin || origin % pack_positions != 0) origin--;
      naive.push_back({look_ahead, schedule.tile[l], origin, origin});
    }

    for (int step = 0; step < 40; step++) {
      index_t const x = (step + 1) * schedule.step;
      level_progress progress = schedule.input(0, step * schedule.step);
      ASSERT_EQ(progress.after, x);
      index_t inputs = x;
      for (int i = 0; i < levels; i++) {
        SCOPED_TRACE(::testing::Message() << "step " << step << " level " << i + 1);
        level& n = naive[std::size_t(i)];
        index_t const before = n.completed;
        while (n.completed + n.tile + n.look_ahead <= inputs) n.completed += n.tile;
        int const l = i < layers ? i : levels - 1 - i;
        progress = i < layers ? schedule.output(progress, l, n.look_ahead)
                              : schedule.input_gradient(progress, l, n.look_ahead, 0, pack_positions);
        // Each step starts where the last one ended and computes all tiles whose inputs are complete, and no others.
        ASSERT_EQ(progress.origin, n.origin);
        ASSERT_EQ(progress.before, before);
        ASSERT_EQ(progress.after, n.completed);
        // Lags hold for every step; the lower bound once the level has started.
        ASSERT_LE(x - n.completed, lags.most[i + 1]);
        if (n.completed > n.origin) { ASSERT_GE(x - n.completed, lags.least[i + 1]); }
        inputs = n.completed;
      }
    }
  }
}

template <conv_stack_shape Shape>
void check_all() {
  for (std::vector<index_t> const& tiles : {std::vector<index_t>{4, 4, 4}, {4, 8, 8}, {4, 4, 12}, {8, 24, 24}})
    for (index_t const pack_positions : {1, 2, 4}) {
      SCOPED_TRACE(::testing::Message() << "tiles " << tiles[0] << ' ' << tiles[1] << ' ' << tiles[2] << ", pack of "
                                        << pack_positions);
      check<Shape>(tiles, pack_positions);
    }
}

TEST(conv_stack_schedule, causal) {
  check_all<conv_stack_shape{.taps = 2, .depth = 3}>();
  check_all<conv_stack_shape{.taps = 4, .depth = 3, .dilation_base = 3}>();
  check_all<conv_stack_shape{.taps = 1, .depth = 3}>();
}
TEST(conv_stack_schedule, symmetric) {
  check_all<conv_stack_shape{.taps = 3, .depth = 3, .dir = direction::symmetric}>();
  check_all<conv_stack_shape{.taps = 5, .dilations = {5, 1, 2}, .dir = direction::symmetric}>();
}
TEST(conv_stack_schedule, bidirectional) {
  check_all<conv_stack_shape{.taps = 2, .depth = 3, .dir = direction::bidirectional}>();
  check_all<conv_stack_shape{.taps = 3, .dilations = {7, 1, 3}, .dir = direction::bidirectional}>();
}

/// What the naive rule for one level implies, for all small values.
TEST(conv_stack_schedule, completed_tiles) {
  for (index_t tile = 1; tile <= 9; tile++)
    for (index_t origin = -5; origin <= 5; origin++)
      for (index_t look_ahead = 0; look_ahead <= 4; look_ahead++)
        for (index_t inputs = -10; inputs <= 40; inputs++) {
          index_t completed = origin;
          while (completed + tile + look_ahead <= inputs) completed += tile;
          ASSERT_EQ(detail::completed_tiles(inputs, look_ahead, tile, origin), completed)
              << tile << ' ' << origin << ' ' << look_ahead << ' ' << inputs;
        }
}

}  // namespace
}  // namespace tcnca::testing
