/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * slowpath.h - image formats: from a miss to extents.
 *
 * The slowpath knows image files and nothing of the kernel.  It takes requests
 * (a miss at this range; discard that; make everything durable) and answers
 * with extents: where in which store the bytes are.  Whoever embeds it (the
 * mapper; a test) carries the answers to where they are used and says later
 * what became of them.
 *
 * Threads.  sp_handle() may be called by several threads at once.  It makes its
 * decisions under the image's lock and drops the lock around bulk work (copies,
 * decompression, fdatasync).  It starts no threads and keeps no event loop.
 *
 * Order.  The callbacks in struct sp_ops are called with the image's lock held,
 * in the order in which the translations were sampled; the embedder must hand
 * them on in this order and must not call back into the slowpath.  That
 * order is rule 1 of the durability protocol (docs/durability.md).
 *
 * Units.  lba, len and store offsets count sectors of 512 bytes.  Errors are
 * -errno.  Nothing here prints.
 */
#ifndef SLOWPATH_H
#define SLOWPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SP_SECTOR_SHIFT	9
#define SP_MAX_STORES	256	/* image, chain, cache */
#define SP_MAX_REPLY	4096	/* extents in one reply */

enum sp_kind {		/* numbers as in the uapi, asserted in mapper/encode.c */
	SP_READ = 1,
	SP_WRITE,
	SP_DISCARD,
	SP_ZEROES,
	SP_FLUSH,
};

enum sp_action {
	SP_REDRIVE = 1,
	SP_DONE,
	SP_ERROR,
	SP_PLACE,
	SP_HOLD,
};

enum sp_extent_type {
	SP_LINEAR = 1,
	SP_ZERO,
	SP_EIO,
	SP_JOURNAL,
};

#define SP_PERM_R		(1 << 0)
#define SP_PERM_W		(1 << 1)

#define SP_EXT_REPLACE		(1 << 0)
#define SP_EXT_TOUCHED		(1 << 1)
#define SP_EXT_PLACING		(1 << 2)	/* from DUMP only */

/* As struct ubdm_extent, field by field; see there. */
struct sp_extent {
	uint64_t lba;
	uint64_t len;
	uint64_t off;
	uint64_t tid;
	uint16_t store;
	uint8_t type;
	uint8_t perm;
	uint32_t flags;
};

#define SP_REQ_NOUNMAP		(1 << 0)	/* ZEROES: keep the space */
#define SP_REQ_FUA		(1 << 1)	/* WRITE: DONE would not be enough */

/**
 * struct sp_req - one fault
 * @kind: enum sp_kind
 * @flags: SP_REQ_*
 * @lba: first sector of the front request
 * @len: its sectors
 * @want_lba: first sector somebody waits for
 * @want_len: sectors; contains the front request
 * @seq: sectors accessed in sequence up to @lba, 0: random
 * @tid: FLUSH: commit at least up to this
 * @priv: the embedder's, handed back in callbacks
 */
struct sp_req {
	enum sp_kind kind;
	uint32_t flags;
	uint64_t lba, len;
	uint64_t want_lba, want_len;
	uint32_t seq;
	uint64_t tid;
	void *priv;
};

/**
 * struct sp_reply - the answer to a request
 * @action: REDRIVE: install @ext, look again.  DONE: install @ext, the first
 *	@done sectors of the front request are complete.  ERROR: it fails with
 *	@error.  PLACE: its data is to be written to @ext, which is installed if
 *	that succeeds.  HOLD: ask again after @done milliseconds.
 * @error: -errno
 * @space: HOLD: for want of space
 * @fail_dev: a sync failed: no write or flush may succeed from now on
 * @done: see @action
 * @nr_ext: how many
 * @ext: valid during the call only; rising, disjoint
 * @token: if not 0: call sp_acked() with it when the extents are installed
 *	and what they replaced has drained, or were refused, or the PLACE ended
 */
struct sp_reply {
	enum sp_action action;
	int error;
	bool fail_dev;
	bool space;
	uint64_t done;
	unsigned int nr_ext;
	const struct sp_extent *ext;
	uint64_t token;
};

/**
 * struct sp_ops - what the embedder does for the slowpath
 * @reply: answer @req; called exactly once for each request that sp_handle()
 *	took
 * @map: install extents unasked (readahead); clean ones only
 * @invalidate: forget clean extents that point to @len sectors of @store from
 *	@off; sp_acked(token) once that is done and drained
 * @commit: metadata up to @tid is durable
 * @ahead: have sp_ahead() called, by as many threads as there are CPUs to spare;
 *	NULL: nothing is read ahead that has to be decompressed
 *
 * @take: copy the first @len bytes of WRITE's data to @buf, for an answer of DONE;
 *	0, or -errno, with some of it in @buf or nothing.  NULL: it cannot be had
 *
 * All but @take are called with the image's lock held, possibly from any thread that is
 * inside sp_handle(), sp_ahead() or sp_work().  They queue and return.  @take is called
 * inside sp_handle() where that may copy, without the lock.
 */
struct sp_ops {
	void (*reply)(void *ctx, const struct sp_req *req,
		      const struct sp_reply *reply);
	void (*map)(void *ctx, const struct sp_extent *ext, unsigned int nr);
	void (*invalidate)(void *ctx, unsigned int store, uint64_t off,
			   uint64_t len, uint64_t token);
	void (*commit)(void *ctx, uint64_t tid);
	void (*ahead)(void *ctx);
	int (*take)(void *ctx, const struct sp_req *req, void *buf, size_t len);
};

/**
 * enum sp_may - what sp_handle() may do for a request
 * @SP_MAY_WAIT: whatever it takes
 * @SP_MAY_COPY: a copy on write, for which it waits for the image's disks but for
 *	nobody else: neither another thread nor an acknowledgement
 * @SP_MAY_NOTHING: no I/O, no bulk work and no waiting
 */
enum sp_may {
	SP_MAY_WAIT,
	SP_MAY_COPY,
	SP_MAY_NOTHING,
};

/*
 * What is wrong stands behind what it is wrong with: a path, or two, each as long as
 * one can be, and some that are too long.
 */
#define SP_LINE_BYTES	10240

struct sp_err {
	char msg[SP_LINE_BYTES]; /* one line, names the file, the cause, the next step */
};

/**
 * struct sp_options - how to open an image
 * @path: the image
 * @format: "raw", "qcow2", or NULL: from the file's name
 * @read_only: nothing is written
 * @cache_bytes: bound of the cache for decompressed data; 0: the default
 * @allow_backing: NULL: any backing file the image names relative to its own
 *	folder or absolutely; otherwise asked for each, with its resolved path
 * @fds: NULL, or on attach: for each store the descriptor (L) that the kernel
 *	kept, in the order of their index; the image is not opened by path
 * @nr_fds: how many
 * @size: on attach: the device's in sectors, which a raw image has whatever became of
 *	its file; what that file lacks is an error to read.  0: the file's
 * @block_size: the device's logical block in bytes, 512..4096: every extent and DONE
 *	is in whole ones.  0, or less than the files need: what they need
 * @ctx: for the callbacks
 * @ops: callbacks
 */
struct sp_options {
	const char *path;
	const char *format;
	bool read_only;
	uint64_t cache_bytes;
	bool (*allow_backing)(void *ctx, const char *path);
	const int *fds;
	unsigned int nr_fds;
	uint64_t size;
	unsigned int block_size;
	void *ctx;
	const struct sp_ops *ops;
};

#define SP_STORE_WRITE		(1 << 0)
#define SP_STORE_BLOCKDEV	(1 << 1)
#define SP_STORE_BUFFERED	(1 << 2)	/* must go through the page cache */
#define SP_STORE_CACHE		(1 << 3)	/* made by the slowpath, not a file of the user's */

struct sp_store {
	int fd;			/* L: carries the locks, for the kernel to keep */
	uint32_t flags;
	const char *path;
};

/**
 * struct sp_info - what an image is
 * @size: its virtual size in sectors
 * @granule_shift: log2 of its cluster in sectors (the fault granule)
 * @block_size: smallest logical block in bytes the stores allow, 512..4096, or what
 *	was asked for if that is larger
 * @discard_gran: bytes; 0: cannot discard
 * @read_only: as opened
 * @format: its name
 * @depth: backing files below it
 * @warning: one line for the user, or ""
 */
struct sp_info {
	uint64_t size;
	unsigned int granule_shift;
	unsigned int block_size;
	uint32_t discard_gran;
	bool read_only;
	const char *format;
	unsigned int depth;
	char warning[SP_LINE_BYTES];
};

/**
 * struct sp_stats - what was done so far
 * @f1: fdatasyncs before metadata was written (rule 13)
 * @f2: fdatasyncs after it (rule 15)
 * @refill_syncs: fdatasyncs to fill the pool, to prepare and to finish
 * @commits: rounds
 * @cows: clusters copied
 * @places: PLACE replies
 * @allocs: clusters mapped over zeros
 * @decompressions: clusters decompressed
 * @uncommitted: clusters changed and not committed, now
 * @pool: clusters in the pool, now
 */
struct sp_stats {
	uint64_t f1;
	uint64_t f2;
	uint64_t refill_syncs;
	uint64_t commits;
	uint64_t cows;
	uint64_t places;
	uint64_t allocs;
	uint64_t decompressions;
	uint64_t uncommitted;
	uint64_t pool;
};

struct sp_image;

/**
 * sp_open - open an image with its backing chain and lock all of it
 * @out: the image
 * @opt: how
 * @err: the message for the user
 *
 * Store 0 is the image itself, 1..depth its backing files, the last one the
 * cache if the chain can need one.  Nothing is written to the image before the
 * first request that needs it.
 *
 * Return: 0; -ENOENT, -EACCES, -EBUSY (locked by somebody else), -ENOTSUP (a
 * feature; @err names it), -EINVAL (not such an image, or broken), -ELOOP,
 * -ENOMEM, -EIO.
 */
int sp_open(struct sp_image **out, const struct sp_options *opt,
	    struct sp_err *err);

/**
 * sp_info - what it is
 * @img: the image
 *
 * Return: valid until sp_close().
 */
const struct sp_info *sp_info(const struct sp_image *img);

/**
 * sp_store - a file the extents may point to
 * @img: the image
 * @i: from 0
 *
 * Return: the store, NULL past the last.
 */
const struct sp_store *sp_store(const struct sp_image *img, unsigned int i);

/**
 * sp_stats - counters
 * @img: the image
 * @stats: filled
 */
void sp_stats(struct sp_image *img, struct sp_stats *stats);

/**
 * sp_handle - take a request
 * @img: the image
 * @req: copied; need not outlive the call
 * @may: answer only if that needs no more than this
 *
 * Return: 0: ops->reply was called; -EAGAIN (not with SP_MAY_WAIT): nothing
 * happened, call again from where waiting is allowed.
 */
int sp_handle(struct sp_image *img, const struct sp_req *req, enum sp_may may);

/**
 * sp_acked - what became of a reply or an invalidation
 * @img: the image
 * @token: from the reply
 * @res: 0: installed (placed) and drained; -errno: refused as a whole, or the
 *	PLACE's write failed; nothing was installed then
 *
 * Never blocks on I/O.
 * Return: whether sp_work() has something to do before the time that it said last.
 */
bool sp_acked(struct sp_image *img, uint64_t token, int res);

/**
 * sp_work - background work: refill the pool, commit by timer, clean up
 * @img: the image
 *
 * For a thread that may block.  Return: milliseconds until it has something to
 * do again, 0: now, -1: not before another request.
 */
int sp_work(struct sp_image *img);

/**
 * sp_ahead - decompress a cluster that somebody waits for, or will
 * @img: the image
 *
 * For threads that may block, any number of them, when ops->ahead says so and
 * nothing more urgent is to be done.
 *
 * Return: whether there is more to do; if not, ops->ahead will tell.
 */
bool sp_ahead(struct sp_image *img);

/**
 * sp_relink - after attach: take over what the kernel kept
 * @img: an image opened with @fds, before its first request
 * @ext: every uncommitted extent and PLACE in flight, as dumped
 * @nr: how many
 * @max_tid: the highest tid the device ever saw; numbering goes on above
 * @err: message
 *
 * The caller has taken the fence and drained older I/O (rule 22).  If PLACEs are
 * among @ext (SP_EXT_PLACING) FLUSHes are put off until sp_acked() was called
 * with the tid of each as the token: 0 if another dump shows it installed, an
 * error if it is gone without.
 */
int sp_relink(struct sp_image *img, const struct sp_extent *ext,
	      unsigned int nr, uint64_t max_tid, struct sp_err *err);

/**
 * sp_finish - clean end: everything linked, leaks returned, image marked clean
 * @img: the image; no request is running and the kernel does no I/O any more
 * @ext: the uncommitted extents as dumped after the drain: those not TOUCHED
 *	are given back instead of linked
 * @nr: how many
 * @err: message
 *
 * Return: 0; -EIO and others if the image could not be closed cleanly (it
 * then stays marked dirty).  sp_close() follows in any case.
 */
int sp_finish(struct sp_image *img, const struct sp_extent *ext,
	      unsigned int nr, struct sp_err *err);

/**
 * sp_close - let go of everything; without sp_finish() as a crash would
 * @img: the image, or NULL
 */
void sp_close(struct sp_image *img);

#endif /* SLOWPATH_H */
