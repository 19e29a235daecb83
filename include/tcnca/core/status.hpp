// The result of an entry point.
#pragma once
#include "config.hpp"

namespace tcnca {

enum class status_code : int {
  success,
  invalid_extent,
  invalid_stride,
  invalid_position,
  invalid_value,
  null_pointer,
  misaligned_pointer,
  overlap,
  missing_argument,
  unexpected_argument,
  workspace_too_small,
  workspace_misaligned,
  invalid_executor,
  unsupported_device,
  launch_failed,
};

/// The numbers that tell what is wrong with an argument. See describe() in text.hpp.
struct status_detail {
  char const* what = "";   ///< what `actual` is: "extent", "stride", "bytes", "element", "length" (of a sequence) or ""
  int axis = -1;           ///< of the extent or the stride; the number of the element or the sequence
  index_t actual = 0;      ///< that of the argument
  index_t expected = -1;   ///< what it must be, or (bytes) the least number; -1: not a single number
  char const* other = "";  ///< the argument that it overlaps
};

/// The result of an entry point: a code and, if an argument is at fault, its name. Unless the code is success, nothing
/// was enqueued and nothing was written; exception: launch_failed may come from a later launch
/// of several.
class [[nodiscard]] status {
 public:
  constexpr status() = default;
  TCNCA_HOST_DEVICE constexpr status(status_code code, char const* argument = "", status_detail const& detail = {})
      : code_(code), argument_(argument), detail_(detail) {}

  TCNCA_HOST_DEVICE constexpr bool ok() const { return code_ == status_code::success; }
  TCNCA_HOST_DEVICE constexpr status_code code() const { return code_; }
  /// The name of the argument at fault, as in the argument struct, or "". For errors of the CUDA runtime: its name of
  /// the error.
  TCNCA_HOST_DEVICE constexpr char const* argument() const { return argument_; }

  TCNCA_HOST_DEVICE constexpr status_detail const& detail() const { return detail_; }

  TCNCA_HOST_DEVICE friend constexpr bool operator==(status a, status_code b) { return a.code_ == b; }

 private:
  status_code code_ = status_code::success;
  char const* argument_ = "";
  status_detail detail_;
};

}  // namespace tcnca

namespace tcnca::inline TCNCA_TARGET {

/// A message for the code, without the name of the argument (status::argument()).
constexpr char const* to_string(status s) {
  switch (s.code()) {
    case status_code::success: return "the call succeeded";
    case status_code::invalid_extent:
      return "an extent is negative, too large, or not what the other arguments and the shape ask for";
    case status_code::invalid_stride:
      return "a stride is wrong: none may be negative, the layout's contiguous axis must have stride 1, outputs must "
             "not fold onto themselves, and a tensor must fit the address space";
    case status_code::invalid_position:
      return "the position is negative, above 2^62, or not the beginning of a chunk where it must be";
    case status_code::invalid_value: return "a number is outside of the range that the args struct states";
    case status_code::null_pointer: return "a tensor has elements but a null pointer (an absent one has neither)";
    case status_code::misaligned_pointer: return "a pointer is not aligned to its element type";
    case status_code::overlap: return "an output overlaps another argument";
    case status_code::missing_argument: return "an argument that the shape asks for is absent";
    case status_code::unexpected_argument: return "an argument is present that the shape has no use for";
    case status_code::workspace_too_small:
      return "the workspace is smaller than what one worker needs; the workspace query says what all need";
    case status_code::workspace_misaligned: return "the workspace is not aligned to 64 bytes";
    case status_code::invalid_executor:
      return "the executor's values are invalid (cpu: the number of threads is negative)";
    case status_code::unsupported_device: return "the current device cannot run the code that was compiled";
    case status_code::launch_failed:
      return "the CUDA runtime refused a launch; status::argument() is its name of the error";
  }
  return "the status code is unknown";
}

}  // namespace tcnca
