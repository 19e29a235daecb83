#!/bin/sh
# check_includes_control.sh: check_includes.sh must report each broken rule of a small tree, and nothing else.
set -eu
check=$(cd "$(dirname "$0")" && pwd)/check_includes.sh
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cd "$tree"
# put FILE LINE...
put() { mkdir -p "$(dirname "$1")"; file=$1; shift; printf '%s\n' "$@" >"$file"; }
library=include/tcnca
put $library/core/a.hpp '#include "../launch/a.hpp"' 'namespace tcnca {}'
put $library/launch/a.hpp '#include "../../../test/a.hpp"' 'namespace tcnca::inline TCNCA_TARGET {}'
put $library/one/shape.hpp 'namespace tcnca {}' '  a.b = {.c = 1};' '  d e = {.c = 1};'
put $library/one/a.hpp '#include "../two/a.hpp"' '#include "shape.hpp"' 'namespace tcnca::inline TCNCA_TARGET {}'
put $library/one/folder/a.hpp '#include "../../two/a.hpp"' '#include "../shape.hpp"' '#include "../../core/a.hpp"' \
  'namespace tcnca {}'
put $library/two/a.hpp 'namespace tcnca {}' '#define TCNCA_A' '#define TCNCA_B' '#define TCNCA_C' '#define TCNCA_D' \
  '#define TCNCA_E' '#define TCNCA_F' '#define TCNCA_G' '#define TCNCA_H'
put $library/two.hpp '#include "one/a.hpp"' '#include "two/a.hpp"'
put $library/tcnca.hpp '#include "one.hpp"' '#include "two.hpp"'
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13; do put $library/one/deep$n.hpp "#include \"deep$((n + 1)).hpp\""; done
put $library/one/deep14.hpp ''
put $library/one.hpp '#include "one/deep1.hpp"'
put test/a.hpp ''
put test/reference/a.hpp '#include <tcnca/launch/a.hpp>' '#include <tcnca/core/a.hpp>'
put examples/models/a.hpp '#include <tcnca/one/a.hpp>' '#include <tcnca/one.hpp>'
awk 'BEGIN { for (i = 0; i < 401; i++) print "" }' >test/long.cpp
mkdir bench cmake

cat >expected <<'END'
examples/models/a.hpp:1: includes include/tcnca/one/a.hpp, which is internal
include/tcnca/core/a.hpp:1: includes include/tcnca/launch/a.hpp, which is a layer above
include/tcnca/launch/a.hpp:1: includes test/a.hpp, which is not in the library
include/tcnca/one.hpp: 14 headers deep, at most 12
include/tcnca/one/a.hpp:1: includes include/tcnca/two/a.hpp, which is another operation
include/tcnca/one/folder/a.hpp:1: includes include/tcnca/two/a.hpp, which is another operation
include/tcnca/one/folder/a.hpp:4: not in namespace tcnca::inline TCNCA_TARGET
include/tcnca/one/shape.hpp:2: the braced list needs its type: nvcc drops its designators
include/tcnca/tcnca.hpp: 15 headers deep, at most 12
include/tcnca/two.hpp:1: includes include/tcnca/one/a.hpp, which is another operation
include/tcnca/two/a.hpp:1: not in namespace tcnca::inline TCNCA_TARGET
more than seven macros:
test/long.cpp: more than 400 lines
test/reference/a.hpp:1: includes include/tcnca/launch/a.hpp, but a reference includes core only
END
if "$check" "$tree" >found; then echo "check_includes.sh succeeded"; exit 1; fi
sed -E 's/(at most 12|macros:).*/\1/' found | LC_ALL=C sort | diff expected -
