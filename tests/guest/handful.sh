#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 2G --timeout 240
#
# A large image whose clusters are all allocated is mapped by few faults, wherever
# it is read: its tables' entries continue each other, and so do the extents.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio qemu-img

mkfs.ext4 -q /dev/vda
mkdir -p /tmp/below
mount /dev/vda /tmp/below
qemu-img create -q -f qcow2 -o preallocation=metadata /tmp/below/a.qcow2 64G
dev=$(ubdmap add /tmp/below/a.qcow2)
n=${dev#/dev/ubdmap}
note "at the start: $(counter faults) faults, $(counter extents) extents"
check "it is read at 4,000 random places" fio --name=r --filename="$dev" --direct=1 \
	--ioengine=io_uring --iodepth=8 --rw=randread --bs=4k --number_ios=4000
faults=$(counter faults)
note "then: $faults faults, $(counter extents) extents, $(counter read_misses) misses"
check "64 GiB took at most 32 faults ($faults)" test "$faults" -le 32
check "it is deleted" ubdmap del "$dev"
