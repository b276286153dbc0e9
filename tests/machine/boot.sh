#!/bin/sh
# What a container manager does before PID 1 starts. The root file system in $1 stays as it is: what is
# written to it goes to memory. The network namespace is whose this was started in.
set -e
mount -t tmpfs tmpfs "$2"
cd "$2"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" root
cd root
mount -t proc proc proc
# The kernel's settings are this machine's, but for those of the network namespace.
mount --bind -o ro proc/sys proc/sys
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=0700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
# Of its own: what somebody in there does to a device's mode must not be done to this machine's.
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mkdir old
pivot_root . old
umount -l old
rmdir old
exec env -i container=xgre PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --show-status=0 --log-target=console
