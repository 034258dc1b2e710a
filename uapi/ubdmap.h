/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * ubdmap.h - data plane between the ubdmap driver and a mapper.
 *
 * A mapper opens /dev/ubdmap and gets a channel.  Generic netlink (see
 * ubdmap_nl.h) creates a device on that channel or attaches the channel to an
 * orphaned device; everything else happens here, as IORING_OP_URING_CMD on
 * the channel.  The ring needs IORING_SETUP_SQE128: the command's body is the
 * 80 bytes at sqe->cmd.  Whoever holds the file descriptor holds the power
 * over its device, and over no other.
 *
 * Units.  Every lba, len and off counts sectors of 512 bytes, whatever the
 * device's logical block size.  Ranges are [start, start + len).
 *
 * Versioning.  The size of a body is part of its command number (_IOWR), a
 * body that grows gets a new number, and the old one keeps working.  Unknown
 * flags and non-zero padding are refused with -EINVAL, so that either may get
 * a meaning later.
 *
 * Order.  The kernel applies the commands of one channel in the order of
 * their submission.  "Applied" and "completed" differ: a command that
 * replaces or removes a translation takes effect at submission, and its CQE
 * comes once no I/O that used the old translation is in flight.
 *
 * Memory ordering.  Fault descriptors are copied into the FETCH's own buffer
 * before the CQE that announces them is published.  Userspace reads the CQ
 * tail with acquire semantics (liburing does) and may then read the buffer.
 * The buffer belongs to the kernel from submission to CQE.
 *
 * Common errors: -EINVAL a body that makes no sense, -ENOTCONN the channel
 * has no device, -ESTALE another channel has taken the device over, -ESHUTDOWN
 * the channel was stopped, -EFAULT a pointer, -ENOMEM.
 */
#ifndef _UAPI_UBDMAP_H
#define _UAPI_UBDMAP_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define UBDM_SECTOR_SHIFT	9
#define UBDM_CMD_BODY		80	/* bytes at sqe->cmd with SQE128 */
#define UBDM_MAX_EXTENTS	8192	/* in one transaction */
#define UBDM_MAX_FETCH		64	/* faults in one FETCH */
#define UBDM_MAX_BACKINGS	1024
#define UBDM_MIN_GRANULE_SHIFT	0	/* in sectors: 512 B */
#define UBDM_MAX_GRANULE_SHIFT	12	/* in sectors: 2 MiB */

/* enum ubdm_extent_type - what an extent translates to */
#define UBDM_EXT_LINEAR		1	/* backing[off + (lba - ext.lba)] */
#define UBDM_EXT_ZERO		2	/* reads zeros; never writable */
#define UBDM_EXT_ERROR		3	/* every access fails with EIO */
#define UBDM_EXT_JOURNAL	4	/* like LINEAR in DUMP, a miss for I/O */

/* ubdm_extent.perm */
#define UBDM_PERM_R		(1 << 0)
#define UBDM_PERM_W		(1 << 1)	/* LINEAR only, and only with R */

/* ubdm_extent.flags */
#define UBDM_EXT_F_REPLACE	(1 << 0)	/* supersede what is there (needs a tid) */
#define UBDM_EXT_F_TOUCHED	(1 << 1)	/* carries acknowledged content already */
#define UBDM_EXT_F_PLACING	(1 << 2)	/* DUMP only: a PLACE in flight */
#define UBDM_EXT_F_IN		(UBDM_EXT_F_REPLACE | UBDM_EXT_F_TOUCHED)

/**
 * struct ubdm_extent - one translation
 * @lba: first sector of the device it covers
 * @len: sectors, at least one; @lba and @len are multiples of the device's
 *	logical block
 * @off: first sector in the backing (LINEAR, JOURNAL); 0 otherwise
 * @tid: 0: clean, its format metadata is durable already.  Otherwise the
 *	mapper's number for the change; it only rises over the device's life,
 *	and the extent is uncommitted until a COMMIT names it or a later one.
 * @backing: index from BACKING_ADD (LINEAR, JOURNAL); 0 otherwise
 * @type: UBDM_EXT_*
 * @perm: UBDM_PERM_*; 0 for ERROR and JOURNAL, R for ZERO
 * @flags: UBDM_EXT_F_*
 *
 * A clean extent fills holes: where something is mapped already the old one
 * stays, except that the same translation may gain W.  One with
 * UBDM_EXT_F_REPLACE supersedes whatever is there.  One with a tid and no
 * REPLACE must hit holes only, or the transaction fails with -EEXIST.
 */
struct ubdm_extent {
	__u64 lba;
	__u64 len;
	__u64 off;
	__u64 tid;
	__u16 backing;
	__u8  type;
	__u8  perm;
	__u32 flags;
};

/* ubdm_fault.kind */
#define UBDM_FAULT_READ		1
#define UBDM_FAULT_WRITE	2
#define UBDM_FAULT_DISCARD	3
#define UBDM_FAULT_ZEROES	4
#define UBDM_FAULT_FLUSH	5
#define UBDM_FAULT_SHUTDOWN	6	/* finish: commit, tidy up, STOP(DONE) */
#define UBDM_FAULT_COMMIT	7	/* many uncommitted extents: please commit */

/* ubdm_fault.flags */
#define UBDM_FAULT_F_FUA	(1 << 0)
#define UBDM_FAULT_F_NOUNMAP	(1 << 1)	/* ZEROES: keep space allocated */

/**
 * struct ubdm_fault - what the mapper is told about a miss
 * @cookie: names this delivery in RESOLVE: channel epoch << 32 | sequence
 * @lba: first sector of the front request, the one DONE, ERROR and PLACE act on
 * @len: its sectors (READ, WRITE: what of it is parked)
 * @want_lba: first sector anybody waits for on this fault
 * @want_len: sectors; [want_lba, want_lba + want_len) contains the front request
 * @tid: FLUSH: commit at least up to this one
 * @seq: sectors read or written in sequence up to @lba by this stream; 0 if
 *	the access looks random.  A hint for how far to map ahead.
 * @tries: how often a fault on this range was resolved without progress
 * @kind: UBDM_FAULT_*
 * @flags: UBDM_FAULT_F_*
 * @queue: 0
 * @nr_waiters: requests parked on this fault
 *
 * Only one READ, WRITE, DISCARD or ZEROES fault is outstanding per granule.
 * SHUTDOWN and COMMIT want no answer: their cookie is 0.
 */
struct ubdm_fault {
	__u64 cookie;
	__u64 lba;
	__u64 len;
	__u64 want_lba;
	__u64 want_len;
	__u64 tid;
	__u32 seq;
	__u16 tries;
	__u8  kind;
	__u8  flags;
	__u16 queue;
	__u16 nr_waiters;
	__u32 pad;
};

/**
 * struct ubdm_start - START: the device may appear
 * @flags: 0
 * @granule_shift: log2 of the fault granule in sectors (a cluster)
 * @pad: 0
 *
 * The disk is added by the driver's own work once a FETCH is armed; the CQE
 * comes when it is usable (or with add_disk's error).  On a channel attached to
 * a device that is live already it resumes fault delivery.
 */
struct ubdm_start {
	__u32 flags;
	__u8  granule_shift;
	__u8  pad[3];
};

/* ubdm_stop.flags */
#define UBDM_STOP_F_DONE	(1 << 0)	/* answers SHUTDOWN: go ahead and delete */
#define UBDM_STOP_F_DETACH	(1 << 1)	/* go on without any mapper */

/**
 * struct ubdm_stop - STOP: end of this channel
 * @flags: UBDM_STOP_F_*
 * @error: with DONE: what went wrong, as -errno, or 0; reported to whoever
 *	asked for the deletion
 *
 * Cancels every FETCH (-ECANCELED), takes back undelivered and unresolved
 * faults, and orphans the device, or deletes it with DONE.  Later commands
 * return -ESHUTDOWN.
 *
 * With DETACH the device needs no mapper afterwards: DISCARD does nothing,
 * WRITE_ZEROES is left to the block layer.  -ENODATA, and nothing has happened,
 * if not every sector is mapped for all that the device allows; -EBUSY if
 * something is uncommitted or a request waits.
 */
struct ubdm_stop {
	__u32 flags;
	__s32 error;
};

/**
 * struct ubdm_fetch - FETCH: wait for faults
 * @buf: address of @nr struct ubdm_fault
 * @nr: 1..UBDM_MAX_FETCH
 * @queue: 0
 * @flags: 0
 *
 * CQE: number of faults written, at least 1; -ECANCELED after STOP or cancel.
 */
struct ubdm_fetch {
	__u64 buf;
	__u32 nr;
	__u16 queue;
	__u16 flags;
};

/* ubdm_resolve.action */
#define UBDM_RESOLVE_REDRIVE	1	/* look everybody up again */
#define UBDM_RESOLVE_DONE	2	/* front request: @done sectors are complete */
#define UBDM_RESOLVE_ERROR	3	/* front request fails with @error */
#define UBDM_RESOLVE_PLACE	4	/* write the front request to the extents first */
#define UBDM_RESOLVE_HOLD	5	/* not now: deliver again after @done ms */

/* ubdm_resolve.flags */
#define UBDM_RESOLVE_F_INLINE	(1 << 0)	/* the one extent is @ext */
#define UBDM_RESOLVE_F_FAIL_DEV	(1 << 1)	/* a sync failed: no write after it */
#define UBDM_RESOLVE_F_SPACE	(1 << 2)	/* HOLD: there is no space below */

/**
 * struct ubdm_resolve - RESOLVE: answer a fault
 * @cookie: the fault; -ENOENT if it is not outstanding on this channel, and
 *	nothing was installed
 * @addr: address of @nr_ext struct ubdm_extent (unless INLINE)
 * @done: DONE: sectors of the front request, from its start, that are complete,
 *	at least one block (what remains is looked up again), but ignored for
 *	FLUSH; HOLD: milliseconds, at most 60000.  A READ that is DONE was filled by
 *	pwrite() on the channel; a device that was made without CAP_SYS_ADMIN has
 *	-EINVAL if not.  A WRITE that is DONE was taken by
 *	pread() and written by the mapper; whether it is durable, which
 *	UBDM_FAULT_F_FUA asks for, is then the mapper's to see to
 * @nr_ext: 0..UBDM_MAX_EXTENTS
 * @error: ERROR: -errno
 * @flags: UBDM_RESOLVE_F_*
 * @action: UBDM_RESOLVE_*
 * @pad: 0
 * @ext: the extent, with INLINE
 *
 * The extents are one transaction, installed before anybody is looked up
 * again.  If they are refused nothing changes and the fault stays outstanding.
 * FLUSH takes DONE, ERROR and HOLD only.
 *
 * PLACE: the extents are LINEAR RW with a tid and adjoin each other; they
 * begin at the front request's first sector and end no later than it does.
 * The kernel writes that part of the front request to them, and only when all
 * of it has succeeded installs them, superseding what is there, and completes
 * that part.  On error nothing is installed and the request fails.
 *
 * CQE: 0 when installed and, where something was superseded, drained; for
 * PLACE when installed and drained, or the write's error.
 */
struct ubdm_resolve {
	__u64 cookie;
	__u64 addr;
	__u64 done;
	__u32 nr_ext;
	__s16 error;
	__u8  flags;
	__u8  action;
	__u64 pad;
	struct ubdm_extent ext;
};

/**
 * struct ubdm_map - MAP: install extents as one transaction, unasked
 * @addr: address of @nr_ext struct ubdm_extent
 * @nr_ext: 1..UBDM_MAX_EXTENTS, rising and disjoint
 * @flags: 0
 *
 * CQE: 0 when installed and, where something was superseded, drained.
 */
struct ubdm_map {
	__u64 addr;
	__u32 nr_ext;
	__u32 flags;
};

/* ubdm_invalidate.flags: exactly one of */
#define UBDM_INVAL_F_LBA	(1 << 0)	/* @start, @len are device sectors */
#define UBDM_INVAL_F_BACKING	(1 << 1)	/* ... sectors of @backing */

/**
 * struct ubdm_invalidate - INVALIDATE: forget clean translations
 * @start: first sector
 * @len: sectors; 0: forget nothing, only wait
 * @backing: index, with UBDM_INVAL_F_BACKING
 * @pad: 0
 * @flags: UBDM_INVAL_F_*
 *
 * CQE: 0 once no I/O that used them is in flight.  -EBUSY, and nothing is
 * forgotten, if an uncommitted extent is in the range.  Not an error if
 * nothing is mapped there: it then still waits for I/O started earlier.
 */
struct ubdm_invalidate {
	__u64 start;
	__u64 len;
	__u16 backing;
	__u16 pad;
	__u32 flags;
};

/**
 * struct ubdm_commit - COMMIT: metadata up to @tid is durable
 * @tid: every extent with a tid up to this one is clean from now on
 * @flags: 0
 * @pad: 0
 *
 * -EIO: writing back to a backing has failed, whoever was told of it; nothing is
 * clean, and the device has failed.
 */
struct ubdm_commit {
	__u64 tid;
	__u32 flags;
	__u32 pad;
};

/* ubdm_backing_add.flags */
#define UBDM_BACKING_F_WRITE	(1 << 0)	/* extents may be writable */
#define UBDM_BACKING_F_BUFFERED	(1 << 1)	/* through the page cache */

/**
 * struct ubdm_backing_add - BACKING_ADD: register a file or block device
 * @fd: open for reading, and writing with UBDM_BACKING_F_WRITE; regular
 *	files and block devices only
 * @flags: UBDM_BACKING_F_*
 * @start: first sector extents may point to
 * @len: sectors from there; U64_MAX: whatever the file grows to
 *
 * CQE: the index, 0..UBDM_MAX_BACKINGS-1.  -ELOOP if it is, or plainly sits
 * on, this device, or after START another one of ubdmap's.  -EOPNOTSUPP if
 * direct I/O is not possible with the device's block size (register it BUFFERED
 * then).
 */
struct ubdm_backing_add {
	__s32 fd;
	__u32 flags;
	__u64 start;
	__u64 len;
};

/**
 * struct ubdm_backing_ref - BACKING_GET and BACKING_DEL
 * @index: which
 * @flags: 0
 *
 * GET's CQE: a new O_CLOEXEC descriptor of the registered struct file, or
 * -ENOENT.  DEL: 0 once it was flushed and drained; -EBUSY while an extent
 * points to it.
 */
struct ubdm_backing_ref {
	__u32 index;
	__u32 flags;
};

/* ubdm_dump.flags */
#define UBDM_DUMP_F_UNCOMMITTED	(1 << 0)

/**
 * struct ubdm_dump_head - in front of DUMP's extents
 * @next_lba: where the next DUMP goes on; U64_MAX when all was told
 * @max_tid: the highest tid this device ever saw
 * @committed_tid: the highest tid ever committed
 * @nr: extents that follow
 * @pad: 0
 */
struct ubdm_dump_head {
	__u64 next_lba;
	__u64 max_tid;
	__u64 committed_tid;
	__u32 nr;
	__u32 pad;
};

/**
 * struct ubdm_dump - DUMP: read the TLB
 * @addr: address of a struct ubdm_dump_head and @nr extents behind it
 * @lba: where to begin
 * @nr: room for extents, 1..UBDM_MAX_EXTENTS
 * @flags: UBDM_DUMP_F_*
 *
 * PLACEs in flight are told too, with UBDM_EXT_F_PLACING, by the call that
 * begins at lba 0.  CQE: 0.
 */
struct ubdm_dump {
	__u64 addr;
	__u64 lba;
	__u32 nr;
	__u32 flags;
};

#define UBDM_IOC_TYPE		0xBD
#define UBDM_CMD_START		_IOWR(UBDM_IOC_TYPE, 1, struct ubdm_start)
#define UBDM_CMD_STOP		_IOWR(UBDM_IOC_TYPE, 2, struct ubdm_stop)
#define UBDM_CMD_FETCH		_IOWR(UBDM_IOC_TYPE, 3, struct ubdm_fetch)
#define UBDM_CMD_RESOLVE	_IOWR(UBDM_IOC_TYPE, 4, struct ubdm_resolve)
#define UBDM_CMD_MAP		_IOWR(UBDM_IOC_TYPE, 5, struct ubdm_map)
#define UBDM_CMD_INVALIDATE	_IOWR(UBDM_IOC_TYPE, 6, struct ubdm_invalidate)
#define UBDM_CMD_COMMIT		_IOWR(UBDM_IOC_TYPE, 7, struct ubdm_commit)
#define UBDM_CMD_BACKING_ADD	_IOWR(UBDM_IOC_TYPE, 8, struct ubdm_backing_add)
#define UBDM_CMD_BACKING_GET	_IOWR(UBDM_IOC_TYPE, 9, struct ubdm_backing_ref)
#define UBDM_CMD_BACKING_DEL	_IOWR(UBDM_IOC_TYPE, 10, struct ubdm_backing_ref)
#define UBDM_CMD_DUMP		_IOWR(UBDM_IOC_TYPE, 11, struct ubdm_dump)

/*
 * pread() and pwrite() on the channel move the bytes of a fault's front
 * request, for what cannot be mapped: pread() takes the data of a parked
 * write, pwrite() fills a parked read.  -ENOENT if the fault is not
 * outstanding, -EINVAL outside the request or against its direction.
 */
#define UBDM_FAULT_POS(cookie, byte) \
	((((__u64)(cookie) & 0x7fffffff) << 32) | (__u32)(byte))

#endif /* _UAPI_UBDMAP_H */
