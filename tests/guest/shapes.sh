#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 256M --disk 2G --timeout 800
#
# Requests of every shape, one at a time, against a model: the driver alone,
# with kmap as its mapper, on each kind of backing and in each way to answer.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires mkfs.ext4

mkfs.ext4 -q -b 4096 /dev/vdb
mkdir /tmp/fs
mount /dev/vdb /tmp/fs
cleanup "umount /tmp/fs"
truncate -s 16M /tmp/fs/file /tmp/fs/slow /tmp/tmpfs

# With 2 MiB granules most requests are hits, with 512 B ones most miss.
try() {
	claim=$1 file=$2
	shift 2
	for how in "-s 1" "-s 2 -c"; do
		serve "$@" || { not_ok "$claim"; return; }
		# shellcheck disable=SC2086  # words
		check "$claim, $how" shapes -n 150 -w 12 $how -o /tmp/model "$dev"
		check "$claim, $how: it can be deleted" kctl del "${dev#/dev/ubdmap}"
		[ "$file" = - ] || check "$claim, $how: the file has it" \
			cmp -n $((12 << 20)) /tmp/model "$file"
	done
}

try "on a block device" /dev/vda /dev/vda
try "on a file" /tmp/fs/file /tmp/fs/file
try "on a file, missing all the time" /tmp/fs/file -g 3 /tmp/fs/file
try "on a file, mapping ahead" /tmp/fs/file -g 1 -r 256 /tmp/fs/file
try "on a buffered file" /tmp/fs/file -b /tmp/fs/file
try "on tmpfs" /tmp/tmpfs -b /tmp/tmpfs
try "placed on a block device" /dev/vda -p /dev/vda
try "placed on a file" /tmp/fs/file -p /tmp/fs/file
try "moved by pread and pwrite" /tmp/fs/file -x -g 5 /tmp/fs/file
try "over extents of five kinds" - -m -g 3 /tmp/fs/file /tmp/fs/slow
try "five kinds, large granules, a block device" - -m /dev/vda /tmp/fs/slow
try "with faults that are held" /tmp/fs/file -h -g 9 /tmp/fs/file
