// A kernel whose counts are known, for control.py. Its special functions mark how often a loop runs.
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
