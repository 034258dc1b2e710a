#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 512M --timeout 120
#
# The module by itself: it loads, shows what it should, and goes again.

. "$(dirname "$0")/lib.sh"

no_trace() {
	! grep -q ubdmap /proc/devices && test ! -e /dev/ubdmap &&
		test ! -d /sys/module/ubdmap
}

again() {
	i=0
	while [ $i -lt 6 ]; do
		insmod "$UBDMAP_MODULE" && rmmod ubdmap || return 1
		i=$((i + 1))
	done
}

check "the harness has loaded the module" test -d /sys/module/ubdmap
equal "its device is root's alone" "$(stat -c '%F %a %U' /dev/ubdmap)" \
	"character special file 600 root"
check "it can be removed while nobody uses it" rmmod ubdmap
check "nothing of it stays" no_trace
check "it can come and go six times" again
