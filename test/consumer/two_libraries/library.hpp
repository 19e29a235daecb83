#pragma once

struct io {
  alignas(256) unsigned char scratch[1 << 20];
  float x[8], weight[4], y[8];
};

/// Returns an error message, or null on success.
char const* run_sm_80(bool on_device, io&);
char const* run_sm_90a(bool on_device, io&);
