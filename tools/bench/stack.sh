# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034
#
# Drivers put on a disk or a file, and taken away again: . stack.sh
#
#   attach_ubdmap ADD-ARGUMENT...     a device of ours
#   attach_loop TARGET [cached]       a loop device; with direct I/O if not cached
#   attach_linear DISK MIB            a dm-linear of the disk's first MIB
#   attach_nbd FORMAT TARGET          qemu-nbd on the first free /dev/nbdN
#   attach_ublk TYPE [OPTION]...      a ublk server's target: loop -f FILE, null, ...
#
# Each sets dev, or sets why (half a line for the user) and returns 1. What was
# made is undone by undo_all, last things first.
#
# A signal must not come between making something and noting how to undo it. So
# whoever is to be interrupted calls "interruptible", waits for what takes its time
# with "patiently", and for the rest asks at a "checkpoint".

undo=: stopped='' child=''

interruptible() {
	trap 'stopped=1; [ -z "$child" ] || kill "$child"' TERM INT HUP
}

checkpoint() {
	[ -z "$stopped" ] || exit 143
}

# patiently COMMAND...: a program, not a function; a signal ends it, and us after it.
# What it prints is dropped.
patiently() {
	local status=0

	"$@" </dev/null >/dev/null &
	child=$!
	[ -z "$stopped" ] || kill "$child"
	wait "$child" || status=$?
	# The trap's own return, not the child's end.
	[ -z "$stopped" ] || wait "$child" || :
	child=
	checkpoint
	return $status
}

# undo_later CODE: for undo_all; words of the user's go in as ${word@Q}
undo_later() {
	undo="$*; $undo"
}

# Also where set -e is in force: what cannot be undone does not keep the rest.
undo_all() {
	local all=$undo

	undo=:
	eval "$all" >/dev/null 2>&1 || :
}

# again COMMAND...: until it succeeds, for ten seconds: udev opens a device for a
# moment whenever somebody has closed it after writing.
again() {
	local i

	for ((i = 0; i < 50; i++)); do
		! "$@" || return 0
		sleep 0.2
	done
	return 1
}

# said COMMAND...: its stdout to dev; if it fails its last words are why
said() {
	local words

	words=$(mktemp)
	if dev=$("$@" 2>"$words"); then
		rm "$words"
		return 0
	fi
	why=$(tail -n 1 "$words")
	why=${why#ubdmap: }
	why=${why:-$1 failed}
	rm "$words"
	return 1
}

# has COMMAND: is it installed?
has() {
	command -v "$1" >/dev/null || { why="$1 is not installed"; return 1; }
}

# module NAME [PARAMETER]...: is there; one that was not is unloaded in the end, which
# may be a moment after its device is gone: a server keeps the driver until it has ended
module() {
	[ ! -e "/sys/module/$1" ] || return 0
	if ! modprobe -q "$@"; then
		why="this kernel has no module $1"
		return 1
	fi
	[ ! -e "/sys/module/$1" ] || undo_later "again modprobe -qr $1"
}

attach_ubdmap() {
	said "${UBDMAP:-ubdmap}" add "$@" || return
	undo_later "again ${UBDMAP:-ubdmap} del $dev"
}

attach_loop() {
	local direct=on

	[ -z "${2:-}" ] || direct=off
	has losetup && module loop || return
	said losetup --direct-io=$direct --find --show "$1" || return
	undo_later "again losetup -d $dev"
}

# Where udev does not run, nobody would answer dmsetup, nor make /dev/mapper/NAME.
attach_linear() {
	local name=ubdmbench$BASHPID sync=--noudevsync

	[ ! -S /run/udev/control ] || sync=
	name+=-$((RANDOM))
	has dmsetup && module dm_mod || return
	# shellcheck disable=SC2086  # perhaps none
	said dmsetup create $sync $name --table "0 $(($2 * 2048)) linear $1 0" || return
	undo_later "again dmsetup remove $sync $name"
	dev=/dev/dm-$(dmsetup info -c --noheadings -o minor $name)
}

# The driver tells who serves; he has the image a little longer than the device.
nbd_detach() {
	local server

	server=$(awk '/^Tgid:/ { print $2 }' "/proc/$(cat "/sys/block/${1##*/}/pid")/status")
	qemu-nbd -d "$1"
	while kill -0 "$server"; do
		sleep 0.1
	done
}

# Without a lock on a raw target, which others of ours have open too.
attach_nbd() {
	local node image aio

	has qemu-nbd && module nbd || return
	for node in /sys/block/nbd*; do
		[ -e "$node" ] && [ ! -e "$node/pid" ] && break
		node=
	done
	[ -n "$node" ] || { why="every nbd device is in use"; return 1; }
	node=/dev/${node##*/}
	image=driver=$1,file.filename=${2//,/,,}
	[ -b "$2" ] && image+=,file.driver=host_device || image+=,file.driver=file
	[ "$1" != raw ] || image+=,file.locking=off
	for aio in io_uring native threads; do
		if said qemu-nbd --image-opts --cache=none --aio=$aio --connect="$node" "$image"; then
			undo_later "nbd_detach $node"
			dev=$node
			return 0
		fi
	done
	return 1
}

# By a number that is free: what servers say of the device they made is not the same
# for all of them, and one that fails may leave half a device.
attach_ublk() {
	local server words n=0

	if has ublk; then
		server=ublk words=(-t "$1")
	elif has rublk; then
		server=rublk words=("$1")
	else
		why="no ublk server is installed (ublk or rublk)"
		return 1
	fi
	module ublk_drv || return
	while [ -e /dev/ublkc$n ]; do
		n=$((n + 1))
	done
	if ! said $server add "${words[@]}" -n $n "${@:2}"; then
		[ -e /dev/ublkb$n ] || $server del -n $n >/dev/null 2>&1 || :
		why="its target $1: $why"
		return 1
	fi
	undo_later "$server del -n $n"
	dev=/dev/ublkb$n
	[ -b $dev ] || { why="$server made no device"; return 1; }
}
