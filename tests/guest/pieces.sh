#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 64M --disk 256M --timeout 400
#
# One request of many pieces, of which one fails; and what lies below hits and
# changes: a descriptor whose number is used again, holes that are punched.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img qemu-io dmsetup mkfs.ext4 bigio

modprobe dm-mod
export DM_DISABLE_UDEV=1	# nobody else makes the nodes
work_on /dev/vdb -b 4096

nothing_waits() {
	[ "$(counter parked)" = 0 ]
}

# --- one request of many pieces ---

# Ten granules, of five kinds: mapped, zero, moved by the mapper, placed, in
# another file.  One of them fails, whichever.  Fails without bio_chain() in cut().
# The last piece is the request itself, and must not end it as if all was well:
# fails if ubdm_bio_done() sets bi_status where there is no error.

truncate -s 16M /tmp/other
pieces() {
	for e in {0..9}; do
		serve -m -e "$e" /dev/vda /tmp/other || return 1
		# misses, then hits
		for round in miss hit; do
			for op in "" "-w 0x5a"; do
				# shellcheck disable=SC2086  # words
				got=$(bigio $op "$dev" 0 1280)
				[ "$got" = "1 -5" ] ||
					{ echo "granule $e, $round, $op: $got"; return 1; }
			done
		done
		for at in $(((e + 9) % 10)) $e $(((e + 1) % 10)); do
			want="1 0"
			[ "$at" != "$e" ] || want="1 -5"
			got=$(bigio "$dev" $((at * 128)) 128)
			[ "$got" = "$want" ] ||
				{ echo "granule $e fails, $at: $got"; return 1; }
		done
		echo "granule $e: errors $(counter errors)"
		nothing_waits || return 1
		kctl del "$n" || return 1
	done
}
last_pieces() {
	for e in 0 1; do
		serve -m -e $e /dev/vda /tmp/other || return 1
		for last in {2..9}; do
			for op in "" "-w 0x5a"; do
				# shellcheck disable=SC2086  # words
				got=$(bigio $op "$dev" 0 $((last * 128 + 64)))
				[ "$got" = "1 -5" ] ||
					{ echo "granule $e fails, $last is the last, $op: $got"; return 1; }
			done
		done
		nothing_waits || return 1
		kctl del "$n" || return 1
	done
}
check "whatever the last piece is" last_pieces
pieces >pieces.out 2>&1
check "a request fails once if one of its pieces does, of five kinds" \
	sh -c "cat pieces.out; [ \$(grep -c errors pieces.out) = 10 ]"
equal "and is counted once each time" "$(grep -v 'errors 5$' pieces.out)" ""

# The same with real storage that fails, below each kind that is the main file's.
sectors=$(blockdev --getsz /dev/vda)
bad_granule() {
	printf '0 %d linear /dev/vda 0\n%d 128 error\n' $(($1 * 128)) $(($1 * 128))
	printf '%d %d linear /dev/vda %d\n' $((($1 + 1) * 128)) \
		$((sectors - ($1 + 1) * 128)) $((($1 + 1) * 128))
}
failing() {
	for e in 5 2 7 3 8; do
		bad_granule $e | dmsetup create bad || return 1
		serve -m /dev/mapper/bad /tmp/other || return 1
		for _ in miss hit; do
			for op in "" "-w 0x5a"; do
				before=$(counter errors)
				# shellcheck disable=SC2086  # words
				got=$(bigio $op "$dev" 0 1280)
				[ "$got" = "1 -5" ] ||
					{ echo "granule $e, $op: $got"; return 1; }
				echo "granule $e $op: errors $(($(counter errors) - before))"
			done
		done
		nothing_waits || return 1
		kctl del "$n" || return 1
		wait "$mapper"
		dmsetup remove bad || return 1
	done
	echo all
}
failing >failing.out 2>&1
check "and if the disk below a piece does" sh -c "cat failing.out; grep -q all failing.out"
equal "one piece is counted as failed, not more" \
	"$(grep errors failing.out | grep -v 'errors 1$')" ""

# An image: two clusters of its own, compressed, zero, of two backing files.
dd if=/dev/urandom of=/tmp/known bs=64k count=8 status=none
dd if=/tmp/known of=/dev/vda bs=64k oflag=direct status=none
dmsetup create base --table "0 1024 linear /dev/vda 0"
qemu-img create -q -f qcow2 -b /dev/mapper/base -F raw mid.qcow2 512k
qemu-io -c "write -P 4 256k 64k" mid.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
qemu-io -c "write -P 1 0 128k" -c "write -c -P 2 128k 64k" -c "write -z 192k 64k" \
	top.qcow2 >/dev/null
qemu-img convert -O raw top.qcow2 want.raw
dev=$(ubdmap add top.qcow2)
n=${dev#/dev/ubdmap}
equal "one request over hit, miss, compressed, zero and two backing files" \
	"$(bigio "$dev" 0 1024)" "1 0"
check "reads what qemu-img reads" sh -c \
	"dd if=$dev bs=512k iflag=direct status=none | cmp - want.raw"
ubdmap del "$dev"
dmsetup suspend base
dmsetup load base --table "0 768 linear /dev/vda 0
768 256 error"
dmsetup resume base
dev=$(ubdmap add top.qcow2)
n=${dev#/dev/ubdmap}
equal "a read of which the last backing file fails, fails once" \
	"$(bigio "$dev" 0 1024)" "1 -5"
check "what it has beside that is read" sh -c \
	"dd if=$dev bs=64k count=6 iflag=direct status=none | cmp -n 393216 - want.raw"
equal "a write that copies from there fails once" \
	"$(bigio -w 0x77 "$dev" 0 832)" "1 -5"
equal "beside it is written" "$(bigio -w 0x77 "$dev" 0 768)" "1 0"
check "nothing waits" nothing_waits
dmsetup suspend base
dmsetup load base --table "0 1024 linear /dev/vda 0"
dmsetup resume base
dd if=/dev/zero bs=64k count=6 status=none | tr '\0' '\167' |
	dd of=want.raw conv=notrunc bs=64k iflag=fullblock status=none
check "with the disk in order again all of it is right" sh -c \
	"dd if=$dev bs=512k iflag=direct status=none | cmp - want.raw"
check "the device goes" ubdmap del "$dev"
check "and its image is sound" qemu-img check -q top.qcow2
dmsetup remove base

# --- a descriptor whose number is used again, and holes under hits ---

truncate -s 8M one
dd if=/dev/urandom of=two bs=1M count=8 status=none
cp two two.before
serve -g 5 -c two one
check "hits go to the registered file, whatever its number is now" \
	shapes -n 150 -w 8 -o model "$dev"
kctl del "$n"
check "which has it all" cmp model one
check "and the other nothing" cmp two two.before

head -c 8M /dev/zero | tr '\0' '\252' >holes
serve holes
dd if="$dev" of=/dev/null bs=1M iflag=direct status=none	# maps it
misses=$(counter read_misses)
# Whatever is read is what was there, or zero.
nothing_else() {
	while [ ! -e enough ]; do
		[ "$(dd if="$dev" bs=256k iflag=direct 2>dd.err | tr -d '\0\252' | wc -c)" = 0 ] ||
			return 1
		grep -q 'records out' dd.err && ! grep -q error dd.err || return 1
	done
}
nothing_else &
reader=$!
for at in {0..31}; do
	fallocate -p -o $((at << 18)) -l 256k holes
done
touch enough
check "under holes that are punched hits read what was there, or zeros" wait $reader
rm enough
check "in the end zeros" cmp -n 8388608 "$dev" /dev/zero
equal "and all were hits, without an error" \
	"$(($(counter read_misses) - misses)) $(counter errors)" "0 0"
kctl del "$n"

cd /
