#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 2G --timeout 600
#
# The main job, shown: a disk from a thin qcow2 over a compressed one.
#
#   demo.sh [--no-table]
#
# Runs in a guest, prints each command as one would type it and what it says,
# and checks what must hold. The first thing that does not ends it, status 1.

set -uo pipefail

table=1
[ "${1:-}" != --no-table ] || table=''

bench=$(dirname "$(realpath "$0")")/../bench

title() {
	printf '\n== %s\n' "$*"
}

wrong() {
	printf '\nWRONG: %s\n' "$*"
	exit 1
}

# run COMMAND: shows it, then does it in this shell.
run() {
	printf '$ %s\n' "$1"
	eval "$1" || wrong "that failed, status $?"
}

# holds CLAIM COMMAND...: checks without showing how.
holds() {
	local claim=$1

	shift
	"$@" || wrong "not so: $claim"
	printf '  -> %s\n' "$claim"
}

on_disk() {
	stat -c %b thin.qcow2
}

mkdir -p /tmp/demo
mkfs.ext4 -q /dev/vda
mount -o discard /dev/vda /tmp/demo
cd /tmp/demo || exit 1
modprobe loop
modprobe nbd

echo "A guest with Linux $(uname -r), $(nproc) CPUs, ${UBDMAP_GUEST:-}."

title "A golden image: a file system with files in it, compressed to qcow2"
run 'mkdir tree; cp -r /usr/include/linux /usr/bin/fio /usr/bin/qemu-img tree/'
run 'truncate -s 256M golden.raw; mkfs.ext4 -q -L golden -d tree golden.raw'
run 'qemu-img convert -c -O qcow2 -f raw golden.raw golden.qcow2'
run 'ls -sh golden.raw golden.qcow2'
(cd tree && find . -type f -print0 | xargs -0 sha256sum) >tree.sha256
files=$(wc -l <tree.sha256)
rm -r golden.raw tree
golden=$(sha256sum <golden.qcow2)

title "A thin image over it: what is written goes here, the rest is the golden image's"
run 'qemu-img create -q -f qcow2 -b golden.qcow2 -F qcow2 thin.qcow2'
run 'ls -sh thin.qcow2'

title "A disk of it"
printf '$ ubdmap add thin.qcow2\n'
dev=$(ubdmap add thin.qcow2) || wrong "ubdmap add failed"
echo "$dev"
run 'ubdmap list'
run "lsblk -o NAME,SIZE,RO,TYPE $dev"
run "blkid $dev"

title "The first read of something asks the mapper where it is; the second does not"
read_all="dd if=$dev of=/dev/null bs=1M iflag=direct status=none"
show_hits="ubdmap stat $dev | grep -E 'read (hits|misses)|zero|faults'"
misses() {
	ubdmap stat -J "$dev" | jq '.devices[0] | .read_misses, .faults'
}
run "$read_all"
run "$show_hits"
first=$(misses)
run "$read_all"
run "$show_hits"
holds "the second read was the kernel's alone: no new miss, no new fault" \
	test "$first" = "$(misses)"

title "Mount it"
run "mount $dev /mnt"
run 'ls /mnt; ls /mnt/linux | wc -l'
same_files() {
	(cd /mnt && sha256sum --quiet -c /tmp/demo/tree.sha256)
}
holds "all $files files read as they were written" same_files

title "Write: clusters are allocated in the thin image"
before=$(on_disk)
run 'cp /mnt/fio /mnt/copy-of-fio && head -c 24M /dev/urandom >/mnt/noise && sync'
run 'ls -sh thin.qcow2'
full=$(on_disk)
holds "it grew" test "$full" -gt $((before + 40000))
holds "a copy in the new place is the same" cmp /mnt/fio /mnt/copy-of-fio

title "Discard: they are given back, to the file system below too"
run 'rm /mnt/noise && sync && fstrim -v /mnt'
run 'sync; sleep 2; ls -sh thin.qcow2'   # holes are punched once the discard is durable
holds "it shrank" test "$(on_disk)" -lt $((full - 40000))
run 'umount /mnt'
run "e2fsck -fn $dev"

title "Away with the disk, and see what is in the file"
run "dd if=$dev of=shown.raw bs=1M iflag=direct conv=sparse status=none   # what the device showed"
run "ubdmap del $dev"
run 'qemu-img check thin.qcow2'
run 'qemu-img compare -f raw -F qcow2 shown.raw thin.qcow2'
run 'qemu-img convert -O raw thin.qcow2 converted.raw && cmp converted.raw shown.raw'
holds "the golden image was not touched" \
	test "$(sha256sum <golden.qcow2)" = "$golden"
holds "nothing is left behind" test ! -e "$dev" -a -z "$(ubdmap list)"

if [ -n "$table" ]; then
	cd / && umount /tmp/demo
	title "How fast, beside others, in this guest (make bench takes its time for it)"
	"$bench/bench.sh" --mib 32 --turns 3 --seconds 1 || {
		status=$?
		[ $status = 3 ] || exit $status
		echo 'A busy machine can do that. Does "make bench", which measures longer, too?'
	}
fi

printf '\nAll of it went as it should, in %d s.\n' "$SECONDS"
