// SPDX-License-Identifier: GPL-2.0-only
/*
 * hit_bdev.c - a hit on a block device: the bio itself is sent there.
 *
 * No clone.  What the lower layers change (the device, the sector, who is told
 * at the end) is saved in a struct ubdm_io and put back at completion.  The
 * saved end_io is called directly: bio_endio() has done its part for this bio
 * already when it called us.
 *
 * With one exception.  bio_endio() tells us of a bio that fronts were cut off
 * only when the fronts have ended too, and then with their error as if it were
 * its own.  A front with FUA may wait for a COMMIT, and the COMMIT for the drain
 * of what we have in flight.  So the rest of such a bio must report for itself:
 * it is sent as a clone.
 */
#include "acct.h"
#include "bio.h"
#include "flush.h"
#include "plug.h"

#include <linux/blk-cgroup.h>
#include <linux/blk-mq.h>

/* What both ends share; true: @bio waits for a COMMIT and must not end yet. */
static __always_inline bool finish(struct ubdm_io *io, struct bio *bio,
				   blk_status_t status)
{
	struct ubdm_dev *dev = io->dev;
	bool write = op_is_write(bio_op(bio));
	u64 tid = io->tid;

	ubdm_acct_end(bio->bi_bdev, bio_op(bio), io->sectors, io->start);
	if (write)
		ubdm_backing_wrote(io->backing);
	/* Who reads ahead is put off by a suspended dm, say, and reads again. */
	if (unlikely(status) && !(bio->bi_opf & REQ_RAHEAD))
		ubdm_dev_backing_failed(dev, bio, U64_MAX, io->backing,
					blk_status_to_errno(status));
	ubdm_io_leave(dev, io->srcu_idx);
	ubdm_io_free(dev, io);

	if (unlikely(status)) {
		/* No tag for who asked not to wait for one: that is no failure, here as there. */
		if (status != BLK_STS_AGAIN)
			ubdm_count_failed(dev, bio);
	} else if (write && unlikely(ubdm_hit_needs_flush(dev, bio, tid))) {
		ubdm_flush_park(dev, bio, tid);
		return true;
	}
	return false;
}

static void end_io(struct bio *bio)
{
	struct ubdm_io *io = bio->bi_private;

	bio->bi_end_io = io->end_io;
	bio->bi_private = io->private;
	bio->bi_bdev = io->bdev;
	bio->bi_opf = io->opf;
	if (!finish(io, bio, bio->bi_status))
		bio->bi_end_io(bio);
}

static void end_clone(struct bio *clone)
{
	struct ubdm_io *io = clone->bi_private;
	struct bio *bio = io->bio;
	blk_status_t status = clone->bi_status;

	if (status && !bio->bi_status)
		bio->bi_status = status;
	bio_put(clone);
	if (!finish(io, bio, status))
		bio_endio(bio);
}

/* NULL: @bio has ended. */
static noinline struct bio *clone_for(struct ubdm_io *io, struct bio *bio)
{
	gfp_t gfp = bio->bi_opf & REQ_NOWAIT ? GFP_NOWAIT : GFP_NOIO;
	struct ubdm_dev *dev = io->dev;
	struct bio *clone;

	clone = bio_alloc_clone(io->backing->bdev, bio, gfp, &dev->clone_set);
	if (unlikely(!clone)) {
		ubdm_io_leave(dev, io->srcu_idx);
		ubdm_io_free(dev, io);
		bio_wouldblock_error(bio);
		return NULL;
	}
	io->start = bio_start_io_acct(bio);
	io->bio = bio;
	clone->bi_end_io = end_clone;
	clone->bi_private = io;
	return clone;
}

/**
 * ubdm_hit_bdev - send a bio to a block device backing
 * @dev: the device
 * @bio: wholly inside one extent
 * @b: the backing
 * @sector: where in it
 * @tid: of the extent
 * @srcu_idx: the drain reference, passes to the I/O
 *
 * Context: submit_bio, or a worker of the device.
 */
void ubdm_hit_bdev(struct ubdm_dev *dev, struct bio *bio, struct ubdm_backing *b,
		   u64 sector, u64 tid, int srcu_idx)
{
	bool nowait = bio->bi_opf & REQ_NOWAIT;
	struct ubdm_io *io;

	io = ubdm_io_alloc(dev, nowait);
	if (unlikely(!io)) {
		ubdm_io_leave(dev, srcu_idx);
		bio_wouldblock_error(bio);
		return;
	}
	io->dev = dev;
	io->backing = b;
	io->tid = tid;
	io->srcu_idx = srcu_idx;
	io->sectors = bio_sectors(bio);

	if (unlikely(bio_flagged(bio, BIO_CHAIN))) {
		bio = clone_for(io, bio);
		if (!bio)
			return;
	} else {
		io->end_io = bio->bi_end_io;
		io->private = bio->bi_private;
		io->bdev = bio->bi_bdev;
		/* A disk without a write cache has FUA taken off; we want to see it again. */
		io->opf = bio->bi_opf;
		io->start = ubdm_acct_start(bio);
		bio->bi_end_io = end_io;
		bio->bi_private = io;
		bio_set_dev(bio, b->bdev);
	}
	bio->bi_iter.bi_sector = sector;
	/*
	 * A backing that cannot do NOWAIT, which may change (dm gets another table),
	 * would have the bio failed; our own promise is kept by the block layer's
	 * asynchrony well enough.
	 */
	if (unlikely(nowait && !bdev_nowait(b->bdev)))
		bio->bi_opf &= ~REQ_NOWAIT;
	ubdm_plug_finish_empty();
	submit_bio_noacct(bio);
}

static void end_tried(struct bio *clone)
{
	struct ubdm_io *io = clone->bi_private;
	struct ubdm_dev *dev = io->dev;
	struct bio *bio = io->bio;
	int idx = io->srcu_idx;
	struct bio_list again;

	/* NOTSUPP: it was NOWAIT that the disk does not know any more. */
	if (likely(clone->bi_status != BLK_STS_AGAIN &&
		   clone->bi_status != BLK_STS_NOTSUPP)) {
		ubdm_count_hit(dev, op_is_write(bio_op(bio)), io->sectors);
		end_clone(clone);
		return;
	}
	bio_put(clone);
	ubdm_acct_cancel(bio->bi_bdev, bio_op(bio));
	bio_list_init(&again);
	ubdm_bio_own(bio);
	bio_list_add(&again, bio);
	/* Before we leave: who drains looks for it then, and after that dev may go. */
	ubdm_redrive(dev, &again);
	ubdm_io_free(dev, io);
	ubdm_io_leave(dev, idx);
}

/*
 * Does NOWAIT hold?  Bio-based drivers say so and wait for the tags of what is below
 * them (md), or get another table (dm); others may block when they are given a request
 * (nbd, loop).
 */
static bool keeps_nobody_waiting(struct block_device *bdev)
{
	struct request_queue *q = bdev_get_queue(bdev);

	return queue_is_mq(q) && !(q->tag_set->flags & BLK_MQ_F_BLOCKING);
}

/**
 * ubdm_try_bdev - send a bio to a block device backing, without waiting for a tag
 * @dev: the device
 * @bio: wholly inside one extent; not one that was cut
 * @b: the backing
 * @sector: where in it
 * @tid: of the extent
 * @srcu_idx: the drain reference, passes to the I/O
 *
 * A clone is sent, so that the bio itself is as it was if that comes back.
 *
 * Context: process.
 * Return: false: nothing was done.
 */
bool ubdm_try_bdev(struct ubdm_dev *dev, struct bio *bio, struct ubdm_backing *b,
		   u64 sector, u64 tid, int srcu_idx)
{
	const blk_opf_t direct = REQ_SYNC | REQ_IDLE;
	struct ubdm_io *io;
	struct bio *clone;

	if (!bdev_nowait(b->bdev) || !keeps_nobody_waiting(b->bdev))
		return false;
	/* Writeback of a page cache is slowed down in submit_bio, NOWAIT or not (wbt). */
	if (op_is_write(bio_op(bio)) && (bio->bi_opf & direct) != direct)
		return false;
	io = ubdm_io_alloc(dev, true);
	if (unlikely(!io))
		return false;
	clone = bio_alloc_clone(b->bdev, bio, GFP_NOWAIT, &dev->clone_set);
	if (unlikely(!clone)) {
		ubdm_io_free(dev, io);
		return false;
	}
	ubdm_bio_disown(bio);
	io->dev = dev;
	io->backing = b;
	io->bio = bio;
	io->tid = tid;
	io->srcu_idx = srcu_idx;
	io->sectors = bio_sectors(bio);
	io->start = ubdm_acct_start(bio);
	clone->bi_opf |= REQ_NOWAIT;
	clone->bi_iter.bi_sector = sector;
	clone->bi_end_io = end_tried;
	clone->bi_private = io;
	submit_bio_noacct(clone);
	return true;
}
