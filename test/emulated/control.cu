// Control of the CUDA runtime that interprets PTX. It must report no fault for the argument "nothing", and for each
// other argument the fault of that name.
#include <cstdio>
#include <cstring>

enum fault { nothing, race, uninitialised, bounds, alignment, dependency };

__global__ void faulty(fault what, int* out) {
  __shared__ int numbers[64];
  int const i = int(threadIdx.x);
  if (what != uninitialised || i > 0) numbers[i] = i;
  if (what != race) __syncthreads();
  out[i] = numbers[63 - i];
  if (what == bounds && i == 0) out[64] = 1;
  if (what == alignment && i == 0) *reinterpret_cast<int2*>(out + 1) = {0, 0};
}

int main(int argc, char** argv) {
  char const* const names[] = {"nothing", "race", "uninitialised", "bounds", "alignment", "dependency"};
  for (int what = nothing; what <= dependency; what++) {
    if (argc != 2 || std::strcmp(argv[1], names[what]) != 0) continue;
    int* out = nullptr;
    if (cudaMalloc(&out, 64 * sizeof(int)) != cudaSuccess) break;
    faulty<<<1, 64>>>(fault(what), out);
    bool good = true;
    if (what == dependency) {  // overlaps the kernel before it, and does not wait
      cudaLaunchAttribute attribute{};
      attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attribute.val.programmaticStreamSerializationAllowed = 1;
      cudaLaunchConfig_t config{};
      config.gridDim = dim3(1), config.blockDim = dim3(64), config.attrs = &attribute, config.numAttrs = 1;
      good = cudaLaunchKernelEx(&config, faulty, nothing, out) == cudaSuccess;
    }
    good = cudaDeviceSynchronize() == cudaSuccess && good;
    std::printf("%s: %s\n", names[what], good ? "done" : "failed");
    return good ? 0 : 1;
  }
  std::printf("nothing was launched\n");
  return 0;  // the tests of faults expect a failure
}
