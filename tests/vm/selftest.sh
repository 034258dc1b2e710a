#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The harness itself: what tests/vm/run promises, tried from outside.

# shellcheck disable=SC2016  # the guest expands them
# shellcheck source=tests/guest/lib.sh
. "$(dirname "$0")/../guest/lib.sh"
requires qemu-system-x86_64 mkfs.xfs

here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
cleanup "rm -rf '$work'"

# guest NAME OPTION... -- COMMANDS: leaves $rc, $work/out and $work/err.
guest() {
	local options=() rest

	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	rest="$*"
	printf '#!/bin/sh\n%s\n' "$rest" >"$work/script"
	rc=0
	"$here/run" --no-module --share "$work" "${options[@]}" "$work/script" \
		>"$work/out" 2>"$work/err" || rc=$?
	# The reader of a failure wants to know.
	sed -n 1,20p "$work/out" | cut -c 1-100 | sed 's/^/#   /'
	tail -n 3 "$work/err" | cut -c 1-200 | sed 's/^/#   /'
}

guest --timeout 60 -- 'echo to stdout; echo to stderr >&2; echo again >/dev/stderr; exit 7'
equal "the script's status is the guest's" "$rc" 7
equal "its output arrives whole, in order, with nothing added" \
	"$(cat "$work/out")" "$(printf 'to stdout\nto stderr\nagain')"

guest --timeout 60 -- 'kill -KILL $$'
equal "a script that a signal ends has 128 more than it" "$rc" 137

guest --timeout 60 -- 'head -c 3000000 /dev/zero | tr "\0" x'
equal "three megabytes of output lose no byte" "$(wc -c <"$work/out")" 3000000

guest --timeout 90 --smp 2 --mem 600M --disk 64M --disk 3G -- '
set -e
[ "$(nproc)" = 2 ]
[ "$(blockdev --getsize64 /dev/vda)" = 67108864 ]
[ "$(blockdev --getsize64 /dev/vdb)" = 3221225472 ]
mkfs.xfs -q /dev/vdb && mount /dev/vdb /mnt
blkdiscard /dev/vda
dd if=/dev/urandom of=/mnt/data bs=1M count=5 status=none
sha256sum </mnt/data >/share/sum
cp /mnt/data /share/data
sync
'
equal "disks have their sizes, and take a file system and a discard" "$rc" 0
equal "what the guest writes to /share is on the host" \
	"$(sha256sum <"$work/data")" "$(cat "$work/sum")"

guest --timeout 60 -- '
for t in fio qemu-img mkfs.btrfs; do command -v $t || exit; done
touch /usr/written /etc/written && rm /etc/passwd &&
modprobe null_blk && test -b /dev/nullb0 && test -e "$UBDMAP_SRC/tests/vm/run"'
equal "the host's tools and the kernel's modules are there, all is writable" "$rc" 0
check "nothing of that reached the host" \
	sh -c 'test ! -e /usr/written && test ! -e /etc/written && test -s /etc/passwd'

guest --timeout 60 -- 'echo before; sync; echo c >/proc/sysrq-trigger; sleep 5; exit 0'
equal "a panic is a failure" "$rc" 125
check "and the log that tells of it is shown" grep -q 'sysrq triggered crash' "$work/err"
check "and what the script said before it" grep -q before "$work/out"

cp -r "$here/faulty" "$work/"
kdir=$("$here/kernel" build)
if make -s -C "$kdir" M="$work/faulty" modules >"$work/make.log" 2>&1; then
	for kind in warn refcount bug null; do
		guest --timeout 60 -- "insmod /share/faulty/faulty.ko kind=$kind; exit 0"
		equal "a fault of the kind '$kind' is a failure though the script succeeds" "$rc" 125
	done
	rc=0
	"$here/run" --timeout 60 --module "$work/faulty/faulty.ko" /bin/true 2>"$work/err" || rc=$?
	equal "a module that does not load is a failure" "$rc" 125
	check "and the reason is given" grep -q 'insmod .*: No such device' "$work/err"
else
	not_ok "the faulty module builds" "$(cat "$work/make.log")"
fi

guest --timeout 90 --disk 400M -- '
mkfs.xfs -q /dev/vda && mount /dev/vda /mnt && fsfreeze -f /mnt
echo 4 >/proc/sys/kernel/hung_task_timeout_secs
echo 1 >/proc/sys/kernel/hung_task_check_interval_secs
echo x >/mnt/file'
equal "a hung task is a failure, and does not wait for the time limit" "$rc" 125
check "and the log names it" grep -q 'blocked for more than' "$work/err"

start=$SECONDS
guest --timeout 8 -- 'echo waiting; exec sleep 600'
equal "a script that takes too long is given up with 124" "$rc" 124
check "soon after its time" [ $((SECONDS - start)) -lt 25 ]
check "and the log has the stacks of blocked tasks" grep -q 'time is up' "$work/err"

start=$SECONDS
pids=()
for i in 1 2; do
	printf '#!/bin/sh\nsleep 2; echo %s >/dev/vda; head -c 1 /dev/vda; exit 3%s\n' "$i" "$i" >"$work/script$i"
	"$here/run" --no-module --timeout 90 --smp 1 --disk 1M "$work/script$i" \
		>"$work/out$i" 2>"$work/err$i" &
	pids+=($!)
done
both=
for i in 0 1; do
	rc=0
	wait "${pids[i]}" || rc=$?
	both="$both $rc"
done
equal "two guests at a time keep apart" "$both $(cat "$work/out1") $(cat "$work/out2")" " 31 32 1 2"

guest --timeout 90 --icount -- 'nproc; for i in 1 2 3; do dd if=/dev/zero of=/dev/null bs=1M count=50 status=none; done'
equal "--icount gives one CPU and works" "$rc $(cat "$work/out")" "0 1"

rc=0
"$here/run" --no-such-option >/dev/null 2>&1 || rc=$?
equal "a wrong option is refused with 2" "$rc" 2

rc=0
"$here/run" --keep-log "$work/log" --no-module -v /bin/true >/dev/null 2>"$work/err" || rc=$?
ms=$(sed -n 's/.*start \([0-9]*\) ms.*/\1/p' "$work/err")
note "the guest's clock says $ms ms at the script's start"
check "the guest is up within 10 s, by its own clock" [ "${ms:-99999}" -lt 10000 ]
check "the log can be kept" grep -q 'Linux version' "$work/log"
