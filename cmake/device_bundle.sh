#!/bin/sh
# device_bundle.sh <folder> <program>...: copies the programs, stripped, to <folder>/bin; the shared libraries that
# they need and that a machine with the CUDA toolkit does not have, to <folder>/lib; device_run.sh to <folder>/run.sh.
# Fails if the folder is larger than TCNCA_BUNDLE_MB (60).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?folder}
shift
rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib"

for program in "$@"; do
  strip -o "$folder/bin/$(basename "$program")" "$program"
  # Libraries of the C library, the driver and the toolkit are not copied.
  ldd "$program" | while read -r name _ path _; do
    case $name in
      linux-vdso.so* | */ld-linux* | ld-linux*) continue ;;
      libc.so* | libm.so* | libpthread.so* | libdl.so* | librt.so*) continue ;;
      libcuda.so* | libcudart.so* | libcufft.so* | libcublas*.so* | libnvJitLink.so*) continue ;;
    esac
    [ -e "$path" ] || { echo "device_bundle.sh: $(basename "$program") needs $name, which was not found" >&2; exit 1; }
    [ -e "$folder/lib/$name" ] || cp -L "$path" "$folder/lib/$name"
  done
done
cp "$here/device_run.sh" "$folder/run.sh"
chmod +x "$folder/run.sh"
git -C "$here" describe --always --dirty >"$folder/commit" 2>/dev/null || echo unknown >"$folder/commit"

kilobytes=$(du -sk --apparent-size "$folder" | cut -f1)
most=${TCNCA_BUNDLE_MB:-60}
echo "$folder: $(find "$folder/bin" -type f | wc -l) programs, $((kilobytes / 1000)).$((kilobytes % 1000 / 100)) MB"
if [ "$kilobytes" -gt $((most * 1000)) ]; then
  echo "device_bundle.sh: the bundle may have $most MB. The largest parts:" >&2
  du -k --apparent-size "$folder"/bin/* "$folder"/lib/* | sort -rn | head -5 >&2
  exit 1
fi
