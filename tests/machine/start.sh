#!/bin/sh
# systemd as PID 1 of namespaces of its own. $1 is the root file system, $2 a control group for it,
# $3 an empty directory.
set -e
echo $$ > "$2/cgroup.procs"
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child \
    sh "${0%/*}/boot.sh" "$1" "$3"
