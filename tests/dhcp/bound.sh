#!/bin/sh
# What udhcpc runs when it has a lease: the address, and the MTU if one is offered. Nothing else of the
# machine is touched, as the distribution's own script would touch its resolver.
set -e
case $1 in
deconfig)
    ip link set "$interface" up
    ip -4 addr flush dev "$interface"
    ;;
bound | renew)
    [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
    ip addr replace "$ip/$mask" dev "$interface"
    ;;
esac
