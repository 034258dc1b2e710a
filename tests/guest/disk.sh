#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 4G --disk 64M --timeout 1000
#
# An ordinary disk: partitions, what is counted of them, udev, file systems.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img parted mkfs.ext4 mkfs.xfs mkfs.btrfs udevadm lsblk blkid fio dmsetup

work_on /dev/vda
mkdir /tmp/mnt

# --- statistics of partitions ---

# Reads, sectors read, writes, sectors written, and what is in flight of both.
counts() {
	awk '{ print $1, $3, $5, $7, $9 }' "/sys/class/block/$1/stat"
}

# came CLAIM READS WRITES COMMAND: so many 4K requests were counted, each once,
# on the partition and on the disk, and nothing is in flight afterwards.
came() {
	tap_claim=$1 tap_reads=$2 tap_writes=$3
	shift 3
	part=$(counts "${disk}p1") whole=$(counts "$disk")
	"$@" >/tmp/came 2>&1 || note "status $? from $*: $(cat /tmp/came)"
	want="$tap_reads $((tap_reads * 8)) $tap_writes $((tap_writes * 8)) 0"
	equal "$tap_claim: on the partition" "$(since "$part" "${disk}p1")" "$want"
	equal "$tap_claim: on the disk" "$(since "$whole" "$disk")" "$want"
}

# Counters of now less those before; in flight is as it is.
since() {
	# shellcheck disable=SC2046,SC2086  # words
	set -- $1 $(counts "$2")
	echo "$(($6 - $1)) $(($7 - $2)) $(($8 - $3)) $(($9 - $4)) ${10}"
}

load() {
	timeout 60 fio --name=load --allow_file_create=0 --filename="${dev}p1" --direct=1 \
		--ioengine=libaio --bs=4k --size=2M "$@"
}

# Fast enough for many to begin and end in one tick, which is counted in its own way.
try_counts() {
	disk=${dev#/dev/}
	until_true 20 test -b "${dev}p1"
	came "$1, what misses" 0 512 load --rw=randwrite --iodepth=16
	came "$1, reads" 512 0 load --rw=randread --iodepth=16
	came "$1, writes" 0 512 load --rw=write --iodepth=16
	came "$1, one at a time" 512 0 load --rw=randread
	part=$(counts "${disk}p1") whole=$(counts "$disk")
	dd if="$dev" of=/dev/null bs=4k count=10 skip=256 iflag=direct status=none
	equal "$1, what is read from the disk is not the partition's" \
		"$(since "$part" "${disk}p1") $(since "$whole" "$disk")" "0 0 0 0 0 10 80 0 0 0"
}

modprobe dm-mod
export DM_DISABLE_UDEV=1	# nobody else makes the nodes
parted -s /dev/vdb mklabel gpt mkpart one 1MiB 33MiB 2>/tmp/parted.err
dmsetup create slow --table "0 $(blockdev --getsz /dev/vdb) linear /dev/vdb 0"
dev=$(ubdmap add -P -f raw /dev/mapper/slow)
try_counts "on a block device"

# A disk that answers nothing, so that what is in flight can be looked at.
inflight() {
	tr -s ' ' <"/sys/class/block/$1/inflight"
}
dmsetup suspend slow
part=$(counts "${disk}p1") whole=$(counts "$disk")
load --rw=read --size=28k --iodepth=7 >/tmp/reads 2>&1 &
reads=$!
load --rw=write --offset=1M --size=20k --iodepth=5 >/tmp/writes 2>&1 &
writes=$!
until_true 20 sh -c "[ \"\$(awk '{ print \$9 }' /sys/class/block/${disk}p1/stat)\" -ge 12 ]"
equal "reads and writes in flight are told apart on the partition" "$(inflight "${disk}p1")" " 7 5"
equal "and are counted as such before they end" "$(since "$part" "${disk}p1")" "0 0 0 0 12"
# The block layer counts what bios are in flight where they were sent to only.
equal "on the disk none of its own is" "$(inflight "$disk"), $(since "$whole" "$disk")" " 0 0, 0 0 0 0 0"
dmsetup resume slow
check "once the disk answers they end" wait $reads $writes
equal "each is counted on the partition, and none is in flight" "$(since "$part" "${disk}p1")" "7 56 5 40 0"
equal "and on the disk" "$(since "$whole" "$disk")" "7 56 5 40 0"
equal "of reads or of writes" "$(inflight "${disk}p1"),$(inflight "$disk")" " 0 0, 0 0"
ubdmap del "$dev"
dmsetup remove slow

qemu-img create -q -f qcow2 parts.qcow2 64M
dev=$(ubdmap add parts.qcow2)
parted -s "$dev" mklabel gpt mkpart one 1MiB 33MiB 2>/tmp/parted.err
ubdmap del "$dev"
dev=$(ubdmap add -P parts.qcow2)
try_counts "on a file"
ubdmap del "$dev"

# --daemon returns when it listens.
/lib/systemd/systemd-udevd --daemon 2>/tmp/udev.err
cleanup "udevadm control --exit"
settle() {
	udevadm settle --timeout=20
}

# --- partitions ---

qemu-img create -q -f qcow2 disk.qcow2 256M
dev=$(ubdmap add disk.qcow2)
parted -s "$dev" mklabel gpt mkpart one 1MiB 101MiB mkpart two 101MiB 255MiB 2>/tmp/parted.err
settle
# parted told the kernel itself.
ubdmap del "$dev"
dev=$(ubdmap add disk.qcow2)
settle
refuses "partitions are not looked for unless asked" test -e "${dev}p1"
ubdmap del "$dev"
dev=$(ubdmap add -P disk.qcow2)
# Fails without device_wait_partscan(), or where the scan says that it has begun before it has
# the lock.
check "with -P the first partition is there with the name" test -b "${dev}p1"
check "and the second" test -b "${dev}p2"
equal "with its size" "$(blockdev --getsize64 "${dev}p1")" $((100 << 20))
settle
equal "lsblk shows them below the disk" \
	"$(lsblk -nro NAME,TYPE "$dev" | tr '\n' ' ')" \
	"ubdmap0 disk ubdmap0p1 part ubdmap0p2 part "
check "udev knows the device" sh -c "udevadm info '$dev' | grep -q '^E: DEVTYPE=disk'"
mkfs.ext4 -q -L first "${dev}p1"
mkfs.xfs -q -L second "${dev}p2" 2>/dev/null
settle
equal "blkid sees what is in a partition" "$(blkid -o value -s LABEL "${dev}p1")" first
check "udev links it by its label" until_true 20 test -e /dev/disk/by-label/first
mount "${dev}p1" /tmp/mnt
cp -r /usr/include/linux/netfilter /tmp/mnt/
refuses "a disk with a mounted partition is not deleted" ubdmap del "$dev"
umount /tmp/mnt
check "else it is" ubdmap del "$dev"
check "and its partitions with it" until_true 10 sh -c "! ls ${dev}*"
check "its image is sound" qemu-img check disk.qcow2
dev=$(ubdmap add -r -P disk.qcow2)
until_true 20 test -b "${dev}p1"
mount -o ro "${dev}p1" /tmp/mnt
check "read-only, what was written is there" diff -r /usr/include/linux/netfilter /tmp/mnt/netfilter
umount /tmp/mnt
settle
ubdmap del "$dev"

# --- file systems ---

tar -C /usr/include -cf /tmp/files.tar linux/netfilter linux/dvb linux/can linux/usb
dd if=/dev/urandom of=/tmp/random bs=1M count=12 status=none

fill() {
	for i in 1 2 3; do
		mkdir /tmp/mnt/$i && tar -C /tmp/mnt/$i -xf /tmp/files.tar || return 1
	done
	cp /tmp/random /tmp/mnt/big && cp --reflink=never /tmp/random /tmp/mnt/gone &&
		sync -f /tmp/mnt && rm -r /tmp/mnt/2 /tmp/mnt/gone && fstrim /tmp/mnt || return 1
	(cd /tmp/mnt && find . -type f -print0 | xargs -0 md5sum) >"$1"
}

again() {
	mount "$dev" /tmp/mnt && (cd /tmp/mnt && md5sum -c --quiet "$1")
	rc=$?
	umount /tmp/mnt
	return $rc
}

# fs NAME CHECK-COMMAND IMAGE [SIZE]
try() {
	fs=$1 fsck=$2 image=$3
	dev=$(ubdmap add "$image") || { not_ok "$fs on $image"; return; }
	check "$fs on $image: mkfs" "mkfs.$fs" -q "$dev"
	check "$fs on $image: mount" mount "$dev" /tmp/mnt
	check "$fs on $image: fill and trim" fill "/tmp/$fs.sums"
	check "$fs on $image: umount" umount /tmp/mnt
	# shellcheck disable=SC2086  # words
	check "$fs on $image: nothing is wrong with it" $fsck "$dev"
	check "$fs on $image: del" ubdmap del "$dev"
	[ "${image%.qcow2}" = "$image" ] ||
		check "$fs on $image: the image is sound" qemu-img check "$image"
	dev=$(ubdmap add "$image")
	check "$fs on $image: all is there the next time" again "/tmp/$fs.sums"
	settle
	check "$fs on $image: del again" ubdmap del "$dev"
	rm "$image"
}

for fs in "ext4 fsck.ext4 -fn" "xfs xfs_repair -n" "btrfs btrfs check"; do
	qemu-img create -q -f qcow2 "a.qcow2" 600M
	try "${fs%% *}" "${fs#* }" a.qcow2
done
truncate -s 600M a.raw
try xfs "xfs_repair -n" a.raw
