// SPDX-License-Identifier: GPL-2.0-only
/*
 * bio.c - the way of a bio: look up, split, issue or park.
 *
 * A bio is cut at the end of the extent it starts in, the rest is submitted
 * again and the front issued: one allocation from each pool per submission, so
 * that two devices stacked on each other cannot starve.  A bio that misses is
 * not cut, it parks whole, and holds nothing while it waits.
 *
 * The SRCU section begins before the lookup and ends when the I/O does.  A
 * mapping that was found therefore stays usable until then: who removes one
 * and waits for a grace period knows that its storage is left alone.
 */
#include "bio.h"
#include "chan.h"
#include "flush.h"
#include "tlb_hit.h"

/**
 * ubdm_bio_done - end a bio that no backing has seen
 * @dev: the device
 * @bio: what is left of it
 * @status: how
 *
 * Context: any.
 */
void ubdm_bio_done(struct ubdm_dev *dev, struct bio *bio, blk_status_t status)
{
	unsigned int sectors = bio_sectors(bio);

	if (status)
		ubdm_count(dev, UBDM_S_ERRORS);
	if (sectors) {
		unsigned long start = bio_start_io_acct(bio);

		bdev_end_io_acct(bio->bi_bdev, bio_op(bio),
				 status ? 0 : sectors, start);
	}
	ubdm_bio_disown(bio);
	/* A front that was cut off may have failed: that stays. */
	if (status)
		bio->bi_status = status;
	bio_endio(bio);
}

static void park(struct ubdm_dev *dev, struct bio *bio, u8 kind)
{
	int ret;

	ubdm_count(dev, kind == UBDM_FAULT_READ ? UBDM_S_READ_MISSES :
						  UBDM_S_WRITE_MISSES);
	if (READ_ONCE(dev->dead)) {
		ubdm_bio_done(dev, bio, BLK_STS_IOERR);
		return;
	}
	ret = ubdm_ftab_park(&dev->ftab, bio, kind);
	if (ret < 0) {
		pr_err_ratelimited("%s: sector %llu: the mapper answers without progress\n",
				   dev->disk->disk_name,
				   (u64)bio->bi_iter.bi_sector);
		ubdm_bio_done(dev, bio, BLK_STS_IOERR);
		return;
	}
	if (ret)
		ubdm_fetch_kick(dev);
	/* Killed between the test above and parking: nobody would wake it. */
	if (unlikely(READ_ONCE(dev->dead)))
		queue_delayed_work(dev->sync_wq, &dev->watch_work, 0);
}

/*
 * Cut off the part of @bio that the extent covers.
 *
 * NOWAIT ends here: where one half would have to wait, -EAGAIN came with the other's
 * end, from an interrupt, and who had asked would take it for the disk's answer
 * (io_uring repeats only what fails in its own task).
 */
static struct bio *cut(struct ubdm_dev *dev, struct bio *bio, u64 sectors)
{
	struct bio *front;

	if (likely(sectors >= bio_sectors(bio)))
		return bio;
	bio->bi_opf &= ~REQ_NOWAIT;
	front = bio_split(bio, sectors, GFP_NOIO, &dev->split_set);
	bio_chain(front, bio);
	ubdm_bio_disown(bio);
	submit_bio_noacct(bio);
	return front;
}

static bool permitted(const struct ubdm_hit *hit, bool write)
{
	switch (hit->type) {
	case UBDM_EXT_LINEAR:
		return hit->perm & (write ? UBDM_PERM_W : UBDM_PERM_R);
	case UBDM_EXT_ZERO:
		return !write;
	case UBDM_EXT_ERROR:
		return true;
	default:
		return false;
	}
}

static void drive(struct ubdm_dev *dev, struct bio *bio, bool may_inline)
{
	u64 sector = bio->bi_iter.bi_sector;
	blk_opf_t starved = bio->bi_opf & UBDM_BIO_STARVED;
	struct ubdm_backing *b;
	struct ubdm_hit hit;
	bool write;
	int idx;

	bio->bi_opf &= ~UBDM_BIO_STARVED;
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		write = false;
		break;
	case REQ_OP_WRITE:
		if (unlikely(READ_ONCE(dev->failed))) {
			ubdm_bio_done(dev, bio, BLK_STS_IOERR);
			return;
		}
		write = true;
		break;
	case REQ_OP_DISCARD:
	case REQ_OP_WRITE_ZEROES:
		if (unlikely(READ_ONCE(dev->failed))) {
			ubdm_bio_done(dev, bio, BLK_STS_IOERR);
			return;
		}
		if (unlikely(READ_ONCE(dev->state) == UBDM_STATE_DETACHED)) {
			/* Forgetting is a favour; zeroing the caller can do. */
			ubdm_bio_done(dev, bio, bio_op(bio) == REQ_OP_DISCARD ?
					   BLK_STS_OK : BLK_STS_NOTSUPP);
			return;
		}
		park(dev, bio, bio_op(bio) == REQ_OP_DISCARD ?
			       UBDM_FAULT_DISCARD : UBDM_FAULT_ZEROES);
		return;
	default:
		ubdm_bio_done(dev, bio, BLK_STS_NOTSUPP);
		return;
	}

	idx = ubdm_io_enter(dev);
	rcu_read_lock();
	if (write)
		ubdm_tlb_lookup_write(&dev->tlb, sector, &hit);
	else
		ubdm_tlb_lookup(&dev->tlb, sector, &hit);
	rcu_read_unlock();

	if (!permitted(&hit, write)) {
		ubdm_io_leave(dev, idx);
		park(dev, bio, write ? UBDM_FAULT_WRITE : UBDM_FAULT_READ);
		return;
	}
	if (hit.len - (sector - hit.lba) < bio_sectors(bio))
		may_inline = false;
	bio = cut(dev, bio, hit.len - (sector - hit.lba));
	ubdm_bio_disown(bio);

	if (likely(hit.type == UBDM_EXT_LINEAR)) {
		ubdm_count_hit(dev, write, bio_sectors(bio));
		b = READ_ONCE(dev->backing[hit.backing]);
		/* A disk below is given the bio itself, and has a use of its own for it. */
		if (unlikely(starved) && !b->bdev)
			bio->bi_opf |= starved;
		ubdm_hit(dev, bio, b, hit.off + (sector - hit.lba), hit.tid,
			 idx, may_inline);
		return;
	}
	ubdm_io_leave(dev, idx);
	if (hit.type == UBDM_EXT_ZERO) {
		ubdm_count(dev, UBDM_S_ZERO_FILLS);
		ubdm_count_add(dev, UBDM_S_READ_SECTORS, bio_sectors(bio));
		zero_fill_bio(bio);
		ubdm_bio_done(dev, bio, BLK_STS_OK);
	} else {
		ubdm_bio_done(dev, bio, BLK_STS_IOERR);
	}
}

/*
 * A bio as it comes from above that is wholly in one extent with storage: most
 * of them, and what drive() would do, without what else it can do.  False:
 * nothing has been done.
 */
static __always_inline bool drive_fast(struct ubdm_dev *dev, struct bio *bio, bool write)
{
	struct ubdm_hit hit;
	bool found;
	int idx;

	idx = ubdm_io_enter(dev);
	/* Cheaper than rcu_read_lock(); nothing in there may want to sleep. */
	rcu_read_lock_sched();
	found = ubdm_tlb_translate(&dev->tlb, bio->bi_iter.bi_sector, bio_sectors(bio),
				   write, &hit);
	rcu_read_unlock_sched();
	if (unlikely(!found)) {
		ubdm_io_leave(dev, idx);
		return false;
	}
	ubdm_count_hit(dev, write, bio_sectors(bio));
	ubdm_hit(dev, bio, READ_ONCE(dev->backing[hit.backing]), hit.off, hit.tid,
		 idx, true);
	return true;
}

/**
 * ubdm_submit_bio - the disk's submit_bio
 * @bio: from above
 *
 * Context: process context of the submitter, inside the block layer's
 * submission loop.  Never waits for the mapper; for a tag of the disk below as who
 * submits there himself, but not for one that is NOWAIT and wholly in one extent.
 */
void ubdm_submit_bio(struct bio *bio)
{
	struct ubdm_dev *dev = bio->bi_bdev->bd_disk->private_data;
	blk_opf_t what = bio->bi_opf & (REQ_OP_MASK | REQ_PREFLUSH);

	if (likely(bio_sectors(bio))) {
		if (what == REQ_OP_READ && drive_fast(dev, bio, false))
			return;
		if (what == REQ_OP_WRITE && !READ_ONCE(dev->failed) &&
		    drive_fast(dev, bio, true))
			return;
	}
	if (unlikely(bio->bi_opf & REQ_PREFLUSH)) {
		ubdm_flush_bio(dev, bio);
		return;
	}
	if (unlikely(!bio_sectors(bio))) {
		bio_endio(bio);
		return;
	}
	ubdm_bio_own(bio);
	drive(dev, bio, true);
}

/**
 * ubdm_bio_drive - look a bio up again, with the tries it carries
 * @dev: the device
 * @bio: was parked, or had its PREFLUSH done
 *
 * Whoever submitted it was told long ago that it would take a while: nobody waits
 * for -EAGAIN any more.
 *
 * Context: a worker of the device, which may block.
 */
void ubdm_bio_drive(struct ubdm_dev *dev, struct bio *bio)
{
	bio->bi_opf &= ~REQ_NOWAIT;
	drive(dev, bio, false);
}

/**
 * ubdm_bio_try - a hit that keeps nobody waiting
 * @dev: the device
 * @bio: a read or write, whole; was parked
 *
 * Context: process, with no lock held that a file system or a disk could want;
 * allocates with memalloc_noio.
 * Return: false: nothing was done, let a worker do it.
 */
bool ubdm_bio_try(struct ubdm_dev *dev, struct bio *bio)
{
	bool write = bio_op(bio) == REQ_OP_WRITE, done;
	struct ubdm_backing *b;
	struct ubdm_hit hit;
	int idx;

	idx = ubdm_io_enter(dev);
	rcu_read_lock_sched();
	done = ubdm_tlb_translate(&dev->tlb, bio->bi_iter.bi_sector, bio_sectors(bio),
				  write, &hit);
	rcu_read_unlock_sched();
	if (done) {
		b = READ_ONCE(dev->backing[hit.backing]);
		done = b->bdev ? ubdm_try_bdev(dev, bio, b, hit.off, hit.tid, idx) :
				 ubdm_try_file(dev, bio, b, hit.off, hit.tid, idx);
	}
	if (!done)
		ubdm_io_leave(dev, idx);
	return done;
}

/**
 * ubdm_hit_needs_flush - has a completed write to be committed before it ends?
 * @dev: the device
 * @bio: a write that succeeded
 * @tid: of the extent it went to, 0 if clean
 *
 * Decided at completion: a COMMIT may have come in the meantime (rule 19).
 *
 * Context: any.
 */
bool ubdm_hit_needs_flush(struct ubdm_dev *dev, struct bio *bio, u64 tid)
{
	return (bio->bi_opf & REQ_FUA) && tid &&
	       tid > READ_ONCE(dev->tlb.committed_tid);
}
