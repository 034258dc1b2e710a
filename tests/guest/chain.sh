#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 2G --timeout 800
#
# Backing files of every kind, through the device: copy on write, and nothing
# of them ever changes.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio qemu-img qemu-io mkfs.ext4 jq

work_on /dev/vda
data src.raw 12 3 7
truncate -s $(((12 << 20) + 1024)) src.raw

# over CLAIM BASE FORMAT SIZE OPTIONS
over() {
	rm -f a.qcow2
	# shellcheck disable=SC2086  # no size at all
	qemu-img create -q -f qcow2 -b "$2" -F "$3" -o "$5" a.qcow2 $4
	sum=$(sha256sum <"$2")
	exercise "$1" a.qcow2 -s $((tap_done + 1))
	equal "$1: the backing file is as it was" "$(sha256sum <"$2")" "$sum"
}

qemu-img convert -f raw -O qcow2 -c -o cluster_size=64k src.raw zlib.qcow2
qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd,cluster_size=16k src.raw zstd.qcow2
qemu-img convert -f raw -O qcow2 -o compat=0.10,cluster_size=4k src.raw v2.qcow2

over "over raw" src.raw raw "" cluster_size=64k
over "over raw, clusters of 512 B" src.raw raw "" cluster_size=512
over "over raw, clusters of 2 MiB" src.raw raw "" cluster_size=2M
over "over zlib" zlib.qcow2 qcow2 "" cluster_size=64k
over "over zstd, clusters larger than there" zstd.qcow2 qcow2 "" cluster_size=256k
over "over version 2, by version 2" v2.qcow2 qcow2 "" compat=0.10,cluster_size=32k
over "longer than what it is over" src.raw raw 14M cluster_size=64k
over "shorter than what it is over" zlib.qcow2 qcow2 11534848 cluster_size=16k

qemu-img create -q -f qcow2 -b zlib.qcow2 -F qcow2 -o cluster_size=8k 1.qcow2 11M
qemu-io -f qcow2 -c "write -P 3 1000k 900k" -c "write -z 4M 1M" 1.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b 1.qcow2 -F qcow2 -o cluster_size=512 2.qcow2 13M
qemu-io -f qcow2 -c "write -P 4 1500k 1k" -c "discard 9M 1M" -c "write -P 5 11M 100k" \
	2.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b 2.qcow2 -F qcow2 -o cluster_size=64k 3.qcow2 12M
over "over a chain of four, each of another length" 3.qcow2 qcow2 14M cluster_size=4k

below=zlib.qcow2
for i in $(seq 24); do
	qemu-img create -q -f qcow2 -b "$below" -F qcow2 "deep$i.qcow2"
	qemu-io -f qcow2 -c "write -P $i ${i}00k 64k" "deep$i.qcow2" >/dev/null
	below=deep$i.qcow2
done
over "over a chain of 25" "$below" qcow2 "" cluster_size=64k

# Sectors larger than the files need: no answer may have a part of one in it.
cp src.raw odd.raw
seq 999 | head -c 1024 | dd of=odd.raw bs=1k seek=12k conv=notrunc status=none
qemu-img convert -f raw -O qcow2 -c -o cluster_size=1k odd.raw tiny.qcow2
for below in "odd.raw raw" "tiny.qcow2 qcow2"; do
	rm -f a.qcow2
	qemu-img create -q -f qcow2 -b "${below% *}" -F "${below#* }" a.qcow2 14M
	qemu-img convert -f qcow2 -O raw a.qcow2 before.raw
	what="sectors of 4 KiB over ${below% *}"
	dev=$(ubdmap add -b 4096 a.qcow2)
	equal "$what: the device has them" "$(blockdev --getss "$dev")" 4096
	check "$what: what qemu-img reads is there" cmp before.raw "$dev"
	check "$what: write where the file below ends" \
		dd if=src.raw of="$dev" bs=4k seek=3072 count=1 oflag=direct conv=notrunc
	check "$what: and read it" cmp -n 4096 -i 0:12582912 src.raw "$dev"
	check "$what: requests of every shape" \
		shapes -b 4096 -n 100 -w 14 -s $((tap_done + 1)) -o after.raw "$dev"
	check "$what: it is deleted" ubdmap del "$dev"
	check "$what: no error and no leak is found" qemu-img check -f qcow2 a.qcow2
	qemu-img convert -f qcow2 -O raw a.qcow2 image.raw
	check "$what: qemu-img reads what was written" cmp image.raw after.raw
done
qemu-img create -q -f qcow2 -o cluster_size=1k small.qcow2 4M
check "sectors larger than clusters are refused" says 1 "clusters of 1024 bytes" \
	ubdmap add -b 4096 small.qcow2

# What is hidden by zeros must not show through again, what is discarded may.
rm -f a.qcow2
qemu-img create -q -f qcow2 -b src.raw -F raw a.qcow2
dev=$(ubdmap add a.qcow2)
blkdiscard -z -o 1M -l 1M "$dev"
check "zeroes over a backing file read as zeros" cmp -n 1048576 -i 1048576:0 "$dev" /dev/zero
dd if=/dev/urandom of=patch bs=64k count=4 status=none
dd if=patch of="$dev" bs=64k seek=160 oflag=direct status=none
blkdiscard -o 10M -l 128k "$dev"
check "a discard over a backing file leaves zeros" cmp -n 131072 -i 10485760:0 "$dev" /dev/zero
check "and what lies beside it" cmp -n 131072 -i 10616832:131072 "$dev" patch
ubdmap del "$dev"
check "and the image is sound" qemu-img check a.qcow2

# What is decompressed is kept, but not more than was allowed.
seq 4000000 | head -c 24M >text.raw
qemu-img convert -f raw -O qcow2 -c text.raw text.qcow2

cached() {
	ubdmap map --json "$dev" |
		jq '[.extents[] | select(.type == "linear") | .length] | add // 0'
}

pages() {
	stat -L -c '%b * %B' "$(find "/proc/$(ubdmap list --json "$dev" |
		jq '.. | .mapper? // empty')/fd" -lname '*memfd:ubdmap-cache*' | head -n 1)"
}

for size in 2M 64M; do
	dev=$(ubdmap add -r --cache-size $size text.qcow2)
	check "a cache of $size: all that is compressed reads right" cmp text.raw "$dev"
	check "a cache of $size: and again" sh -c \
		"dd if=$dev bs=64k iflag=direct status=none | cmp - text.raw"
	held=$(cached) used=$(($(pages)))
	note "$held bytes are mapped, $used are allocated"
	if [ $size = 2M ]; then
		check "a cache of $size: not more is mapped, nor allocated" \
			test $((held > used ? held : used)) -le 2097152
	else
		check "a cache of $size: all of it stays" test "$held" = 25165824
	fi
	ubdmap del "$dev"
done
