// SPDX-License-Identifier: GPL-2.0-only
/*
 * hit_bdev.c - a hit on a block device: the bio itself is sent there.
 *
 * No clone.  What the lower layers change (the device, the sector, who is told
 * at the end) is saved in a struct ubdm_io and put back at completion.  The
 * saved end_io is called directly: bio_endio() has done its part for this bio
 * already when it called us.
 */
#include "bio.h"
#include "flush.h"

#include <linux/blk-cgroup.h>

static void end_io(struct bio *bio)
{
	struct ubdm_io *io = bio->bi_private;
	struct ubdm_dev *dev = io->dev;
	bool write = op_is_write(bio_op(bio));
	u64 tid = io->tid;

	bio->bi_end_io = io->end_io;
	bio->bi_private = io->private;
	bio->bi_bdev = io->bdev;
	bdev_end_io_acct(io->bdev, bio_op(bio), io->sectors, io->start);
	if (write)
		ubdm_backing_wrote(io->backing);
	ubdm_io_leave(dev, io->srcu_idx);
	mempool_free(io, &dev->io_pool);

	if (unlikely(bio->bi_status)) {
		ubdm_count(dev, UBDM_S_ERRORS);
	} else if (write && unlikely(ubdm_hit_needs_flush(dev, bio, tid))) {
		ubdm_flush_park(dev, bio, tid);
		return;
	}
	bio->bi_end_io(bio);
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

	io = mempool_alloc(&dev->io_pool, nowait ? GFP_NOWAIT : GFP_NOIO);
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
	io->end_io = bio->bi_end_io;
	io->private = bio->bi_private;
	io->bdev = bio->bi_bdev;
	io->start = bio_start_io_acct(bio);

	bio->bi_end_io = end_io;
	bio->bi_private = io;
	bio->bi_iter.bi_sector = sector;
	bio_set_dev(bio, b->bdev);
	/*
	 * A backing that cannot do NOWAIT would have the bio failed; our own
	 * promise is kept by the block layer's asynchrony well enough.
	 */
	if (unlikely(nowait && !b->nowait))
		bio->bi_opf &= ~REQ_NOWAIT;
	submit_bio_noacct(bio);
}
