#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 2G --timeout 1200
#
# qcow2 of every kind that qemu-img writes, through the device.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio qemu-img qemu-io mkfs.ext4

work_on /dev/vda
data src.raw 9 2 6

# kind CLAIM OPTIONS SIZE: an empty one
kind() {
	rm -f a.qcow2
	qemu-img create -q -f qcow2 -o "$2" a.qcow2 "$3"
	exercise "$1" a.qcow2 -s $((tap_done + 1))
}

# filled CLAIM CONVERT-ARG...: one with data in it
filled() {
	claim=$1
	shift
	rm -f a.qcow2
	qemu-img convert -f raw -O qcow2 "$@" src.raw a.qcow2
	qemu-img resize -q -f qcow2 a.qcow2 12M
	exercise "$claim" a.qcow2 -s $((tap_done + 1))
}

kind "version 2" compat=0.10 12M
kind "version 2, clusters of 512 B" compat=0.10,cluster_size=512 12M
kind "clusters of 512 B" cluster_size=512 12M
kind "clusters of 4 KiB, refcounts of 1 bit" cluster_size=4k,refcount_bits=1 12M
kind "refcounts of 4 bits" refcount_bits=4 12M
kind "clusters of 1 KiB, refcounts of 64 bits" cluster_size=1k,refcount_bits=64 12M
kind "clusters of 2 MiB" cluster_size=2M 12M
kind "an odd size" cluster_size=64k $(((12 << 20) + 3 * 512))
kind "lazy refcounts" lazy_refcounts=on 12M
kind "preallocated metadata" preallocation=metadata 12M
kind "preallocated by falloc" preallocation=falloc,cluster_size=8k 12M
kind "preallocated in full" preallocation=full 12M
filled "with data" -o cluster_size=16k
filled "compressed by zlib" -c -o cluster_size=64k
filled "compressed by zlib, version 2, clusters of 4 KiB" -c -o compat=0.10,cluster_size=4k
filled "compressed by zstd" -c -o compression_type=zstd
filled "compressed by zstd, clusters of 2 MiB" -c -o compression_type=zstd,cluster_size=2M

rm -f a.qcow2
qemu-img create -q -f qcow2 -o preallocation=metadata a.qcow2 12M
qemu-io -f qcow2 -c "write -P 7 0 12M" -c "write -z 1M 3M" -c "write -z -u 6M 1M" \
	-c "discard 8M 1M" a.qcow2 >/dev/null
exercise "zero clusters, with storage and without" a.qcow2
