// A launch on a CUDA device leaves no error behind, and ignores earlier errors, other host threads and stream capture.
// It follows the launches before it, also where it overlaps them.
#include <tcnca/block/group.hpp>
#include <tcnca/launch/launch.hpp>

#include <atomic>
#include <thread>
#include <vector>

#include "support/backend.hpp"

namespace tcnca::testing {

struct counted_numbers {
  float* to;
  int count;  // of an item
};

/// Item i writes i, i + 1, ... through shared memory.
template <class Group>
struct counting_agent {
  using A = float;
  using group_type = Group;
  Group group;
  counted_numbers const& p;
  A* buffer;
  TCNCA_HOST_DEVICE counting_agent(Group g, counted_numbers const& given, A* shared_memory, A*)
      : group(g), p(given), buffer(shared_memory) {}
  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    for (int i = group.rank(); i < p.count; i += group.size()) buffer[p.count - 1 - i] = float(item + i);
    group.sync();
    for (int i = group.rank(); i < p.count; i += group.size()) p.to[item * p.count + i] = buffer[p.count - 1 - i];
    group.sync();
  }
};
/// Adds 1 to every number. An item has `count` of them; the last block of a launch has the first item of the next.
template <class Group>
struct increment_agent {
  using A = float;
  using group_type = Group;
  using params_type = counted_numbers;
  static constexpr index_t all_items = 8;
  Group group;
  params_type const& p;
  TCNCA_HOST_DEVICE increment_agent(Group g, params_type const& given, A*, A*) : group(g), p(given) {}
  TCNCA_HOST_DEVICE static index_t items(params_type const& p) { return p.count > 0 ? all_items : 0; }
  static group_memory memory(params_type const&) { return {}; }
  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    for (int i = group.rank(); i < p.count; i += group.size()) p.to[(all_items - 1 - item) * p.count + i] += 1;
  }
};
/// In clusters larger than the portable size.
template <class Group>
struct too_clustered_agent : counting_agent<Group> {
  static constexpr int cluster_size = 16;
  using counting_agent<Group>::counting_agent;
};

namespace {

using traits = executor_traits<cuda>;
constexpr int threads = 64;
using agent = counting_agent<block_group<threads>>;
constexpr auto kernel = detail::run_agent<agent, counted_numbers, threads>;

/// Device memory for 100 numbers of each of two items, initialized to NaN; a launch with the given number of bytes of
/// shared memory.
class results {
 public:
  explicit results(int shared_bytes) : bytes_(shared_bytes) {}
  status fill(cudaStream_t stream = nullptr) {
    return traits::launch<agent>(cuda{stream}, given_, 2, {size_t(bytes_), 0}, {});
  }
  bool complete() const {
    for (index_t i = 0; i < values_.count(); i++)
      if (*values_.at(i) != float(i / given_.count + i % given_.count)) return false;
    return true;
  }

 private:
  int bytes_;
  tensor<float, 1> values_{{200}, {0}};
  counted_numbers given_{values_.view().data, 100};
};

int limit_of_kernel() {
  cudaFuncAttributes a{};
  EXPECT_EQ(cudaFuncGetAttributes(&a, kernel), cudaSuccess);
  return a.maxDynamicSharedSizeBytes;
}
int most_shared_memory() {
  int bytes = 0;
  EXPECT_EQ(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), cudaSuccess);
  return bytes;
}

struct cuda_launch : ::testing::Test {
  void SetUp() override {
    TCNCA_TEST_NEEDS(cuda_backend);
    (void)cudaGetLastError();
  }
  void TearDown() override { (void)cudaGetLastError(); }
};

TEST_F(cuda_launch, limits_of_shared_memory_are_never_lowered) {
  results many(80000), few(400);
  ASSERT_TRUE(many.fill().ok());
  int const limit = limit_of_kernel();
  EXPECT_GE(limit, 80000);
  ASSERT_TRUE(few.fill().ok());
  EXPECT_EQ(limit_of_kernel(), limit);
  cuda_backend::finish();
  EXPECT_TRUE(many.complete() && few.complete());
}

TEST_F(cuda_launch, host_threads_of_different_sizes) {
  constexpr int launches = 2000;
  std::atomic<int> refused = 0, started = 0;
  results many(80000), few(400);
  auto const repeat = [&](results& r) {
    for (started++; started < 2;) std::this_thread::yield();
    for (int n = 0; n < launches; n++) refused += !r.fill().ok();
  };
  std::thread other([&] { repeat(few); });
  repeat(many);
  other.join();
  EXPECT_EQ(refused, 0);
  cuda_backend::finish();
  EXPECT_TRUE(many.complete() && few.complete());
}

TEST_F(cuda_launch, an_error_of_others_is_neither_reported_nor_cleared) {
  results r(400);
  ASSERT_EQ(cudaSetDevice(12345), cudaErrorInvalidDevice);
  status const s = r.fill();
  EXPECT_TRUE(s.ok()) << to_string(s) << ": " << s.argument();
  EXPECT_TRUE((traits::supports<agent, counted_numbers>(cuda{})));
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
  cuda_backend::finish();
  EXPECT_TRUE(r.complete());
}

TEST_F(cuda_launch, too_much_shared_memory_leaves_no_error) {
  int const most = most_shared_memory();
  results r(most + 1);
  status const s = r.fill();
  EXPECT_EQ(s, status_code::unsupported_device);
  EXPECT_STREQ(s.argument(), "cudaErrorInvalidValue");
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  // Whether or not the launch succeeds, an earlier error stays.
  ASSERT_EQ(cudaSetDevice(12345), cudaErrorInvalidDevice);
  EXPECT_EQ(r.fill(), status_code::unsupported_device);
  EXPECT_NE(cudaGetLastError(), cudaSuccess);
  results all(most);
  EXPECT_TRUE(all.fill().ok());
  cuda_backend::finish();
  EXPECT_TRUE(all.complete());
}

TEST_F(cuda_launch, a_refused_launch_leaves_no_error) {
  tensor<float, 1> out({100}, {0});
  counted_numbers const p{out.view().data, 100};
  status const s = traits::launch<too_clustered_agent<block_group<threads>>>(cuda{}, p, 1, {400, 0}, {});
  EXPECT_EQ(s, status_code::launch_failed);
  EXPECT_EQ(std::string(s.argument()).rfind("cudaError", 0), 0u) << s.argument();
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  cuda_backend::finish();
}

TEST_F(cuda_launch, is_captured) {
  results r(80000);
  cudaStream_t stream{};
  cudaGraph_t graph{};
  cudaGraphExec_t ready{};
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_TRUE(r.fill(stream).ok());
  EXPECT_TRUE((traits::supports<agent, counted_numbers>(cuda{stream})));
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  std::size_t nodes = 0;
  EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
  EXPECT_EQ(nodes, 1u);
  EXPECT_FALSE(r.complete());
  ASSERT_EQ(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(ready, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_TRUE(r.complete());
  EXPECT_EQ(cudaGraphExecDestroy(ready), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

/// All kernels but the first one overlap the end of the previous one; a launch without items is none.
struct cuda_overlapping_launch : cuda_launch {
  using adding = increment_agent<block_group<threads>>;
  static constexpr int count = 100, launches = 4;
  tensor<float, 1> values_{{adding::all_items * count}, {0}};
  counted_numbers const all_{values_.view().data, count};

  void SetUp() override {
    cuda_launch::SetUp();
    for (index_t i = 0; i < values_.count(); i++) *values_.at(i) = 0;
    cuda_backend::finish();
  }
  void add(cuda& e) const {
    for (int n = 0; n < launches; n++) EXPECT_TRUE(launch<adding>(e, all_).ok());
  }
  void expect_added(int times) const {
    for (index_t i = 0; i < values_.count(); i++) ASSERT_EQ(*values_.at(i), float(times * launches)) << i;
  }
};

TEST_F(cuda_overlapping_launch, follows_the_kernels_before_it) {
  cuda e{};
  EXPECT_TRUE(launch<adding>(e, {all_.to, 0}).ok());
  EXPECT_FALSE(e.overlap_launch);
  add(e);
  EXPECT_TRUE(e.overlap_launch);
  add(e);
  cuda_backend::finish();
  expect_added(2);
}

TEST_F(cuda_overlapping_launch, is_captured) {
  cuda e{};
  cudaGraph_t graph{};
  cudaGraphExec_t ready{};
  ASSERT_EQ(cudaStreamCreateWithFlags(&e.stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(e.stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  add(e);
  ASSERT_EQ(cudaStreamEndCapture(e.stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
  for (int n = 0; n < 3; n++) EXPECT_EQ(cudaGraphLaunch(ready, e.stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(e.stream), cudaSuccess);
  expect_added(3);
  EXPECT_EQ(cudaGraphExecDestroy(ready), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(e.stream), cudaSuccess);
}

/// Code for older devices does not wait, so its kernels must not overlap.
TEST_F(cuda_overlapping_launch, only_if_the_code_waits) {
  detail::kernel_launch<adding, counted_numbers> launch(1, 1, {}, nullptr);
  cudaFuncAttributes code{};
  ASSERT_EQ(cudaFuncGetAttributes(&code, launch.kernel), cudaSuccess);
  launch.overlap();
  EXPECT_EQ(launch.config.numAttrs, code.ptxVersion >= 90 && CUDART_VERSION >= 12030 ? 1u : 0u);
}

}  // namespace
}  // namespace tcnca::testing
