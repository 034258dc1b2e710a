#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 512M --disk 256M --timeout 600
#
# Storage that fails below a device, devices that go while they are used, and
# devices on devices.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img dmsetup fio mkfs.ext4 losetup kmap

work_on /dev/vda
mkdir /tmp/mnt /tmp/mnt2
modprobe dm-mod
export DM_DISABLE_UDEV=1	# nobody else makes the nodes
modprobe loop

nothing_left() {
	until_true 10 no_mapper && [ -z "$(ubdmap list)" ]
}

data() {
	dd if=/dev/urandom of="$1" bs=1M count="$2" status=none
}

ubdmap monitor >/tmp/events &
monitor=$!
cleanup "kill $monitor"

# --- a disk that fails ---

sectors=$(blockdev --getsz /dev/vdb)
data known 8
dmsetup create bad --table "0 $sectors linear /dev/vdb 0"
dev=$(ubdmap add /dev/mapper/bad)
dd if=known of="$dev" bs=1M oflag=direct status=none
dmsetup suspend bad
dmsetup load bad --table "0 8192 linear /dev/vdb 0
8192 $((sectors - 8192)) error"
dmsetup resume bad
check "a disk that fails fails the request" sh -c \
	"! timeout 20 dd if=$dev of=/dev/null bs=4k skip=1024 count=1 iflag=direct"
check "a write too" sh -c \
	"! timeout 20 dd if=known of=$dev bs=4k seek=1024 count=1 oflag=direct"
check "the log says which device and which backing" \
	sh -c "dmesg | grep -q 'ubdmap0: a read from backing 0'"
check "and an event tells" until_true 5 grep -q "$dev backing-error" /tmp/events
check "what does not fail is read" sh -c \
	"dd if=$dev bs=1M count=4 iflag=direct status=none | cmp -n 4194304 - known"
check "the device is deleted, whatever its image says" \
	sh -c "timeout 60 ubdmap del $dev || [ -z \"\$(ubdmap list)\" ]"
check "and nothing is left of it" nothing_left
dmsetup remove bad

# --- a disk that changes ---

# Another table of dm may not know NOWAIT, which io_uring asks for.
dmsetup create other --table "0 $sectors linear /dev/vdb 0"
dev=$(ubdmap add /dev/mapper/other)
dd if="$dev" of=/dev/null bs=1M count=16 iflag=direct status=none
modprobe dm-delay
dmsetup suspend other
dmsetup load other --table "0 $sectors delay /dev/vdb 0 0"
dmsetup resume other
check "with a table that does not know NOWAIT nothing fails" timeout 60 fio --name=nowait \
	--filename="$dev" --direct=1 --ioengine=io_uring --iodepth=4 --rw=randrw --bs=4k \
	--size=8M --io_size=1M --allow_file_create=0
equal "nor is there an error" "$(kctl stat "${dev#/dev/ubdmap}" errors)" 0

# What was not flushed is when the device goes; where that fails somebody has to know.
check "a raw disk needs no mapper" ubdmap detach "$dev"
dd if=known of="$dev" bs=1M count=1 oflag=direct status=none
modprobe dm-flakey
dmsetup suspend other
dmsetup load other --table "0 $sectors flakey /dev/vdb 0 0 1000"
dmsetup resume other
refuses "del tells that the last flush has failed" timeout 60 ubdmap del "$dev"
check "and the device is gone" nothing_left
dmsetup remove other

# Who writes to us must not change a page that a disk below has a checksum of.
stable() {
	cat "/sys/block/${1#/dev/}/queue/stable_writes"
}
for wanted in 1 0; do
	echo $wanted >/sys/block/vdb/queue/stable_writes
	dev=$(ubdmap add /dev/vdb)
	equal "pages are stable if the disk wants that: $wanted" "$(stable "$dev")" $wanted
	ubdmap del "$dev"
done

# --- a file that shrinks, or goes ---

data a.raw 16
cp a.raw same.raw
dev=$(ubdmap add a.raw)
dd if="$dev" of=/dev/null bs=1M iflag=direct status=none
truncate -s 8M a.raw
check "behind the end of a file that was cut a read fails" sh -c \
	"! timeout 20 dd if=$dev of=/dev/null bs=64k skip=200 count=1 iflag=direct"
check "before it the data are right" sh -c \
	"dd if=$dev bs=1M count=8 iflag=direct status=none | cmp -n 8388608 - same.raw"
check "the device is deleted all the same" timeout 60 ubdmap del "$dev"
cp same.raw a.raw
dev=$(ubdmap add a.raw)
rm a.raw
check "a file that was removed is still served" sh -c \
	"dd if=$dev bs=1M iflag=direct status=none | cmp - same.raw"
check "and the device is deleted" timeout 60 ubdmap del "$dev"

qemu-img create -q -f qcow2 base.qcow2 16M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
mv base.qcow2 gone.qcow2
rc=0
ubdmap add top.qcow2 >out 2>err || rc=$?
equal "a missing backing file is named, in one line" \
	"$rc $(grep -c base.qcow2 err) $(wc -l <err) $(wc -c <out)" "3 1 1 0"
check "and nothing is left of the attempt" until_true 10 nothing_is_left
mv gone.qcow2 base.qcow2

# --- on itself ---

lower() {
	dmsetup suspend lower
	dmsetup load lower --table "0 $sectors linear $1 0"
	dmsetup resume lower
}

orphaned() {
	[ "$(field state "$dev")" = orphaned ]
}

now_ms() {
	awk '{ printf "%d\n", $1 * 1000 }' /proc/uptime
}

# since: when, at the earliest
orphan() {
	m=$(field mapper "$dev")
	keeper=$(keeper_of "$m")
	since=$(now_ms)
	kill -KILL "$keeper" "$m"
	until_true 10 orphaned
}

too_deep() {
	kmap -a "${dev#/dev/ubdmap}" -A "$1" 2>&1 | tee /dev/stderr | grep -qi "too many levels"
}

dmsetup create lower --table "0 $sectors linear /dev/vdb 0"
dev=$(ubdmap add /dev/mapper/lower)
orphan
# Before it is mounted: a kernel may keep all others from opening it for writing then.
check "a device is no backing of its own" too_deep "$dev"
until_true 10 mapperless
check "it gets another mapper" ubdmap attach "$dev"
mkfs.ext4 -q "$dev"
mount "$dev" /tmp/mnt
truncate -s 1M /tmp/mnt/file
sync -f /tmp/mnt
orphan
check "nor is a file in a file system on it" too_deep /tmp/mnt/file
until_true 10 mapperless
check "it gets one again" ubdmap attach "$dev"
umount /tmp/mnt
orphan
loop=$(losetup -f --show "$dev")
lower "$loop"
rc=0
ubdmap attach "$dev" >out 2>err || rc=$?
equal "one that has come to lie on itself, through dm and loop, gets no mapper" \
	"$rc $(grep -c 'lie on the device itself' err) $(wc -l <err)" "1 1 1"
lower /dev/vdb
losetup -d "$loop"
until_true 10 mapperless
check "when that is undone it does" ubdmap attach "$dev"
check "and is deleted" ubdmap del "$dev"
dmsetup remove lower

# --- two levels ---

qemu-img create -q -f qcow2 outer.qcow2 256M
outer=$(ubdmap add outer.qcow2)
mkfs.ext4 -q "$outer"
mount "$outer" /tmp/mnt
qemu-img create -q -f qcow2 /tmp/mnt/inner.qcow2 128M
inner=$(ubdmap add /tmp/mnt/inner.qcow2)
mkfs.ext4 -q "$inner"
mount "$inner" /tmp/mnt2
check "an image inside an image is written" fio --name=two --directory=/tmp/mnt2 --size=3M \
	--rw=randwrite --bs=4k --verify=crc32c --verify_fatal=1 --fsync=128 --ioengine=psync
cp known /tmp/mnt2/known
sync
for d in $inner $outer; do
	kill -KILL "$(field mapper "$d")"
done
check "with the mappers of both killed it goes on" sh -c \
	"cp known /tmp/mnt2/known2 && sync -f /tmp/mnt2 && cmp /tmp/mnt2/known2 known"
umount /tmp/mnt2
check "the inner one is deleted" ubdmap del "$inner"
check "and sound" qemu-img check -q /tmp/mnt/inner.qcow2
umount /tmp/mnt
check "the outer one is deleted" ubdmap del "$outer"
check "and sound" qemu-img check -q outer.qcow2

# --- in use when they go ---

dev=$(ubdmap add outer.qcow2)
mount "$dev" /tmp/mnt
fio --name=load --directory=/tmp/mnt --size=8M --numjobs=2 --rw=randrw --bs=4k --time_based \
	--runtime=300 --fsync=8 >/dev/null 2>&1 &
load=$!
sleep 2
refuses "the module stays while a device exists" rmmod ubdmap
check "a mounted device under load is deleted by force" timeout 100 ubdmap del --force "$dev"
kill $load 2>/dev/null
wait $load
check "it can be unmounted" timeout 60 umount /tmp/mnt
check "nothing is left" nothing_left
check "its image is sound" qemu-img check -q outer.qcow2

# As at shutdown: everybody is killed, in any order, with the file system mounted.
dev=$(ubdmap add outer.qcow2)
mount "$dev" /tmp/mnt
m=$(field mapper "$dev")
keeper=$(keeper_of "$m")
# At once: what is written back meanwhile needs no mapper afterwards.
dd if=known of=/tmp/mnt/late bs=1M status=none
kill -KILL "$keeper" "$m"
sync -f /tmp/mnt &
sync=$!
sleep 3
check "who syncs without any mapper waits" kill -0 $sync
check "until force ends it" timeout 60 ubdmap del --force "$dev"
refuses "with an error" wait $sync
check "then it can be unmounted" timeout 60 umount /tmp/mnt
check "its image is sound, but for leaks" sh -c \
	'qemu-img check outer.qcow2; rc=$?; [ $rc = 0 ] || [ $rc = 3 ]'

# --- the time for another mapper to come ---

# It is over when nobody has come. Who has come has as long again to start, but who went
# before has changed nothing. The clock goes on where all stands still: what comes too late
# to tell anything is tried again.
qemu-img create -q -f qcow2 thin.qcow2 16M
limit=$((52 + 8 * ${UBDMAP_SLOW:-1}))

# within SECONDS SINCE
within() {
	[ $(($(now_ms) - $2)) -lt $(($1 * 1000)) ]
}

# at SECONDS SINCE
at() {
	while within "$@"; do
		sleep 0.2
	done
}

attached() {
	[ "$(field mapper "$dev")" = "$other" ]
}

ended() {
	! kill -0 "$reader"
}

# Status 2: too late.
comes_and_goes() {
	dev=$(ubdmap add --orphan-timeout $limit thin.qcow2) || return 1
	n=${dev#/dev/ubdmap}
	orphan || return 1
	orphaned=$(now_ms)
	at $((limit / 3)) "$orphaned"
	came=$(now_ms)
	kmap -a "$n" -s armed thin.qcow2 >/tmp/kmap.out 2>&1 &
	other=$!
	until_true 10 attached || { cat /tmp/kmap.out; return 1; }
	within $limit "$since" || return 2
	dd if="$dev" of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/late &
	reader=$!
	# From here on nobody would wait who counts from the first mapper's end.
	at $((limit + 2)) "$orphaned"
	waited=0
	kill -0 "$reader" || waited=1
	within $limit "$came" || return 2
	left=$(now_ms)
	kill -KILL "$other"
	over=1
	until_true 10 ended || return 0
	# Were the time begun again it would not be over yet.
	within $limit "$left" || return 2
	over=0
}

for tries_left in 2 1 0; do
	rc=0
	comes_and_goes || rc=$?
	if [ $rc != 2 ] || [ $tries_left = 0 ]; then
		break
	fi
	note "too late: no claim"
	kill -KILL "$other"
	kctl del -f "$n"
done
equal "another mapper has come" $rc 0
equal "what waits waits for that, too" "$waited" 0
equal "it goes, and the time is over" "$over" 0
refuses "for what has waited" wait "$reader"
check "the device is deleted" timeout 60 kctl del -f "$n"
