// The commit from which a program was built.
#pragma once

namespace tcnca::bench {

/// "3a5d911", with "-dirty" if files differed from it; "unknown" without git. It is determined at every build: at
/// configuration or at run time, git would describe a different state of the files.
char const* built_commit();

}  // namespace tcnca::bench
