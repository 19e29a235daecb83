#!/bin/bash
# check_vcpkg.sh CMAKE CONSUMER [VCPKG]: the manifest of the vcpkg port has the version of the library. With a checkout
# of vcpkg, its scripts then run the port as `vcpkg install` does, without a network and without the vcpkg program: the
# helper ports, the port, and a project in the folder CONSUMER that uses the package.
set -euo pipefail
cmake=$1 consumer=$2 vcpkg=${3:-}
root=$(cd "$(dirname "$0")/.." && pwd)
port=$root/cmake/packages/vcpkg/tcnca
fail() { echo "check_vcpkg: $*"; exit 1; }

version=$(sed -n 's/.*version_\(major\|minor\|patch\) = \([0-9]*\);.*/\2/p' "$root/include/tcnca/core/version.hpp" |
  paste -s -d .)
grep -q "\"version\": \"$version\"" "$port/vcpkg.json" || fail "the port's manifest has not the version $version"
[ -f "$vcpkg/scripts/ports.cmake" ] || { echo "skipped: no checkout of vcpkg (set VCPKG_ROOT)"; exit 77; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
share=$folder/installed/x64-linux/share
mkdir -p "$share"
# install_port NAME FOLDER [CONFIGURATION]: what the vcpkg program does for a port. Nothing has a run path to correct.
install_port() {
  VCPKG_FORCE_SYSTEM_BINARIES=1 "$cmake" -D CMD=BUILD -D PORT="$1" -D CURRENT_PORT_DIR="$2" -D VERSION="$version" \
    -D TARGET_TRIPLET=x64-linux -D _HOST_TRIPLET=x64-linux -D TARGET_TRIPLET_FILE="$vcpkg/triplets/x64-linux.cmake" \
    -D VCPKG_ROOT_DIR="$vcpkg" -D DOWNLOADS="$folder/downloads" -D BUILDTREES_DIR="$folder/buildtrees" \
    -D PACKAGES_DIR="$folder/packages" -D _VCPKG_INSTALLED_DIR="$folder/installed" -D VCPKG_BASE_VERSION=2999-12-31 \
    -D FEATURES=core -D ALL_FEATURES= -D VCPKG_CONCURRENCY=1 -D VCPKG_FIXUP_ELF_RPATH=OFF \
    -D VCPKG_PORT_CONFIGS="${3:-}" -P "$vcpkg/scripts/ports.cmake"
  cp -R "$folder/packages/$1_x64-linux/." "$folder/installed/x64-linux"
}
helpers=
for helper in vcpkg-cmake vcpkg-cmake-config; do
  install_port $helper "$vcpkg/ports/$helper"
  helpers+="$share/$helper/vcpkg-port-config.cmake;"
done
install_port tcnca "$port" "${helpers%;}"
# What the vcpkg program checks after a port: a copyright, no empty folders, no files of CMake outside share/<port>.
package=$folder/packages/tcnca_x64-linux
for file in share/tcnca/{copyright,usage,tcnca-config.cmake,tcnca-config-version.cmake} include/tcnca/tcnca.hpp; do
  [ -f "$package/$file" ] || fail "the package has no $file"
done
[ -z "$(find "$package" -type d -empty)" ] || fail "the package has empty folders"
for other in debug lib bin share/cmake share/doc; do
  [ ! -e "$package/$other" ] || fail "the package has a folder $other"
done

"$cmake" -S "$consumer" -B "$folder/consumer" -D CONSUMER_WAY=find_package -D CMAKE_BUILD_TYPE=Debug \
  -D CMAKE_PREFIX_PATH="$folder/installed/x64-linux"
grep -q "^tcnca_DIR:PATH=$share/tcnca$" "$folder/consumer/CMakeCache.txt" || fail "another package was found"
"$cmake" --build "$folder/consumer"
"$folder/consumer/consumer"
