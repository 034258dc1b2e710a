#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 2G --timeout 1200
#
# What "make demo" shows holds, each of its claims.

. "$(dirname "$0")/lib.sh"
requires fio qemu-img qemu-nbd jq

out=$(mktemp)
rc=0
"$UBDMAP_SRC/tests/demo/demo.sh" --no-table >"$out" 2>&1 || rc=$?
while IFS= read -r line; do
	case $line in
	'  -> '*) ok "${line#  -> }" ;;
	*) note "$line" ;;
	esac
done <"$out"
equal "the demo comes to its end" "$rc" 0
