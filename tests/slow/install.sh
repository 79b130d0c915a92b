#!/usr/bin/env bash
# Install the programs that the slow tests run: Scipion from PyPI, the others from the archive of Debian 12. What is there
# already stays as it is.
set -euo pipefail
packages=(relion slurm-wlm podman runc debootstrap chromium)
"$(dirname "$0")"/install_scipion.sh

missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "slow tests: ${missing[*]} not installed, which takes root on a Debian system; their tests are skipped" >&2
    exit 0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "slow tests: ${missing[*]} could not be installed" >&2
    exit 1
fi
