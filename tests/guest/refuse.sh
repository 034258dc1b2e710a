#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 64M --timeout 600
#
# What is not served is refused: one line that says why, nothing left behind,
# not a byte of the image changed.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img qemu-io qemu-nbd

mkdir /tmp/d
cd /tmp/d || exit 1
data src.raw 4 1

# no CLAIM WORDS ARG...: `ubdmap add ARG...` fails; WORDS is an expression for grep
no() {
	local claim=$1 words=$2 rc=0 before after

	shift 2
	before=$(sha256sum -- *.qcow2 *.raw *.img 2>/dev/null)
	timeout 60 ubdmap add "$@" >out 2>err || rc=$?
	after=$(sha256sum -- *.qcow2 *.raw *.img 2>/dev/null)
	if [ "$rc" -eq 0 ] || [ "$rc" -ge 124 ]; then
		not_ok "$claim is refused" "status $rc, $(cat out err)"
		[ "$rc" -ne 0 ] || ubdmap del "$(cat out)"
	elif [ -s out ] || [ "$(wc -l <err)" -ne 1 ]; then
		not_ok "$claim is refused" "not by one line: $(cat out err)"
	elif ! grep -qiE -- "$words" err; then
		not_ok "$claim is refused" "it does not tell why: $(cat err)"
	elif [ "$before" != "$after" ]; then
		not_ok "$claim is refused" "but a file has changed"
	elif ! until_true 10 nothing_is_left; then
		not_ok "$claim is refused" "but something is left: $(ubdmap list)"
	else
		ok "$claim is refused"
		note "$(cat err)"
	fi
}

# new OPTIONS [SIZE]: a.qcow2
new() {
	rm -f a.qcow2
	qemu-img create -q -f qcow2 -o "$1" a.qcow2 "${2:-4M}"
}

# patch OFFSET HEX-BYTES: in a.qcow2
patch() {
	# shellcheck disable=SC2059,SC2001  # bytes
	printf "$(echo "$2" | sed 's/../\\x&/g')" |
		dd of=a.qcow2 bs=1 seek="$1" conv=notrunc status=none
}

# --- features ---

rm -f a.qcow2
qemu-img create -q -f qcow2 --object secret,id=s,data=x \
	-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 a.qcow2 4M
no "encryption" "encr" a.qcow2
new data_file=data.raw
no "an external data file" "data file" a.qcow2
rm data.raw
new extended_l2=on
no "extended L2" "extended|subcluster" a.qcow2
new compat=1.1
qemu-img snapshot -c one a.qcow2
no "writing to an image with snapshots" "snapshot" a.qcow2
dev=$(ubdmap add -r a.qcow2)
check "which can be read" test -b "$dev"
ubdmap del "$dev"

# --- bits of the header: bytes 72 to 79 are the incompatible ones ---

new compat=1.1
patch 72 0000000000000020
no "an incompatible bit nobody knows" "feature|incompatible|bit" a.qcow2
patch 72 8000000000000000
no "the highest of them" "feature|incompatible|bit" a.qcow2
patch 72 0000000000000002
no "an image marked corrupt" "corrupt" a.qcow2
new compat=1.1
patch 80 00000000000000f0
dev=$(ubdmap add a.qcow2)
check "a compatible bit nobody knows is not" test -b "$dev"
ubdmap del "$dev"
new compat=1.1
patch 88 00000000000000f0
dev=$(ubdmap add -r a.qcow2)
check "nor an autoclear bit" test -b "$dev"
ubdmap del "$dev"
equal "which stays when nothing is written" "$(od -An -tx1 -j95 -N1 a.qcow2)" " f0"
dev=$(ubdmap add a.qcow2)
dd if=/dev/zero of="$dev" bs=4k count=1 oflag=direct status=none
ubdmap del "$dev"
equal "and is cleared when something is" "$(od -An -tx1 -j95 -N1 a.qcow2)" " 00"

# --- what is not what it says ---

new compat=1.1
patch 0 00
no "a .qcow2 that is none" "qcow2" a.qcow2
new compat=1.1
cp a.qcow2 b.raw
no "a .raw that begins as qcow2 does" "qcow2" b.raw
cp src.raw src.none
no "a name that says nothing, of a file" "-f" src.none
no "a format nobody knows" "raw and qcow2" -f vmdk a.qcow2
no "a file that is not there" "no such file" none.qcow2
new compat=1.1
patch 4 00000004
no "a version to come" "version" a.qcow2
new compat=1.1
patch 20 00000008
no "clusters of 256 B" "cluster" a.qcow2
new compat=1.1
patch 40 7ffffffffffffe00
no "an L1 table out of the file" "L1|corrupt|damaged|outside|beyond" a.qcow2
new compat=1.1
truncate -s 40 a.qcow2
no "a header that is cut off" "short|truncated|header|qcow2" a.qcow2
rm -f empty.qcow2
: >empty.qcow2
no "an empty file" "qcow2|empty" empty.qcow2
rm -f empty.qcow2 b.raw

# --- backing files ---

new compat=1.1
cp src.raw base.raw
qemu-img rebase -u -f qcow2 -b base.raw -F raw a.qcow2
mv base.raw elsewhere
no "a backing file that is not there" "base.raw" a.qcow2
mv elsewhere base.raw
qemu-img rebase -u -f qcow2 -b base.raw -F vmdk a.qcow2 2>/dev/null
no "a backing format nobody knows" "vmdk" a.qcow2
new compat=1.1
cp a.qcow2 base.img
rm a.qcow2
qemu-img create -q -f qcow2 -o compat=1.1 a.qcow2 4M
qemu-img rebase -u -f qcow2 -b base.img -F raw a.qcow2
python3 - <<END
# Take the backing format's extension away: its type becomes one nobody knows.
d = bytearray(open("a.qcow2", "rb").read())
at = d.index(bytes.fromhex("e2792aca"))
d[at:at + 4] = bytes.fromhex("12345678")
open("a.qcow2", "wb").write(d)
END
no "a backing file of no stated format that begins as qcow2 does" "format|-F" a.qcow2
cp src.raw b.qcow2
qemu-img create -q -f qcow2 b.qcow2 4M
new compat=1.1
qemu-img rebase -u -f qcow2 -b b.qcow2 -F qcow2 a.qcow2
qemu-img rebase -u -f qcow2 -b a.qcow2 -F qcow2 b.qcow2
no "a chain that bites its tail" "chain|loop|itself|twice|circ" a.qcow2
rm -f b.qcow2 base.img base.raw

# --- not to be written ---

new compat=1.1
mkdir ro
mount --bind -o ro . ro
no "an image on what is mounted read-only" "Read-only.* add it read-only: -r$" ro/a.qcow2
dev=$(ubdmap add -r ro/a.qcow2)
check "which can be read" test -b "$dev"
ubdmap del "$dev"
umount ro
rmdir ro
blockdev --setro /dev/vda
no "a disk that is set read-only" "write-protected; add it read-only: -r$" -f raw /dev/vda
blockdev --setrw /dev/vda

# --- in use ---

in_use() {
	timeout 30 "$@" >out 2>&1 && { cat out; return 1; }
	cat out
	grep -qi "lock" out
}

new compat=1.1
dev=$(ubdmap add a.qcow2)
check "a second add of the image is refused" sh -c \
	'ubdmap add a.qcow2 2>err; [ $? -ne 0 ] && [ $(wc -l <err) = 1 ] && grep -qi "in use" err'
check "reading it besides a writer, too" bash -c \
	'ubdmap add -r a.qcow2 2>err; [ $? -ne 0 ] && grep -qi "open to write" err'
check "qemu-io refuses to write it" in_use qemu-io -f qcow2 -c "write 0 4k" a.qcow2
check "qemu-img refuses to check it" in_use qemu-img check a.qcow2
check "qemu-nbd refuses to serve it" in_use qemu-nbd -f qcow2 --socket="$PWD/s2" a.qcow2
equal "there is one device only" "$(ubdmap list | grep -c '^/dev')" 1
ubdmap del "$dev"
dev=$(ubdmap add -r a.qcow2)
check "read-only, others may read it" qemu-img check a.qcow2
check "but not write" in_use qemu-io -f qcow2 -c "write 0 4k" a.qcow2
ubdmap del "$dev"
qemu-nbd --fork --persistent --pid-file=/tmp/nbd.pid -f qcow2 --socket=/tmp/nbd.sock a.qcow2
no "what qemu-nbd serves" "in use|lock" a.qcow2
kill "$(cat /tmp/nbd.pid)"
until_true 10 sh -c '! kill -0 $(cat /tmp/nbd.pid)'
dev=$(ubdmap add a.qcow2)
check "and taken when it is free" test -b "$dev"
ubdmap del "$dev"

qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2
dev=$(ubdmap add over.qcow2)
no_writes="$(ubdmap add a.qcow2 2>&1)" && not_ok "writing to a backing file in use is refused" "$no_writes"
case $no_writes in
*"in use"*) ok "writing to a backing file in use is refused" ;;
*) not_ok "writing to a backing file in use is refused" "$no_writes" ;;
esac
check "and by qemu-io" in_use qemu-io -f qcow2 -c "write 0 4k" a.qcow2
ubdmap del "$dev"
