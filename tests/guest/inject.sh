#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 64M --disk 512M --timeout 600
# only: debug
#
# The kernel's memory and the disks below fail at random, for the driver alone.
# Errors are allowed where something was made to fail; reports, hangs and
# devices that cannot be deleted are not, and what was promised is kept.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio qemu-img

debugfs=/sys/kernel/debug
mountpoint -q $debugfs || mount -t debugfs none $debugfs

# arm NAME PERCENT: one of the kernel's fault attributes, for calls from the module
arm() {
	text=$(cat /sys/module/ubdmap/sections/.text)
	size=$(awk '$1 == "ubdmap" { print $2 }' /proc/modules)
	echo "$text" >"$debugfs/$1/require-start"
	# All modules lie in the last 2 GiB; the shell's numbers have a sign.
	printf '0xffffffff%x' $((0x${text#0xffffffff} + size)) >"$debugfs/$1/require-end"
	echo 32 >"$debugfs/$1/stacktrace-depth"
	[ ! -e "$debugfs/$1/ignore-gfp-wait" ] || echo N >"$debugfs/$1/ignore-gfp-wait"
	[ ! -e "$debugfs/$1/min-order" ] || echo 0 >"$debugfs/$1/min-order"
	echo 0 >"$debugfs/$1/verbose"
	echo -1 >"$debugfs/$1/times"
	echo "$2" >"$debugfs/$1/probability"
}

disarm() {
	for attr in failslab fail_page_alloc fail_make_request fail_io_timeout; do
		echo 0 >$debugfs/$attr/probability
	done
}
cleanup disarm

# none_left: every device can be deleted once nothing fails any more
none_left() {
	for d in /sys/block/ubdmap*; do
		[ -e "$d" ] || continue
		# It may have gone by itself meanwhile.
		i=${d#/sys/block/ubdmap}
		kctl del -f "$i" || ! kctl state "$i" || return 1
	done
	until_true 30 sh -c '! ls /dev/ubdmap[0-9]*'
}

# cycles ATTRIBUTE PERCENT: most devices do not come to life where every 30th
# allocation fails, so every other one is left alone until it has.
made=0 failed=0
cycles() {
	what=$1 percent=$2 i=0
	while [ $i -lt 8 ]; do
		i=$((i + 1))
		case $((i % 4)) in
		0) set -- -g 3 -l 64 ;;	# at its limit all the time
		1) set -- -m -g 4 ;;
		2) set -- -p -g 4 ;;
		3) set -- -x -g 3 ;;
		esac
		rm -f /tmp/cycle
		[ $((i / 4 % 2)) = 0 ] || arm "$what" "$percent"
		if [ $((i % 4)) = 1 ]; then
			kmap "$@" /dev/vda /tmp/slow >/tmp/cycle 2>&1 &
		else
			kmap "$@" /dev/vda >/tmp/cycle 2>&1 &
		fi
		pid=$!
		if until_true 3 grep -q '^/dev/' /tmp/cycle; then
			made=$((made + 1))
			arm "$what" "$percent"
			timeout 100 fio --name=inject --allow_file_create=0 \
				--filename="$(grep '^/dev/' /tmp/cycle)" --size=4M --direct=1 \
				--ioengine=libaio --iodepth=8 --rw=randrw --bsrange=512-32k \
				--blockalign=512 --fsync=16 --number_ios=100 \
				--continue_on_error=all >/dev/null 2>&1
			[ $? -lt 124 ] || return 1
		else
			failed=$((failed + 1))
		fi
		kill -KILL $pid 2>/dev/null
		wait $pid 2>/dev/null
		for d in /sys/block/ubdmap*; do
			[ ! -e "$d" ] || timeout 60 kctl del -f "${d#/sys/block/ubdmap}"
		done
		disarm
	done
	return 0
}

truncate -s 64M /tmp/slow
check "devices live and die while small allocations fail" cycles failslab 3
disarm
note "$made came to life, $failed did not"
equal "some of each" "$((made > 0)) $((failed > 0))" "1 1"
check "none is left" none_left

made=0 failed=0
check "and while pages cannot be had" cycles fail_page_alloc 10
disarm
note "$made came to life, $failed did not"
check "none is left of these" none_left

# --- the disk below fails ---

serve -g 4 /dev/vda
dd if=/dev/zero of="$dev" bs=1M count=16 oflag=direct status=none
echo 1 >/sys/block/vda/make-it-fail
echo 0 >$debugfs/fail_make_request/verbose
echo -1 >$debugfs/fail_make_request/times
echo 10 >$debugfs/fail_make_request/probability
refuses "errors of the disk are seen above" timeout 150 fio --name=eio \
	--allow_file_create=0 --filename="$dev" --size=16M --direct=1 --ioengine=libaio \
	--iodepth=8 --rw=randread --bs=4k
disarm
echo 0 >/sys/block/vda/make-it-fail
check "without them it reads on" dd if="$dev" of=/dev/null bs=1M count=16 iflag=direct
equal "nothing waits" "$(counter parked)" 0
check "it is deleted" kctl del "$n"

# --- the disk below does not answer ---

modprobe null_blk nr_devices=1 gb=1 memory_backed=1 queue_mode=2 irqmode=1
echo 500 >/sys/block/nullb0/queue/io_timeout
serve -g 4 /dev/nullb0
dd if=/dev/urandom of=/tmp/known bs=1M count=4 status=none
dd if=/tmp/known of="$dev" bs=1M oflag=direct status=none
dmesg -C
echo 1 >/sys/block/nullb0/io-timeout-fail
echo 0 >$debugfs/fail_io_timeout/verbose
echo -1 >$debugfs/fail_io_timeout/times
echo 10 >$debugfs/fail_io_timeout/probability
timeout 150 fio --name=late --allow_file_create=0 --filename="$dev" --size=4M \
	--direct=1 --ioengine=libaio --iodepth=8 --rw=randread --bs=4k --number_ios=200 \
	--continue_on_error=all >/dev/null 2>&1
rc=$?
disarm
echo 0 >/sys/block/nullb0/io-timeout-fail
equal "requests that the disk below never answers end all the same" "$((rc < 124))" 1
check "and some have" sh -c "dmesg | grep -q 'ubdmap.*: a read from backing 0'"
check "the others are right, and so is all of it now" sh -c \
	"dd if=$dev bs=1M count=4 iflag=direct status=none | cmp - /tmp/known"
equal "nothing waits here either" "$(counter parked)" 0
check "this one is deleted, too" kctl del "$n"
check "and lets go of the disk" until_true 10 modprobe -r null_blk

# --- a real image under all of it ---

mkfs.ext4 -q /dev/vdb
mkdir -p /tmp/fs
mount /dev/vdb /tmp/fs
cd /tmp/fs || exit 1
qemu-img create -q -f qcow2 a.qcow2 128M
dev=$(ubdmap add a.qcow2)
arm failslab 2
timeout 200 fio --name=image --allow_file_create=0 --filename="$dev" --size=64M \
	--direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bsrange=512-128k \
	--blockalign=512 --fsync=32 --number_ios=1500 --continue_on_error=all >/tmp/image 2>&1
equal "an image is written while allocations of the driver fail" "$(($? < 124))" 1
disarm
check "it is written once nothing fails" fio --name=after --allow_file_create=0 \
	--filename="$dev" --offset=64M --size=16M --direct=1 --ioengine=libaio --iodepth=8 \
	--rw=randwrite --bs=16k --verify=crc32c --verify_fatal=1
dd if="$dev" of=/tmp/fs/after.raw bs=1M iflag=direct status=none
check "it can be deleted" ubdmap del "$dev"
check "no error is found, and no leak" qemu-img check -f qcow2 a.qcow2
qemu-img convert -f qcow2 -O raw a.qcow2 image.raw
check "qemu-img reads what the device showed" cmp after.raw image.raw
cd /
check "the module can go" until_true 20 rmmod ubdmap
