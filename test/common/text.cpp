// Texts, hashes and comparisons of shapes, and messages of a status.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <tcnca/tcnca.hpp>

namespace tcnca::testing {
namespace {

template <class Shape>
void expect_distinct(std::initializer_list<Shape> shapes) {
  std::set<uint64> hashes;
  std::set<std::string> texts;
  for (Shape const& a : shapes) {
    hashes.insert(hash_value(a));
    texts.insert(to_string(a).c_str());
    for (Shape const& b : shapes) EXPECT_EQ(a == b, &a == &b) << to_string(a).c_str() << " " << to_string(b).c_str();
  }
  EXPECT_EQ(hashes.size(), shapes.size());
  EXPECT_EQ(texts.size(), shapes.size());
}

TEST(text, shapes_that_differ_in_one_field_differ) {
  expect_distinct<conv_stack_shape>({{},
                                     {.taps = 5},
                                     {.depth = 3},
                                     {.dilation_base = 3},
                                     {.dilations = {1, 2}},
                                     {.dilations = {2, 1}},
                                     {.convolutions = 2},
                                     {.blocks = 2},
                                     {.act = activation::relu},
                                     {.residuals = residual::level},
                                     {.post_activation = true},
                                     {.bias = true},
                                     {.skip = true},
                                     {.dir = direction::symmetric},
                                     {.order = layout::batch_length_channels},
                                     {.weights = parameter_type::accumulate}});
  expect_distinct<chunked_attention_shape>({{},
                                            {.function = attention_function::relu2},
                                            {.causal = true},
                                            {.bias = true},
                                            {.dropout = true},
                                            {.alibi = true},
                                            {.window = true},
                                            {.grouped = true},
                                            {.head_lengths = true},
                                            {.packed = true}});
  expect_distinct<ema_shape>({{},
                              {.states = 3},
                              {.dir = direction::bidirectional},
                              {.skip = false},
                              {.order = layout::batch_length_channels},
                              {.states = 5}});
  expect_distinct<gated_fusion_shape>(
      {{}, {.update_gate = false}, {.reset_gate = false}, {.mixer_path = false}, {.dropout = true}});
}

TEST(text, a_shape_as_source) {
  EXPECT_STREQ(to_string(ema_shape{.states = 8, .dir = direction::bidirectional}).c_str(),
               "{.states = 8, .dir = tcnca::direction::bidirectional, .skip = true, "
               ".order = tcnca::layout::batch_channels_length}");
  EXPECT_STREQ(to_string(conv_stack_shape{.taps = 3, .dilations = {1, 20, 300}, .bias = true}).c_str(),
               "{.taps = 3, .depth = -1, .dilation_base = 2, .dilations = {1, 20, 300}, .convolutions = 1, "
               ".blocks = 1, .act = tcnca::activation::none, .residuals = tcnca::residual::none, "
               ".post_activation = false, .bias = true, .skip = false, .dir = tcnca::direction::causal, "
               ".order = tcnca::layout::batch_channels_length, .weights = tcnca::parameter_type::element}");
}

TEST(text, a_policy) {
  using tuning = default_conv_stack_tuning<float, conv_stack_shape{}>;
  conv_stack_policy p = tuning::forward(target{0});
  std::string const text = to_string(p).c_str();
  EXPECT_NE(text.find(".tile = " + std::to_string(p.tile) + ", "), std::string::npos) << text;
  EXPECT_NE(text.find(".kernels = tcnca::stack_kernels::automatic}"), std::string::npos) << text;
  uint64 const hash = hash_value(p);
  p.kernels = stack_kernels::generic;
  EXPECT_NE(hash_value(p), hash);

  EXPECT_NE(
      std::string(
          to_string(default_chunked_attention_tuning<bf16, chunked_attention_shape{}>::forward(target{90})).c_str())
          .find(".tensor_cores = true"),
      std::string::npos);
  EXPECT_NE(hash_value(default_gated_fusion_tuning<float>::pass(target{0})),
            hash_value(default_gated_fusion_tuning<float>::pass(target{90})));
  EXPECT_NE(hash_value(default_ema_tuning<float, ema_shape{}>::forward(target{0})),
            hash_value(default_ema_tuning<float, ema_shape{}>::backward(target{0})));
}

TEST(text, the_hash_of_a_shape_is_the_same_in_every_program) {
  static_assert(hash_value(conv_stack_shape{.taps = 4, .depth = 6, .dilation_base = 4}) == 0x9040c848316c4ab8u);
}

TEST(text, a_text_that_is_too_long_is_cut) {
  text t;
  for (int i = 0; i < 300; i++) t.add("1234567");
  EXPECT_EQ(t.size(), text::capacity - 1);
  EXPECT_EQ(std::string(t.c_str()).size(), t.size());
  text n;
  n.add(index_t(-1) << 63).add(" ").add(index_t(0));
  EXPECT_STREQ(n.c_str(), "-9223372036854775808 0");
}

TEST(text, a_list_of_dilations_from_memory) {
  index_t const d[] = {3, 1, 4};
  EXPECT_EQ(dilation_list::of(d, 3), (dilation_list{3, 1, 4}));
  EXPECT_EQ(dilation_list::of(d, 0), dilation_list{});
  EXPECT_EQ(dilation_list::of(d, 2).count(), 2);
}

TEST(text, a_message_has_the_name_and_the_numbers) {
  using stack = conv_stack<float, conv_stack_shape{.taps = 3, .depth = 2}>;
  std::vector<float> x(2 * 3 * 5000), y(x.size()), weight(2 * 3 * 3);
  stack::forward_args const valid{.x = contiguous<float const>(x.data(), 2, 3, 5000),
                                  .weight = contiguous<float const>(weight.data(), 2, 3, 3),
                                  .y = contiguous(y.data(), 2, 3, 5000)};
  auto const message = [](stack::forward_args const& a, workspace scratch = {}) {
    return std::string(describe(stack::forward(cpu{1}, a, scratch)).c_str());
  };
  auto const ends = [](std::string const& all, std::string const& end) {
    return all.size() >= end.size() && all.substr(all.size() - end.size()) == end;
  };
  stack::forward_args a = valid;
  a.weight.extent[1] = 4;
  EXPECT_TRUE(ends(message(a), "(extent[1] is 4, expected 3)")) << message(a);
  EXPECT_EQ(message(a).substr(0, 8), "weight: ");
  a = valid;
  a.y.stride[2] = 2;
  EXPECT_TRUE(ends(message(a), "(stride[2] is 2)")) << message(a);
  a = valid;
  a.y.data = x.data();
  alignas(workspace::alignment) static char memory[1 << 16];
  EXPECT_EQ(message(a, {memory, sizeof memory}), "y: an output overlaps another argument (x)");
  a = valid;
  a.position = -1;
  EXPECT_EQ(message(a), std::string("position: ") + to_string(status(status_code::invalid_position)));
  std::string const too_small = message(valid);
  std::size_t const bytes = stack::forward_workspace(cpu{1}, valid);
  EXPECT_TRUE(ends(too_small, "(0 bytes, needs " + std::to_string(bytes) + ")")) << too_small;
  EXPECT_STREQ(describe(status()).c_str(), "the call succeeded");
}

}  // namespace
}  // namespace tcnca::testing
