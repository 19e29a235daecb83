// Negative control: the check must report this kernel's stack frame.
__global__ void indexed_registers(float* x, int i) {
  float values[40];
  for (int k = 0; k < 40; k++) values[k] = x[k];
  for (int k = 0; k < 40; k++) values[(k * i) % 40] += x[k + i];
  x[0] = values[i];
}
