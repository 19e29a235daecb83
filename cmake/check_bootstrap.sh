#!/bin/bash
# check_bootstrap.sh: README's two commands on a fresh machine, which is a minimal root of this machine's Debian or Ubuntu release, made by debootstrap from
# the mirror that apt is set to. In `bare` both run up to the end of configuration, and the demo in its short form to its report; `netlib` also has
# libblas-dev, whose cblas.h is not that of OpenBLAS. Wants root. Ends with 77 where that cannot be done.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

skip() { echo "check_bootstrap: SKIPPED: $*"; exit 77; }
fail() { echo "check_bootstrap: $*" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || skip "not root"
command -v debootstrap >/dev/null || skip "debootstrap is not installed"
unshare --mount true 2>/dev/null || skip "mounts of our own are not permitted here"
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
targets() { apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages'; }
[ -n "$(targets)" ] || apt-get update -qq
targets=$(targets)
mirror=$(awk -v release="$release" '$2 == release && $3 == "main" { print $1; exit }' <<<"$targets")
[ -n "$mirror" ] || skip "apt is set to no mirror of the release \"$release\""
components=$(awk -v mirror="$mirror" '$1 == mirror { print $3 }' <<<"$targets" | sort -u | paste -sd ,)

roots=$(mktemp -d)
trap 'rm -rf --one-file-system -- "$roots"' EXIT
tree="/home/a fresh clone"

# inside ROOT COMMAND...: in the tree's copy there. The mounts are in a namespace that ends with the command, so nothing is left to unmount, and what
# removes the roots cannot reach through them; nor does a process outlive this script.
inside() {
  local name keep=()
  for name in http_proxy https_proxy no_proxy CMAKE_BUILD_PARALLEL_LEVEL; do [ -z "${!name:-}" ] || keep+=("$name=${!name}"); done
  setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child \
    sh -ec 'root=$1; shift; mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"; exec chroot "$root" "$@"' sh "$1" \
    env -i --chdir="$tree" "${keep[@]}" PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "TCNCA_DEMO_SECONDS=${TCNCA_DEMO_SECONDS:-60}" "${@:2}"
}
step() { printf -- '--- %s (%d s)\n' "$*" "$SECONDS"; }
must_fail_with() { fail "this had to fail and to say \"$1\": $2"; }

step "a root of $release"
# In a mount namespace of its own, too: what debootstrap mounts in the root ends with it, even if it is killed.
case "$mirror" in https:*) secure=(--include=ca-certificates) ;; *) secure=() ;; esac
unshare --mount debootstrap --variant=minbase --components="$components" "${secure[@]}" "$release" "$roots/bare" "$mirror" >"$roots/log" 2>&1 || { tail "$roots/log"; fail "debootstrap failed"; }
cp --dereference /etc/hosts "$roots/bare/etc/hosts"
# How this machine's apt reaches its mirror; and without the waits for the disk that a root of minutes does not need.
apt-config dump | grep -E '^Acquire::(http|https|Check)[-:]' >"$roots/bare/etc/apt/apt.conf.d/90of-this-machine" || true
[ ${#secure[@]} -eq 0 ] || cp --dereference /etc/ssl/certs/ca-certificates.crt "$roots/bare/etc/ssl/certs/"
echo force-unsafe-io >"$roots/bare/etc/dpkg/dpkg.cfg.d/unsafe-io"
mkdir "$roots/bare$tree"
tar --exclude-vcs --exclude=./build --exclude=./shared -c . | tar -x --no-same-owner -C "$roots/bare$tree"
cp -a "$roots/bare" "$roots/netlib"

step "neither root nor sudo"
output=$(inside "$roots/bare" setpriv --reuid=nobody ./cmake/bootstrap.sh demo 2>&1) && must_fail_with "neither root nor sudo" "$output"
[[ $output = *"neither root nor sudo"*libopenblas-dev* ]] || must_fail_with "neither root nor sudo" "$output"

step "bare: test, configuration"
inside "$roots/bare" ./cmake/bootstrap.sh test --configure-only
step "bare: demo"
inside "$roots/bare" ./cmake/bootstrap.sh demo
report="$roots/bare$tree/build/demo/report.md"
[ -s "$report" ] || fail "the demo left no report"
cat "$report"

step "netlib: both configurations"
cp "$roots/bare/var/cache/apt/archives/"*.deb "$roots/netlib/var/cache/apt/archives/"
inside "$roots/netlib" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends libblas-dev >/dev/null'
for preset in test demo; do inside "$roots/netlib" ./cmake/bootstrap.sh "$preset" --configure-only; done

step "netlib: without OpenBLAS and two more, one message names all"
inside "$roots/netlib" sh -c 'dpkg --purge --force-depends $(dpkg-query -W -f "\${Package}\n" "libopenblas*-dev" libfftw3-dev libbenchmark-dev) >/dev/null'
output=$(inside "$roots/netlib" cmake --fresh --preset demo 2>&1) && must_fail_with "a message" "$output"
for package in libopenblas-dev libfftw3-dev libbenchmark-dev; do [[ $output = *"apt-get install "*"$package"* ]] || must_fail_with "$package" "$output"; done
step "all passed"
