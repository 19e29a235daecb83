// Aligned workspace memory for the examples.
#pragma once
#include <tcnca/core/workspace.hpp>

#include <new>

/// Allocates and owns a workspace.
class scratch_memory {
 public:
  explicit scratch_memory(std::size_t bytes)
      : space_{::operator new(bytes, std::align_val_t(tcnca::workspace::alignment)), bytes} {}
  ~scratch_memory() { ::operator delete(space_.data, std::align_val_t(tcnca::workspace::alignment)); }
  scratch_memory(scratch_memory const&) = delete;
  scratch_memory& operator=(scratch_memory const&) = delete;
  operator tcnca::workspace() const { return space_; }

 private:
  tcnca::workspace space_;
};
