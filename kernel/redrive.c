// SPDX-License-Identifier: GPL-2.0-only
/*
 * redrive.c - bios that wait no longer: they are looked up again.
 *
 * By a worker of the device, or by the task that has just answered for one.  The
 * worker may block, and costs two switches of a CPU, which is a third of what a miss
 * takes where misses come one at a time.  The task is the mapper's: whoever else
 * misses waits for it, and it is killed when somebody likes.  So it does what ends
 * without waiting, and leaves the rest to the worker:
 *
 *   not more than one bio
 *   what is a hit now, as a whole
 *   NOWAIT, where the backing means that; what would have blocked comes back
 *   of a file only reads, and none for a while after one that took long all the same
 *   not for another cgroup: who submits a file's I/O is charged for it, and who
 *	submits to a disk waits where that cgroup is held back (in its own the
 *	mapper may)
 */
#include "bio.h"

#include <linux/blk-cgroup.h>
#include <linux/cgroup.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

/**
 * ubdm_redrive - look bios up again, by the device's worker
 * @dev: the device
 * @bios: in the order in which they waited; empty afterwards
 *
 * Context: any.
 */
void ubdm_redrive(struct ubdm_dev *dev, struct bio_list *bios)
{
	unsigned long flags;

	if (bio_list_empty(bios))
		return;
	spin_lock_irqsave(&dev->redrive_lock, flags);
	bio_list_merge(&dev->redrive, bios);
	WRITE_ONCE(dev->redrives, dev->redrives + 1);
	spin_unlock_irqrestore(&dev->redrive_lock, flags);
	bio_list_init(bios);
	queue_work(dev->wq, &dev->redrive_work);
}

static bool is_charged_alike(struct bio *bio)
{
#ifdef CONFIG_BLK_CGROUP
	bool alike;

	rcu_read_lock();
	alike = bio_blkcg_css(bio) == task_css(current, io_cgrp_id);
	rcu_read_unlock();
	return alike;
#else
	return true;
#endif
}

static bool may_try(struct ubdm_dev *dev, struct bio *bio)
{
	if (bio_op(bio) != REQ_OP_READ &&
	    (bio_op(bio) != REQ_OP_WRITE || READ_ONCE(dev->failed)))
		return false;
	/* The rest of one that was cut: see hit_bdev.c. */
	if (bio_flagged(bio, BIO_CHAIN))
		return false;
	/* Who is being killed may be given an error that is not the disk's. */
	if ((current->flags & PF_EXITING) || fatal_signal_pending(current))
		return false;
	return is_charged_alike(bio);
}

/**
 * ubdm_redrive_here - look bios up again, in the task that has answered for them
 * @dev: the device
 * @bios: in the order in which they waited; empty afterwards
 *
 * Context: process, with no lock of ours but io_uring's; memalloc_noio.  Inside the
 * device's SRCU since the bios left the fault table: until they are hits, or with the
 * worker, nothing else tells who drains that they exist.
 */
void ubdm_redrive_here(struct ubdm_dev *dev, struct bio_list *bios)
{
	struct bio *bio = bios->head;

	if (bio && !bio->bi_next && may_try(dev, bio) && ubdm_bio_try(dev, bio))
		bio_list_init(bios);
	else
		ubdm_redrive(dev, bios);
}

/**
 * ubdm_redrive_work - the work behind ubdm_redrive()
 * @work: the device's redrive_work
 */
void ubdm_redrive_work(struct work_struct *work)
{
	struct ubdm_dev *dev = container_of(work, struct ubdm_dev, redrive_work);
	unsigned int noio = memalloc_noio_save();
	struct bio_list bios;
	struct bio *bio;

	spin_lock_irq(&dev->redrive_lock);
	bios = dev->redrive;
	bio_list_init(&dev->redrive);
	spin_unlock_irq(&dev->redrive_lock);

	while ((bio = bio_list_pop(&bios)))
		ubdm_bio_drive(dev, bio);
	memalloc_noio_restore(noio);
}
