// Addresses for calls whose kernels are counted and not run.
#pragma once
#include <cstdint>

/// Address `which` of those that the call works with, 16 TiB apart. Only kernels would use it.
template <class Element>
Element* address(std::uintptr_t which) {
  return reinterpret_cast<Element*>(which << 44);
}
