#!/bin/sh
# systemd-networkd on its own, with the files in directory $1, in a mount namespace that it is the only one in.
# Without a service manager there is neither bus nor udev; it does not wait for udev where /sys is read-only.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run/systemd
mount -t tmpfs tmpfs /etc/systemd/network
mount -t sysfs -o ro sysfs /sys
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network: /run/systemd/netif
cp -r "$1" /run/systemd/network
chmod -R a+rX /run/systemd/network
SYSTEMD_LOG_TARGET=console exec /lib/systemd/systemd-networkd
