// The commit that a program was built of.
#pragma once

namespace tcnca::bench {

/// "3a5d911", with "-dirty" where files differed from it; "unknown" without git. It is looked up at every build, not when CMake configures, and not when
/// the program runs: git would then describe the tree as it is by that time, not the binary.
char const* built_commit();

}  // namespace tcnca::bench
