// Kernels whose counts are known, for control.py.
#include <tcnca/arch/bulk_copy.hpp>
#include <tcnca/arch/wgmma.hpp>
#include <tcnca/block/pipeline.hpp>

using namespace tcnca;
using namespace tcnca::detail;

/// Its special functions mark how often a loop runs.
__global__ void known(float* out, float const* in, unsigned long long a, unsigned long long b, int c, int rows,
                      int stride) {
  __shared__ float s[1024];
  int const lane = int(threadIdx.x);
  float x = 0;
  auto const mark = [&](long long times) {
#pragma unroll 1
    for (long long i = 0; i < times; i++) asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
  };
  // Integers: the counts are right only if the results are.
  mark((long long)(a / b) - (long long)(a % b) % 5);
  mark((long long)c * 0x123456789ll >> 40 & 63);
  mark(__popc(unsigned(c)) + __clz(c) + c % 13 + (c >> 5 & 31) + int(__umulhi(unsigned(c), 0x80000001u) & 31));
  mark(__shfl_xor_sync(~0u, lane, 5) == (lane ^ 5) ? 1 : 100);
  // Lanes that diverge: the largest count of the warp.
  mark(lane * lane % 7);
  if (lane & 1) mark(lane / 8);
  else mark(2);
  __syncwarp();
  // Memory: 4 sectors and `stride` wavefronts of stores for a row; 2 wavefronts of 16 lanes with 8 bytes each.
#pragma unroll 1
  for (int i = 0; i < rows; i++) s[lane * stride + i & 1023] = in[i * 32 + lane];
  __syncthreads();
  float2 const y = reinterpret_cast<float2*>(s)[lane];
  out[lane * 8] = x + y.x + y.y;
}

/// Products whose counts are known: `times` of 64 x 64 x 16 by a warpgroup, twice as many of 16 x 8 x 16 by each warp,
/// and as many copies of a tile to the blocks of a mask.
__global__ void __launch_bounds__(128) products(float* out, __grid_constant__ tensor_map const map, int times) {
  extern __shared__ __align__(1024) char memory[];
  unsigned const shared = unsigned(__cvta_generic_to_shared(memory));
  float c[8][4] = {}, d[4] = {};
#pragma unroll 1
  for (int i = 0; i < times; i++) {
    wgmma_fence();
    wgmma_64x64x16<bf16, false, false>(c, shared, shared, true);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_result(c);
    for (int k = 0; k < 2; k++)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %4, %4, %4}, {%4, %4}, "
          "{%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(i));
    if (threadIdx.x == 0) load_tensor_tile(shared, &map, {0, 0, 0, 0}, shared, uint16(5));
  }
  float sum = 0;
  for (int i = 0; i < 32; i++) sum += c[i / 4][i % 4];
  out[threadIdx.x] = sum + d[0] + d[1] + d[2] + d[3];
}
/// What ptxas must report: products one after another, because their result is changed before the wait; and spills.
__global__ void __launch_bounds__(128) serialized(float* out, float x) {
  extern __shared__ __align__(1024) char memory[];
  unsigned const shared = unsigned(__cvta_generic_to_shared(memory));
  float c[8][4] = {};
  wgmma_fence();
  wgmma_64x64x16<bf16, false, false>(c, shared, shared, true);
  for (int i = 0; i < 32; i++) c[i / 4][i % 4] += x;
  wgmma_64x64x16<bf16, false, false>(c, shared, shared, true);
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < 32; i++) out[i * 128 + threadIdx.x] = c[i / 4][i % 4];
}
__global__ void __launch_bounds__(1024, 2) spilled(float* out, float const* in) {
  float x[64];
  for (int i = 0; i < 64; i++) x[i] = in[i * 1024 + threadIdx.x];
  __syncthreads();
  for (int i = 0; i < 64; i++) out[i * 1024 + threadIdx.x] = x[i] * x[63 - i];
}
