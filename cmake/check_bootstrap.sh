#!/bin/bash
# check_bootstrap.sh: README's two commands on a fresh machine. The machine is a minimal root of the Debian or Ubuntu
# release of this one, made by debootstrap from apt's mirror. There the test preset is configured, the demo runs in its
# short form and leaves a report, and both presets are configured again with libblas-dev, whose cblas.h is not the one
# of OpenBLAS. Needs root. Exit status 77: it cannot be done here.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

skip() { echo "check_bootstrap: SKIPPED: $*"; exit 77; }
fail() { echo "check_bootstrap: $*" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || skip "not root"
command -v debootstrap >/dev/null || skip "debootstrap is not installed"
unshare --mount true 2>/dev/null || skip "this process may not mount file systems"
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
targets() { apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages'; }
[ -n "$(targets)" ] || apt-get update -qq
targets=$(targets)
mirror=$(awk -v release="$release" '$2 == release && $3 == "main" { print $1; exit }' <<<"$targets")
[ -n "$mirror" ] || skip "apt has no mirror of the release \"$release\""
components=$(awk -v mirror="$mirror" '$1 == mirror { print $3 }' <<<"$targets" | sort -u | paste -sd ,)

work=$(mktemp -d)
root=$work/root
trap 'rm -rf --one-file-system -- "$work"' EXIT
tree="/home/a fresh clone"

# inside COMMAND...: runs it in the root, in the copy of the tree. The mounts are in a namespace that ends with the
# command: there is nothing to unmount, the removal of the root cannot reach through them, and no process outlives this
# script.
inside() {
  local name keep=()
  for name in http_proxy https_proxy no_proxy CMAKE_BUILD_PARALLEL_LEVEL; do
    [ -z "${!name:-}" ] || keep+=("$name=${!name}")
  done
  setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child sh -ec \
    'root=$1; shift
    mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"; exec chroot "$root" "$@"' sh "$root" \
    env -i --chdir="$tree" "${keep[@]}" PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    "TCNCA_DEMO_SECONDS=${TCNCA_DEMO_SECONDS:-30}" "$@"
}
step() { printf -- '--- %s (%d s)\n' "$*" "$SECONDS"; }
must_fail_with() { fail "the command must fail and print \"$1\": $2"; }

step "a root of $release"
case "$mirror" in https:*) secure=(--include=ca-certificates) ;; *) secure=() ;; esac
# In a mount namespace: what debootstrap mounts ends with it, even if it is killed.
unshare --mount debootstrap --variant=minbase --components="$components" "${secure[@]}" "$release" "$root" "$mirror" \
  >"$work/log" 2>&1 || { tail "$work/log"; fail "debootstrap failed"; }
cp --dereference /etc/hosts "$root/etc/hosts"
# apt reaches its mirror as on this machine, and dpkg does not wait for the disk.
apt-config dump | grep -E '^Acquire::(http|https|Check)[-:]' >"$root/etc/apt/apt.conf.d/90of-this-machine" || true
[ ${#secure[@]} -eq 0 ] || cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
mkdir "$root$tree"
tar --exclude-vcs --exclude=./build --exclude=./shared -c . | tar -x --no-same-owner -C "$root$tree"

step "neither root nor sudo"
output=$(inside setpriv --reuid=nobody ./cmake/bootstrap.sh demo 2>&1) &&
  must_fail_with "neither root nor sudo" "$output"
[[ $output = *"neither root nor sudo"*libopenblas-dev* ]] || must_fail_with "neither root nor sudo" "$output"

step "test: configuration"
inside ./cmake/bootstrap.sh test --configure-only
step "demo"
inside ./cmake/bootstrap.sh demo
report="$root$tree/build/demo/report.md"
[ -s "$report" ] || fail "the demo left no report"
cat "$report"

step "with libblas-dev: both configurations"
inside sh -c 'apt-get install -y -qq --no-install-recommends libblas-dev >/dev/null && rm -rf build'
for preset in test demo; do inside ./cmake/bootstrap.sh "$preset" --configure-only; done

step "without OpenBLAS and two more: one message names all"
inside sh -c 'dpkg --purge --force-depends \
  $(dpkg-query -W -f "\${Package}\n" "libopenblas*-dev" libfftw3-dev libbenchmark-dev) >/dev/null'
output=$(inside cmake --fresh --preset demo 2>&1) && must_fail_with "a message" "$output"
for package in libopenblas-dev libfftw3-dev libbenchmark-dev; do
  [[ $output = *"apt-get install "*"$package"* ]] || must_fail_with "$package" "$output"
done
step "all passed"
