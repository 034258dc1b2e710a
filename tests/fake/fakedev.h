/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fakedev.h - the kernel's half of a device, in userspace, over the slowpath.
 *
 * Keeps a map of extents with the meaning that uapi/ubdmap.h gives them, serves
 * reads and writes from it, and takes every miss to sp_handle().  What the
 * slowpath answers is checked against the contract first; a breach aborts with
 * a message, so that it fails a unit test and a fuzzer alike.
 *
 * With one thread everything follows from the seed.  With several, fdev_read()
 * and the like may be called at once; opening, ending and dying may not.
 */
#ifndef TESTS_FAKE_FAKEDEV_H
#define TESTS_FAKE_FAKEDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "slowpath.h"

struct fdev;

/**
 * struct fdev_opts - a device to be
 * @path: the image
 * @format: as for sp_open()
 * @read_only: as for sp_open()
 * @hostile: the image may be damaged: data past the end of a file is EIO, not a
 *	breach, and storage may be shared between sectors of the device
 * @cache_bytes: as for sp_open()
 * @block_size: the device's, if the image's is not larger; sp_open() is told
 * @allow_backing: as for sp_open(); its ctx is no use
 * @seed: of everything random here
 * @evict: percent of operations before which clean extents are evicted
 * @late: percent of acknowledgements that come late
 * @refuse: percent of transactions with uncommitted extents that find no memory
 * @place_fail: percent of PLACEs whose write fails
 * @work: percent of operations before which sp_work() runs
 * @slow: percent of I/Os that dawdle between lookup and transfer (threads)
 * @rekill: percent of attaches after a kill that see another kill soon
 * @crowd: percent of faults that go to the mapper although there is one for
 *	their cluster already; more than the driver does
 * @untaken: percent of WRITE faults whose data the mapper cannot have
 * @widen: percent of faults that others wait on too, around the front request
 */
struct fdev_opts {
	const char *path;
	const char *format;
	bool read_only;
	bool hostile;
	uint64_t cache_bytes;
	unsigned int block_size;
	bool (*allow_backing)(void *ctx, const char *path);
	uint64_t seed;
	unsigned int evict, late, refuse, place_fail, work, slow, widen, rekill, crowd;
	unsigned int untaken;
};

/* What happened; by enum sp_kind where there is an index. */
struct fdev_stats {
	unsigned int faults[6];
	unsigned int places, redrives, holds, refused, evicted, invals, commits, acks;
	unsigned int maps, attaches, flush_local, read_hits, write_hits, merged;
};

int fdev_open(struct fdev **out, const struct fdev_opts *opt, struct sp_err *err);
const struct sp_info *fdev_info(struct fdev *d);
struct sp_image *fdev_image(struct fdev *d);
const struct fdev_stats *fdev_stats(struct fdev *d);

/* Requests; lba and len in sectors, multiples of the block.  0 or -errno. */
int fdev_read(struct fdev *d, void *buf, uint64_t lba, uint64_t len);
int fdev_write(struct fdev *d, const void *buf, uint64_t lba, uint64_t len, bool fua);
int fdev_discard(struct fdev *d, uint64_t lba, uint64_t len);
int fdev_zeroes(struct fdev *d, uint64_t lba, uint64_t len, bool nounmap);
int fdev_flush(struct fdev *d);
/* FLUSH up to a tid as the mapper gets it, once.  -EAGAIN: it is to ask again. */
int fdev_try_flush(struct fdev *d, uint64_t tid);

void fdev_evict(struct fdev *d, unsigned int percent);	/* clean extents */
void fdev_settle(struct fdev *d);		/* deliver all acknowledgements */
/* Uncommitted extents as DUMP tells them, malloc'ed. */
unsigned int fdev_dump(struct fdev *d, struct sp_extent **ext, uint64_t *max_tid);

/* Is any sector of store 0 in [off, off + len) open to writes of the kernel? */
bool fdev_writable(struct fdev *d, uint64_t off, uint64_t len);

/* The extent at lba, its store translated back; false: a hole. */
bool fdev_extent(struct fdev *d, uint64_t lba, struct sp_extent *e);
/* An I/O that began now and does not end: nothing drains before fdev_unhold(). */
void fdev_hold(struct fdev *d);
void fdev_unhold(struct fdev *d);

/* Del: drain, commit, tidy up.  The device is gone afterwards in any case. */
int fdev_finish(struct fdev *d, struct sp_err *err);
/* The mapper dies here and now, and a new one attaches. */
int fdev_reattach(struct fdev *d, struct sp_err *err);
/*
 * The mapper dies at the n-th I/O from now that it does (1: the next): that one
 * and all later ones have no effect, nothing that it says is heard.  A
 * new one attaches when the request at hand comes back, and the request is
 * delivered again.  0: not after all.  The hook that is there is called for
 * what is still done, and put back in the end.
 */
void fdev_kill_at(struct fdev *d, unsigned int n);
/* It dies here and now; called from within its own I/O too. */
void fdev_die(struct fdev *d);
/* Nobody attaches yet: the kernel is alone with what it has. */
void fdev_orphan(struct fdev *d);
/* Everything ends at once: no sp_finish(), the kernel's map is forgotten. */
void fdev_drop(struct fdev *d);

/*
 * Called before the kernel's own writes (buf, off and len in bytes) and syncs
 * (buf NULL) of store 0; may be NULL.  A negative return makes it fail.
 */
extern int (*fdev_data_hook)(const void *buf, uint64_t off, uint64_t len);
/* Called when a read has found its extent, before it is done (any store). */
extern void (*fdev_read_hook)(uint64_t off, uint64_t len);
/* Called while the mapper submits a reply, before that is applied. */
extern void (*fdev_reply_hook)(const struct sp_req *req, const struct sp_reply *r);

#endif /* TESTS_FAKE_FAKEDEV_H */
