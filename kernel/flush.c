// SPDX-License-Identifier: GPL-2.0-only
/*
 * flush.c - FLUSH and FUA: by the kernel alone, or by the mapper.
 *
 * A FLUSH promises that what was written is durable and found again.  If
 * nothing that was written is uncommitted, the metadata is durable already and
 * syncing the backings is enough: the kernel does that itself, mapper or not.
 * Otherwise the mapper is asked to commit.
 *
 * A PREFLUSH with data is flushed first and then looked up like any write.
 * A FUA write to uncommitted storage waits here after it was written.
 */
#include "flush.h"
#include "bio.h"
#include "chan.h"
#include "genl.h"

#include <linux/sched/mm.h>

/**
 * ubdm_flush_park - let a bio wait until @tid is committed
 * @dev: the device
 * @bio: a PREFLUSH, or a FUA write that was written already
 * @tid: up to which
 *
 * Context: any.
 */
void ubdm_flush_park(struct ubdm_dev *dev, struct bio *bio, u64 tid)
{
	int ret;

	/* A FUA write has no data left to send, whatever bi_iter says. */
	if (!(bio->bi_opf & REQ_PREFLUSH))
		bio->bi_iter.bi_size = 0;
	if (READ_ONCE(dev->dead) || READ_ONCE(dev->failed)) {
		bio_io_error(bio);
		return;
	}
	ubdm_count(dev, UBDM_S_FLUSH_MAPPER);
	ubdm_bio_own(bio);
	ret = ubdm_ftab_park_flush(&dev->ftab, bio, tid);
	if (ret < 0) {
		ubdm_bio_disown(bio);
		bio_io_error(bio);
		return;
	}
	if (ret)
		ubdm_fetch_kick(dev);
	if (unlikely(READ_ONCE(dev->dead)))
		queue_delayed_work(dev->sync_wq, &dev->watch_work, 0);
}

/**
 * ubdm_flush_bio - take a bio with PREFLUSH
 * @dev: the device
 * @bio: with or without data
 *
 * Context: submit_bio.
 */
void ubdm_flush_bio(struct ubdm_dev *dev, struct bio *bio)
{
	unsigned long flags;
	u64 tid;

	if (ubdm_tlb_must_commit(&dev->tlb, &tid)) {
		ubdm_flush_park(dev, bio, tid);
		return;
	}
	ubdm_count(dev, UBDM_S_FLUSH_KERNEL);
	spin_lock_irqsave(&dev->flush_lock, flags);
	bio_list_add(&dev->flush, bio);
	spin_unlock_irqrestore(&dev->flush_lock, flags);
	queue_work(dev->sync_wq, &dev->flush_work);
}

/**
 * ubdm_flush_answered - end or go on with bios whose flush is done
 * @dev: the device
 * @bios: with PREFLUSH, or finished FUA writes
 * @error: 0 or -errno
 *
 * Context: process.
 */
void ubdm_flush_answered(struct ubdm_dev *dev, struct bio_list *bios, int error)
{
	struct bio_list again;
	struct bio *bio;

	bio_list_init(&again);
	while ((bio = bio_list_pop(bios))) {
		ubdm_bio_disown(bio);
		if (error) {
			bio->bi_status = errno_to_blk_status(error);
			bio_endio(bio);
		} else if (bio_sectors(bio)) {
			bio->bi_opf &= ~REQ_PREFLUSH;
			ubdm_bio_own(bio);
			bio_list_add(&again, bio);
		} else {
			bio_endio(bio);
		}
	}
	ubdm_redrive(dev, &again);
}

/**
 * ubdm_flush_failed - what was written may be lost
 * @dev: the device
 * @error: a sync's
 *
 * Context: process.
 */
void ubdm_flush_failed(struct ubdm_dev *dev, int error)
{
	if (READ_ONCE(dev->failed))
		return;
	pr_err("%s: a backing could not be synced (%d): writes and flushes fail until the device is deleted and added again\n",
	       dev->name, error);
	ubdm_genl_event(dev, UBDM_EV_BACKING_ERROR, error);
	ubdm_dev_fail(dev);
}

/**
 * ubdm_flush_check - may the mapper say that something is durable?
 * @dev: the device
 *
 * Not if a backing has lost writes, of which it may not know, nor if a flush of the
 * kernel's has failed: what that should have made durable is told to be so here, too.
 *
 * Context: process, dev->cmd_mutex held.
 * Return: 0 or -EIO; the device has failed then.
 */
int ubdm_flush_check(struct ubdm_dev *dev)
{
	int err = ubdm_backing_error(dev);

	/* A disk's failed flush leaves no other trace. */
	if (READ_ONCE(dev->failed))
		return -EIO;
	if (err)
		ubdm_flush_failed(dev, err);
	return err ? -EIO : 0;
}

/**
 * ubdm_flush_work - flush by the kernel alone
 * @work: the device's flush_work
 */
void ubdm_flush_work(struct work_struct *work)
{
	struct ubdm_dev *dev = container_of(work, struct ubdm_dev, flush_work);
	unsigned int i, end, noio;
	int ret = 0, err, idx;
	struct ubdm_backing *b;
	struct bio_list bios;

	spin_lock_irq(&dev->flush_lock);
	bios = dev->flush;
	bio_list_init(&dev->flush);
	spin_unlock_irq(&dev->flush_lock);
	if (bio_list_empty(&bios))
		return;

	/* Who reclaims memory may be waiting for this. */
	noio = memalloc_noio_save();
	/* The backings stay as long as we are inside. */
	idx = ubdm_io_enter(dev);
	/* One that is added from here on has nothing that these flushes are for. */
	end = READ_ONCE(dev->backing_end);
	for (i = 0; i < end; i++) {
		b = READ_ONCE(dev->backing[i]);
		if (!b)
			continue;
		err = ubdm_backing_sync(dev, b);
		if (err && !ret)
			ret = err;
	}
	ubdm_io_leave(dev, idx);
	memalloc_noio_restore(noio);
	if (ret)
		ubdm_flush_failed(dev, ret);
	if (READ_ONCE(dev->failed))
		ret = -EIO;
	ubdm_flush_answered(dev, &bios, ret);
}
