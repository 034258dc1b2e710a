/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io.h - one file of an image: its two descriptors and all I/O on it.
 *
 * L carries the locks and is what the kernel registers; M is reopened from L
 * (/proc/self/fd) and carries every read, write and sync of our own, plus an OFD
 * write lock on a private byte: the fence between successive mappers
 * (durability protocol, rule 21).
 *
 * All I/O of the slowpath goes through here, so that tests can log it, delay
 * it and make the N-th call fail.
 */
#ifndef SLOWPATH_IO_H
#define SLOWPATH_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "slowpath.h"

struct sp_file {
	int fd_l;
	int fd_m;
	bool writable;
	bool blockdev;
	bool adopted;		/* L came from the kernel: its locks are not ours to drop */
	bool buffered;		/* page cache on both sides; else M is O_DIRECT */
	bool failed;		/* a sync failed once: sticky (atomic access) */
	unsigned int align;	/* offset and length granularity of M in bytes, 1 if buffered */
	unsigned int mem_align;
	uint64_t dev, ino;	/* identity, for cycles and "the same file twice" */
	char *path;
};

/*
 * Open path (or adopt fd_l >= 0, on attach: it is duplicated, the caller's stays
 * the caller's).  Locks are lock.c's.  O_NONBLOCK
 * against fifos, only regular files and block devices.  Direct I/O on M unless
 * the file system cannot do it, then buffered is set.
 */
int sp_file_open(struct sp_file *f, const char *path, int fd_l, bool writable,
		 struct sp_err *err);
/* Switch to buffered on both sides (clusters smaller than a page). */
int sp_file_set_buffered(struct sp_file *f);
void sp_file_close(struct sp_file *f);
bool sp_file_in_use(const struct sp_file *f);	/* a disk that is mounted or the like */

/*
 * Read or write exactly len bytes at byte offset off, any alignment: what is
 * not aligned is bounced; a write that is not aligned reads the rest of its
 * blocks first (so concurrent unaligned writers of one block must be excluded
 * by the caller).  Reads stop at end of file: *got < len and the rest of buf is
 * zeroed; got NULL: a short read is -EIO.  A write past the end extends the file.
 * sp_file_pwrite on a failed file: -EIO.
 */
int sp_file_pread(struct sp_file *f, void *buf, size_t len, uint64_t off, size_t *got);
int sp_file_pwrite(struct sp_file *f, const void *buf, size_t len, uint64_t off);
/* Both read zeros after; zero may keep the space, punch frees it if it can. */
int sp_file_zero(struct sp_file *f, uint64_t off, uint64_t len);
int sp_file_punch(struct sp_file *f, uint64_t off, uint64_t len);
/* A hint: as punch where that frees space, else -EOPNOTSUPP and nothing is written. */
int sp_file_discard(struct sp_file *f, uint64_t off, uint64_t len);
bool sp_file_discards(const struct sp_file *f);
int sp_file_sync(struct sp_file *f);		/* fdatasync; an error is sticky */
int sp_file_size(struct sp_file *f, uint64_t *size);
int sp_file_truncate(struct sp_file *f, uint64_t size);	/* regular files; never a block device */
void *sp_buf_alloc(size_t len);			/* aligned for direct I/O; NULL on failure */
void sp_buf_free(void *buf);

/*
 * Test hooks, process-wide; NULL normally.  Called before each operation; a
 * negative return makes it fail with that errno, without effect; so a PUNCH that
 * is refused with -EOPNOTSUPP may be followed by what is done instead.  buf is the
 * data of a write, NULL otherwise.
 */
enum sp_io_op { SP_IO_READ, SP_IO_WRITE, SP_IO_ZERO, SP_IO_PUNCH, SP_IO_SYNC, SP_IO_TRUNCATE };
extern int (*sp_io_hook)(const struct sp_file *f, enum sp_io_op op,
			 const void *buf, uint64_t off, uint64_t len);
/* Added to what now_ms() says, so that tests need not wait (atomic access). */
extern uint64_t sp_clock_skew_ms;

#endif /* SLOWPATH_IO_H */
