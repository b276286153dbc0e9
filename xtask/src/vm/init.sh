#!/bin/busybox sh
# PID 1 of the guest: runs the suites, each line of /suites a program and its arguments. Results go
# to the second serial port, as the test harness prints them, what interoperates to the third,
# everything else to the console. Captures go to the disk, as an archive.

export PATH=/bin:/sbin:/usr/bin:/usr/sbin XGRE_BIN=/bin/xgre RUST_BACKTRACE=0
export XGRE_INTEROP=/dev/ttyS2 XGRE_CAPTURES=/tmp/captures

busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t bpf bpf /sys/fs/bpf
busybox mount -t tmpfs tmpfs /run
busybox mount -t tmpfs tmpfs /tmp
busybox mkdir /tmp/captures

while read -r module; do
    busybox insmod "/modules/$module" || echo "the module $module could not be loaded"
done < /modules/order

# Tabs and line ends as they are written.
busybox stty -F /dev/ttyS2 raw
exec > /dev/ttyS1
echo "kernel $(busybox uname -r)"
while read -r suite arguments; do
    echo "suite $suite"
    "/tests/$suite" $arguments < /dev/null
    echo "exit $?"
done < /suites
busybox tar -c -f /dev/vda -C /tmp/captures . || echo "the captures could not be written"
echo "used $(busybox cat /proc/uptime)"
echo "end"
busybox sync
busybox poweroff -f
