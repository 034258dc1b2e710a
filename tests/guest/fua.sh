#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 512M --disk 64M --timeout 180
#
# The parts of a request go their ways, and one must not hold what another waits
# for. Here a FUA write over two extents waits for the mapper's commit, and that
# for I/O on what was mapped:
#
#	write, FUA		mapper
#	part 1: written, waits for a commit
#	part 2: written
#				FLUSH: drain, then COMMIT

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"

serve -D -p -g 3 /dev/vda
dd if=/dev/zero of="$dev" bs=4k count=4 oflag=direct status=none
check "a FUA write over two changes does not wait for itself" timeout 20 \
	dd if=/dev/zero of="$dev" bs=16k count=1 oflag=direct,dsync status=none
timeout 60 kctl del -f "$n"
