// SPDX-License-Identifier: GPL-2.0-only
/*
 * watch.c - what has to be looked after while requests wait.
 *
 * One work item for each device, which runs as long as there is reason to: faults
 * that the mapper holds; hits that found no space below, which try again; misses
 * without an answer; orphans whose time is up.  It also tells userspace what began
 * and what is over.
 */
#include "bio.h"
#include "chan.h"
#include "flush.h"
#include "genl.h"

#define STALL_LIMIT	(5 * HZ)	/* a miss should have an answer by then */
#define STARVE_RETRY	HZ
#define STARVE_OVER	(5 * HZ)	/* since the latest: there is space again */

/**
 * ubdm_dev_watch - look after held faults and orphans in a while
 * @dev: the device
 * @delay: jiffies
 *
 * Context: any.
 */
void ubdm_dev_watch(struct ubdm_dev *dev, unsigned long delay)
{
	/*
	 * Sooner, never later.  If it is pending and due, it has not begun, and
	 * will see what the caller did.
	 */
	if (delayed_work_pending(&dev->watch_work) &&
	    !time_before(jiffies + delay,
			 READ_ONCE(dev->watch_work.timer.expires)))
		return;
	if (!READ_ONCE(dev->removed))
		mod_delayed_work(dev->sync_wq, &dev->watch_work, delay);
}

/**
 * ubdm_dev_starve - a write found no space below
 * @dev: the device
 * @bio: as it came; looked up again until there is space, or space_timeout
 *
 * Context: any.
 */
void ubdm_dev_starve(struct ubdm_dev *dev, struct bio *bio)
{
	unsigned long flags;

	bio->bi_opf |= UBDM_BIO_STARVED;
	spin_lock_irqsave(&dev->redrive_lock, flags);
	bio_list_add(&dev->starved, bio);
	dev->starved_last = jiffies;
	if (!dev->starved_since)
		dev->starved_since = jiffies ?: 1;
	spin_unlock_irqrestore(&dev->redrive_lock, flags);
	ubdm_dev_watch(dev, STARVE_RETRY);
}

/**
 * ubdm_dev_fed - a write has ended that found no space before
 * @dev: the device
 * @bio: the write
 * @status: how
 *
 * If there was space for it, whoever waits still has all the time again: they try in
 * turn, and it is not said how long each of them has.
 *
 * Context: any.
 */
void ubdm_dev_fed(struct ubdm_dev *dev, struct bio *bio, blk_status_t status)
{
	unsigned long flags;

	bio->bi_opf &= ~UBDM_BIO_STARVED;
	if (status)
		return;
	spin_lock_irqsave(&dev->redrive_lock, flags);
	if (dev->starved_since)
		dev->starved_since = jiffies ?: 1;
	spin_unlock_irqrestore(&dev->redrive_lock, flags);
}

/**
 * ubdm_dev_backing_failed - I/O on a backing failed: say so
 * @dev: the device
 * @bio: what was to be done
 * @sector: in the backing, or U64_MAX: not known any more
 * @b: which backing
 * @error: -errno
 *
 * Context: any.
 */
void ubdm_dev_backing_failed(struct ubdm_dev *dev, struct bio *bio, u64 sector,
			     const struct ubdm_backing *b, int error)
{
	const char *what = op_is_write(bio_op(bio)) ? "write to" : "read from";

	if (error == -EAGAIN)
		return;
	if (sector == U64_MAX)
		pr_err_ratelimited("%s: a %s backing %u failed (%d)\n",
				   dev->name, what, b->index, error);
	else
		pr_err_ratelimited("%s: a %s backing %u at its sector %llu failed (%d)\n",
				   dev->name, what, b->index, sector, error);
	if (!xchg(&dev->backing_error, true))
		ubdm_dev_watch(dev, 1);
}

/**
 * ubdm_dev_trouble - what is wrong now
 * @dev: the device
 * @desc: out, with UBDM_TROUBLE_STALLED: the miss that has waited longest
 *
 * Context: process.
 * Return: UBDM_TROUBLE_*.
 */
u32 ubdm_dev_trouble(struct ubdm_dev *dev, struct ubdm_fault *desc)
{
	u32 trouble = 0;

	spin_lock_irq(&dev->ftab.lock);
	if (dev->chan && ubdm_ftab_stalled(&dev->ftab, jiffies, STALL_LIMIT, desc))
		trouble |= UBDM_TROUBLE_STALLED;
	if (ubdm_ftab_wants_space(&dev->ftab))
		trouble |= UBDM_TROUBLE_SPACE;
	spin_unlock_irq(&dev->ftab.lock);
	if (READ_ONCE(dev->starved_since))
		trouble |= UBDM_TROUBLE_SPACE;
	return trouble;
}

static void fail_all(struct ubdm_dev *dev, struct bio_list *bios)
{
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		bio->bi_opf &= ~UBDM_BIO_STARVED;
		ubdm_bio_done(dev, bio, BLK_STS_IOERR);
	}
}

/* Has it had no mapper for too long?  ftab.lock held. */
static bool is_overdue(const struct ubdm_dev *dev)
{
	/* Who has come in time has as long again to start. */
	unsigned long began = dev->chan ? dev->attached_at : dev->orphaned_at;

	return dev->orphan_timeout && dev->state == UBDM_STATE_ORPHANED &&
	       time_after(jiffies, began + dev->orphan_timeout * HZ);
}

/* Fail whoever waits for a mapper. */
static void kill_misses(struct ubdm_dev *dev, bool if_overdue)
{
	struct bio_list bios;

	bio_list_init(&bios);
	spin_lock_irq(&dev->ftab.lock);
	if (!if_overdue || is_overdue(dev))
		ubdm_ftab_kill(&dev->ftab, &bios);
	/* A FLUSH among them leaves what its mapper was to sync. */
	if (!bio_list_empty(&bios))
		ubdm_backing_dirty_all(dev, true);
	spin_unlock_irq(&dev->ftab.lock);
	fail_all(dev, &bios);
}

/**
 * ubdm_dev_kill_waiters - fail whoever waits for a mapper, or for space
 * @dev: the device
 *
 * Context: process.
 */
void ubdm_dev_kill_waiters(struct ubdm_dev *dev)
{
	struct bio_list bios;

	kill_misses(dev, false);
	spin_lock_irq(&dev->redrive_lock);
	bios = dev->starved;
	bio_list_init(&dev->starved);
	dev->starved_since = 0;
	spin_unlock_irq(&dev->redrive_lock);
	fail_all(dev, &bios);
}

/* Writes fail for want of space, reads among them are looked up again. */
static void no_space(struct ubdm_dev *dev, struct bio_list *bios)
{
	struct bio_list again;
	struct bio *bio;

	bio_list_init(&again);
	while ((bio = bio_list_pop(bios))) {
		if (bio_op(bio) == REQ_OP_READ) {
			bio_list_add(&again, bio);
			continue;
		}
		bio->bi_opf &= ~UBDM_BIO_STARVED;
		ubdm_bio_done(dev, bio, BLK_STS_NOSPC);
	}
	ubdm_redrive(dev, &again);
}

/* Hits that found no space try again, or have tried long enough. */
static void watch_starved(struct ubdm_dev *dev)
{
	unsigned long timeout = dev->space_timeout * HZ;
	bool expired = false;
	struct bio_list bios;

	spin_lock_irq(&dev->redrive_lock);
	bios = dev->starved;
	bio_list_init(&dev->starved);
	if (dev->starved_since) {
		expired = timeout && !bio_list_empty(&bios) &&
			  time_after(jiffies, dev->starved_since + timeout);
		if (expired || (bio_list_empty(&bios) &&
				time_after(jiffies, dev->starved_last + STARVE_OVER)))
			dev->starved_since = 0;
	}
	spin_unlock_irq(&dev->redrive_lock);
	if (expired)
		no_space(dev, &bios);
	else
		ubdm_redrive(dev, &bios);
}

static void watch_held(struct ubdm_dev *dev)
{
	unsigned long timeout = dev->space_timeout * HZ;
	struct bio_list flushes, bios;
	bool more;

	bio_list_init(&flushes);
	bio_list_init(&bios);
	spin_lock_irq(&dev->ftab.lock);
	if (timeout)
		ubdm_ftab_expire_space(&dev->ftab, jiffies, timeout, &flushes,
				       &bios);
	ubdm_ftab_unhold(&dev->ftab, jiffies, false);
	/* Those, and what waited behind others that were given up. */
	more = ubdm_ftab_pending(&dev->ftab);
	/* What the mapper was to sync for them may not be. */
	if (!bio_list_empty(&flushes))
		ubdm_backing_dirty_all(dev, true);
	spin_unlock_irq(&dev->ftab.lock);
	no_space(dev, &bios);
	if (!bio_list_empty(&flushes))
		ubdm_flush_answered(dev, &flushes, -ENOSPC);
	if (more)
		ubdm_fetch_kick(dev);
}

/* What came in when the device was being detached needs no mapper either. */
static void watch_detached(struct ubdm_dev *dev)
{
	struct bio_list bios, again;
	struct bio *bio;

	bio_list_init(&bios);
	bio_list_init(&again);
	spin_lock_irq(&dev->ftab.lock);
	if (dev->state == UBDM_STATE_DETACHED && !dev->chan)
		ubdm_ftab_kill(&dev->ftab, &bios);
	spin_unlock_irq(&dev->ftab.lock);
	while ((bio = bio_list_pop(&bios))) {
		if (bio->bi_opf & REQ_PREFLUSH) {
			/* All is committed, or it would not be detached. */
			ubdm_bio_disown(bio);
			ubdm_flush_bio(dev, bio);
		} else if (!bio_sectors(bio)) {
			/* A FUA write that has been done. */
			ubdm_bio_disown(bio);
			bio_endio(bio);
		} else {
			bio_list_add(&again, bio);
		}
	}
	ubdm_redrive(dev, &again);
}

static const char *kind_name(u8 kind)
{
	static const char *const names[] = {
		[UBDM_FAULT_READ] = "read",
		[UBDM_FAULT_WRITE] = "write",
		[UBDM_FAULT_DISCARD] = "discard",
		[UBDM_FAULT_ZEROES] = "zeroing",
		[UBDM_FAULT_FLUSH] = "flush",
	};

	return kind < ARRAY_SIZE(names) && names[kind] ? names[kind] : "request";
}

/* Tells of trouble that began or ended since the last time. */
static void watch_trouble(struct ubdm_dev *dev)
{
	struct ubdm_fault desc;
	u32 now = ubdm_dev_trouble(dev, &desc), new = now & ~dev->trouble;

	if (new & UBDM_TROUBLE_STALLED) {
		pr_warn("%s: a %s at sector %llu has waited for %u s; is the mapper (pid %u) stopped or its disk slow?\n",
			dev->name, kind_name(desc.kind), desc.want_lba,
			STALL_LIMIT / HZ, READ_ONCE(dev->mapper_pid));
		ubdm_genl_event_fault(dev, UBDM_EV_STALLED, 0, &desc,
				      jiffies_to_msecs(STALL_LIMIT));
	}
	if (new & UBDM_TROUBLE_SPACE) {
		pr_warn("%s: no space left below: writes wait until there is some%s\n",
			dev->name, dev->space_timeout ? ", for a while" : "");
		ubdm_genl_event(dev, UBDM_EV_SPACE, -ENOSPC);
	}
	if (dev->trouble & ~now)
		ubdm_genl_event(dev, UBDM_EV_RECOVERED, 0);
	dev->trouble = now;
	if (xchg(&dev->backing_error, false))
		ubdm_genl_event(dev, UBDM_EV_BACKING_ERROR, -EIO);
}

/**
 * ubdm_dev_watch_work - look after all of it, and say when next
 * @work: dev->watch_work
 */
void ubdm_dev_watch_work(struct work_struct *work)
{
	struct ubdm_dev *dev = container_of(to_delayed_work(work),
					    struct ubdm_dev, watch_work);
	bool held, orphaned, waits;
	unsigned long since;

	if (READ_ONCE(dev->dead)) {
		ubdm_dev_kill_waiters(dev);
		return;
	}
	watch_held(dev);
	watch_starved(dev);
	watch_detached(dev);
	watch_trouble(dev);
	spin_lock_irq(&dev->ftab.lock);
	waits = ubdm_ftab_oldest(&dev->ftab, &since);
	held = !list_empty(&dev->ftab.held);
	orphaned = dev->orphan_timeout && dev->state == UBDM_STATE_ORPHANED;
	spin_unlock_irq(&dev->ftab.lock);
	/* Hits that wait for space need no mapper. */
	if (orphaned)
		kill_misses(dev, true);
	if (held || orphaned)
		ubdm_dev_watch(dev, HZ / 10);
	else if (waits || dev->trouble || READ_ONCE(dev->starved_since))
		ubdm_dev_watch(dev, HZ / 2);
}
