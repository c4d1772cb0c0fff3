#!/bin/busybox sh
# First program of the test machine: a root that can be left, the file systems, then the checks.
/bin/busybox echo BOOTED
/bin/busybox mkdir -p /next
/bin/busybox mount -t tmpfs -o size=2500m,mode=755 root /next
/bin/busybox cp -a /bin /sbin /lib /lib64 /etc /machine /dev /proc /sys /run /tmp /root /var /next/ 2>/dev/null
exec /bin/busybox switch_root /next /bin/busybox sh /machine/checks.sh
