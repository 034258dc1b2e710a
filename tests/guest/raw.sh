#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 256M --disk 2G --timeout 600
#
# ubdmap on raw files and block devices.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio qemu-img mkfs.ext4 python3 prlimit setpriv

work_on /dev/vdb
data src.raw 11 2 5

allocated() {
	du -k "$1" | cut -f1
}

cp src.raw a.raw
FORMAT=raw exercise "a file" a.raw
truncate -s 12M sparse.raw
FORMAT=raw exercise "a sparse file" sparse.raw
cp src.raw odd.raw
truncate -s $(((12 << 20) + 512)) odd.raw
FORMAT=raw exercise "an odd number of sectors" odd.raw
dd if=src.raw of=/dev/vda bs=1M status=none
dev=$(ubdmap add /dev/vda)
equal "a block device has its size" "$(blockdev --getsize64 "$dev")" $((256 << 20))
check "it shows what is there" cmp -n 11534336 src.raw "$dev"
check "it takes requests of every shape" shapes -n 150 -w 8 -o model "$dev"
check "which arrive there" sh -c "blockdev --flushbufs /dev/vda; cmp -n 8388608 model /dev/vda"
refuses "it cannot be mounted meanwhile" mount /dev/vda /mnt
refuses "nor added a second time" ubdmap add /dev/vda
check "it is deleted" ubdmap del "$dev"

# A disk that has nothing to give back: a hint must not become a write of all of it.
config=/sys/kernel/config
if modprobe null_blk nr_devices=0 2>/dev/null &&
   { [ -d $config/nullb ] || mount -t configfs none $config; } &&
   mkdir $config/nullb/nullb0; then
	echo 64 >$config/nullb/nullb0/size
	echo 1 >$config/nullb/nullb0/memory_backed
	echo 1 >$config/nullb/nullb0/power
	dd if=src.raw of=/dev/nullb0 bs=1M oflag=direct status=none
	dev=$(ubdmap add /dev/nullb0)
	refuses "over a disk without discards there are none" blkdiscard "$dev"
	check "and nothing has changed" cmp -n 11534336 src.raw "$dev"
	check "zeroing is done" blkdiscard -z -l 1M "$dev"
	check "and leaves zeros" cmp -n 1048576 "$dev" /dev/zero
	ubdmap del "$dev"
	rmdir $config/nullb/nullb0
else
	skip "over a disk without discards there are none" "no null_blk"
fi

# What is a hole costs nothing, whoever reads it; a discard makes holes.
truncate -s 64M thin.raw
dev=$(ubdmap add thin.raw)
dd if="$dev" of=/dev/null bs=1M status=none
equal "reading holes takes no space" "$(allocated thin.raw)" 0
dd if=/dev/urandom of="$dev" bs=1M count=16 oflag=direct status=none
sync "$dev"
check "writing takes what it needs" test "$(allocated thin.raw)" -ge 16384 -a "$(allocated thin.raw)" -lt 17500
blkdiscard -o 4M -l 8M "$dev"
sync "$dev"
check "a discard gives it back" until_true 10 sh -c '[ $(du -k thin.raw | cut -f1) -lt 9500 ]'
check "and leaves zeros" cmp -n 8388608 -i 4194304:0 "$dev" /dev/zero
blkdiscard -z -o 1M -l 1M "$dev"
check "zeroes are zeros" cmp -n 1048576 -i 1048576:0 "$dev" /dev/zero

misses() {
	ubdmap stat -J "$dev" | sed -n 's/.*"read_misses": \([0-9]*\).*/\1/p'
}
dd if="$dev" of=/dev/null bs=64k iflag=direct status=none
first=$(misses)
dd if="$dev" of=/dev/null bs=64k iflag=direct status=none
equal "a second read misses nothing" "$(misses)" "$first"
ubdmap del "$dev"

sum=$(sha256sum <a.raw)
stamp=$(stat -c '%Y %Z' a.raw)
dev=$(ubdmap add -r a.raw)
equal "read-only is told" "$(blockdev --getro "$dev")" 1
refuses "a write is refused" dd if=src.raw of="$dev" bs=4k count=1 conv=fsync status=none
refuses "a discard is refused" blkdiscard "$dev"
check "reads are not" cmp a.raw "$dev"
check "it is deleted" ubdmap del "$dev"
equal "the image is as it was" "$(sha256sum <a.raw)" "$sum"
equal "to its times" "$(stat -c '%Y %Z' a.raw)" "$stamp"
chmod 400 a.raw
check "two may read one image" sh -c 'a=$(ubdmap add -r a.raw) && b=$(ubdmap add -r a.raw) && cmp $a $b && ubdmap del $a && ubdmap del $b'

# A user's limit for files is none for the disk, whose writes he issues himself. Who
# writes to a device is not asked for it, but to a file, as the driver does, is.
#
# Fails without rlimit() in may_issue_inline(), by SIGXFSZ.
dev=$(ubdmap add thin.raw)
n=${dev#/dev/ubdmap}
dd if=/dev/urandom of="$dev" bs=64k count=16 seek=512 oflag=direct status=none
limited() {
	(
		ulimit -f 1
		dd if=/dev/zero of="$dev" bs=64k count=16 seek=512 oflag=direct \
			conv=notrunc status=none
	)
}
misses=$(counter write_misses)
check "who may not make large files writes to the disk" limited
equal "to what is mapped" "$(counter write_misses)" "$misses"
check "and has written" cmp -n 1048576 -i 33554432:0 "$dev" /dev/zero
ubdmap del "$dev"

# Who starts the mapper may have such a limit, too, and the keeper and each mapper it
# forks would inherit it. As root it is lifted; without the capability the soft one is
# raised to the hard one, and what is left is an error to who writes. 80 MiB hold the
# cache, which is a file for this, 16 do not.
#
# Without lift_file_limit() the first "add" fails, and the last write never ends, as
# mappers die of it one after the other.
ends_well() {
	rm -f ended
	(
		rc=0
		dd if=rnd of="$dev" bs=1M seek="$1" count="$2" oflag=direct \
			conv=notrunc status=none || rc=$?
		echo $rc >ended
	) &
	until_true 30 test -s ended || return 124
	return "$(cat ended)"
}
grow() {
	rm -f grow.qcow2
	qemu-img create -q -f qcow2 grow.qcow2 1G
}
dd if=/dev/urandom of=rnd bs=1M count=96 status=none
grow
check "with less than the cache needs, and no capability, an image is added" \
	sh -c "setpriv --bounding-set=-sys_resource \
		prlimit --fsize=$((16 << 20)):$((80 << 20)) ubdmap add grow.qcow2 >name"
dev=$(cat name)
if [ "$dev" ]; then
	mapper=$(field mapper "$dev")
	check "it grows past the soft limit" ends_well 0 32
	refuses "not past the hard one, which is an error" ends_well 512 96
	equal "and the mapper lives" "$(field mapper "$dev")" "$mapper"
	check "what is there can be written" ends_well 0 32
	check "and read" cmp -n $((32 << 20)) rnd "$dev"
	check "it is deleted" ubdmap del "$dev"
	check "and in order" qemu-img check -q grow.qcow2
fi
grow
dev=$(prlimit --fsize=$((80 << 20)) ubdmap add grow.qcow2)
mapper=$(field mapper "$dev")
check "an image grows past the limit of root, who added it" ends_well 0 96
equal "and the mapper lives" "$(field mapper "$dev")" "$mapper"
[ -s ended ] || exit 1 # what waits would keep us for good
check "it has what was written" cmp -n $((96 << 20)) rnd "$dev"
check "it is deleted" ubdmap del "$dev"
check "and in order" qemu-img check -q grow.qcow2
rm -f rnd grow.qcow2

# A cold file in hundreds of pieces: its file system reads metadata to find them,
# while the bio that asks is ours.
mkfs.ext4 -q -b 1024 -m 0 -F /dev/vda 100M
mkdir /tmp/small
mount /dev/vda /tmp/small
# All space is taken, then every other 16 KiB are given back.
python3 - <<END
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
fd = os.open("/tmp/small/full", os.O_RDWR | os.O_CREAT)
vfs = os.statvfs("/tmp/small")
size = (vfs.f_bfree * vfs.f_bsize - (2 << 20)) & ~0x7fff
assert not libc.fallocate(fd, 0, 0, size), os.strerror(ctypes.get_errno())
for at in range(0, size, 32768):
    libc.fallocate(fd, 3, at, 16384)
END
fio --name=pieces --filename=/tmp/small/f.raw --direct=1 --ioengine=psync --rw=write \
	--bs=256k --size=32M --verify=crc32c --verify_interval=16k --do_verify=0 >/dev/null
sync
pieces=$(filefrag /tmp/small/f.raw | sed 's/.*: \([0-9]*\) extents.*/\1/')
check "a file in many pieces" test "$pieces" -gt 300
umount /tmp/small
mount /dev/vda /tmp/small
echo 3 >/proc/sys/vm/drop_caches
dev=$(ubdmap add /tmp/small/f.raw)
check "is read cold by those who may be served inline" timeout 60 fio --name=cold \
	--filename="$dev" --direct=1 --ioengine=io_uring --iodepth=32 --rw=randread \
	--bs=16k --size=32M --verify=crc32c --verify_only
umount_it() {
	ubdmap del "$dev" && umount /tmp/small
}
check "and lets go of it" umount_it
mount /dev/vda /tmp/small
echo 3 >/proc/sys/vm/drop_caches
dev=$(ubdmap add /tmp/small/f.raw)
check "and is written cold" timeout 60 fio --name=cold --filename="$dev" --direct=1 \
	--ioengine=io_uring --iodepth=32 --rw=randwrite --bs=4k --size=32M \
	--numjobs=2 --norandommap --io_size=2M --offset_increment=16M
check "and lets go of it" umount_it
