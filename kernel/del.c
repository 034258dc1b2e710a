// SPDX-License-Identifier: GPL-2.0-only
/*
 * del.c - the end of a device, and of its mapper.
 *
 * Deletion goes in phases, all in work of our own, for any of them may wait for
 * I/O: openers are refused (forced: everything parked fails, and what comes);
 * hits in flight drain; the mapper is asked to finish, and says so with
 * STOP(DONE); the disk goes; the backings are released; the last reference
 * frees the rest.
 */
#include "bio.h"
#include "chan.h"
#include "genl.h"

/* A forced deletion gives the mapper so long to finish. */
#define FORCE_GRACE		(30 * HZ)

/* Everything that is parked fails, and what comes. */
static void make_dead(struct ubdm_dev *dev)
{
	WRITE_ONCE(dev->dead, true);
	if (dev->disk_added)
		blk_mark_disk_dead(dev->disk);
	ubdm_dev_kill_waiters(dev);
}

static void set_dying(struct ubdm_dev *dev)
{
	spin_lock_irq(&dev->ftab.lock);
	ubdm_dev_set_state(dev, UBDM_STATE_DYING);
	spin_unlock_irq(&dev->ftab.lock);
}

/*
 * It is going to be removed: nothing takes that back.  Decided where it is known, not
 * where the removal begins, or between the two a START had a disk made of what nobody
 * removes any more.  ftab.lock held.
 */
static void set_going(struct ubdm_dev *dev)
{
	dev->going = true;
	ubdm_dev_set_state(dev, UBDM_STATE_DYING);
}

static void end_channel(struct ubdm_dev *dev)
{
	mutex_lock(&dev->cmd_mutex);
	spin_lock_irq(&dev->ftab.lock);
	if (dev->chan) {
		dev->chan->stopped = true;
		ubdm_fetch_cancel_all(dev->chan);
		dev->chan = NULL;
		/* What it was told to sync may not have been. */
		ubdm_backing_dirty_all(dev, true);
	}
	spin_unlock_irq(&dev->ftab.lock);
	mutex_unlock(&dev->cmd_mutex);
}

/*
 * No bio comes in any more.  In flight may still be: bios that wait for a flush
 * (they are re-driven), bios being re-driven (they park and fail, or hit), PLACEs
 * (they end and re-drive), hits (they hold SRCU), and hits that were tried by who
 * answered a miss (until they are with the worker they hold SRCU, too).  A PLACE is off
 * its list before it re-drives, so the list is looked at before the queue is waited for
 * where it ends.
 */
static void drain_all(struct ubdm_dev *dev)
{
	unsigned int redrives;
	bool idle;

	do {
		redrives = READ_ONCE(dev->redrives);
		idle = list_empty_careful(&dev->places);
		synchronize_srcu_expedited(&dev->srcu);
		flush_workqueue(dev->sync_wq);
		flush_workqueue(dev->unbound_wq);
		flush_workqueue(dev->write_wq);
		flush_workqueue(dev->wq);
		synchronize_srcu_expedited(&dev->srcu);
		/*
		 * A try may have begun behind the first of these and come back since; the
		 * worker may have sent it behind the second.
		 */
		if (READ_ONCE(dev->redrives) != redrives)
			idle = false;
		ubdm_dev_kill_waiters(dev);
	} while (!idle || !bio_list_empty(&dev->flush) ||
		 !bio_list_empty(&dev->redrive));
}

/**
 * ubdm_remove_work - the device goes, whatever is going on
 * @work: the device's remove_work
 */
void ubdm_remove_work(struct work_struct *work)
{
	struct ubdm_dev *dev = container_of(to_delayed_work(work),
					    struct ubdm_dev, remove_work);
	int err;

	if (!ubdm_dev_begin_remove(dev))
		goto put;
	spin_lock_irq(&dev->ftab.lock);
	set_going(dev);
	spin_unlock_irq(&dev->ftab.lock);
	/* No START queues it from here on. */
	flush_work(&dev->add_work);
	make_dead(dev);
	if (dev->disk_added) {
		cancel_work_sync(&dev->scan_work);
		del_gendisk(dev->disk);
	}
	end_channel(dev);
	ubdm_wait_fire_all(dev, &dev->starting, -ESHUTDOWN);
	drain_all(dev);
	WRITE_ONCE(dev->removed, true);
	cancel_delayed_work_sync(&dev->watch_work);
	flush_workqueue(dev->sync_wq);
	ubdm_dev_kill_waiters(dev);
	ubdm_wait_fire_all(dev, &dev->drain, -ESHUTDOWN);
	srcu_barrier(&dev->srcu);
	err = ubdm_backing_release_all(dev);
	if (err && !dev->close_error)
		dev->close_error = err;

	ubdm_genl_event(dev, UBDM_EV_DELETED, dev->close_error);
	ubdm_dev_forget(dev);
put:
	ubdm_dev_put(dev);	/* the work's */
}

static void queue_remove(struct ubdm_dev *dev)
{
	ubdm_dev_get(dev);
	if (mod_delayed_work(ubdm_ctl_wq, &dev->remove_work, 0))
		ubdm_dev_put(dev);	/* it was queued, with a reference */
}

/* Never put off: who asks again and again would not have it removed at all. */
static void queue_remove_later(struct ubdm_dev *dev)
{
	ubdm_dev_get(dev);
	if (!queue_delayed_work(ubdm_ctl_wq, &dev->remove_work, FORCE_GRACE))
		ubdm_dev_put(dev);
}

/* The deletion is off; false: it is too late for that.  ftab.lock held. */
static bool take_back(struct ubdm_dev *dev)
{
	if (dev->going)
		return false;
	/* Whoever comes next is not to finish. */
	dev->want_shutdown = false;
	if (dev->state == UBDM_STATE_DYING)
		ubdm_dev_set_state(dev, ubdm_dev_living_state(dev));
	return true;
}

/* After take_back(): openers come in again, unless it is being deleted once more. */
static void reopen(struct ubdm_dev *dev, int error)
{
	if (dev->disk_added) {
		mutex_lock(&dev->disk->open_mutex);
		if (READ_ONCE(dev->state) != UBDM_STATE_DYING) {
			dev->closing = false;
			/* The scan for partitions has given way, perhaps. */
			ubdm_dev_scan(dev);
		}
		mutex_unlock(&dev->disk->open_mutex);
	}
	ubdm_genl_event(dev, UBDM_EV_DELETED, error);
}

/* Somebody has it open, or it takes a mapper that is not there. */
static void undelete(struct ubdm_dev *dev, int error)
{
	bool off;

	spin_lock_irq(&dev->ftab.lock);
	off = take_back(dev);
	spin_unlock_irq(&dev->ftab.lock);
	if (off)
		reopen(dev, error);
}

/* False: it is getting one.  Without one it is DYING from here on, and no START comes. */
static bool has_or_gets_no_disk(struct ubdm_dev *dev)
{
	bool adding;

	spin_lock_irq(&dev->ftab.lock);
	adding = dev->adding;
	if (!adding && !dev->disk_added)
		ubdm_dev_set_state(dev, UBDM_STATE_DYING);
	spin_unlock_irq(&dev->ftab.lock);
	return !adding;
}

/**
 * ubdm_del_work - see that nobody uses it, and have its mapper finish
 * @work: the device's del_work
 */
void ubdm_del_work(struct work_struct *work)
{
	struct ubdm_dev *dev = container_of(work, struct ubdm_dev, del_work);
	bool force = READ_ONCE(dev->del_force);
	bool mapper, off, commits;
	u64 tid;

	if (force)
		make_dead(dev);
	/* Who opens what a START adds is seen below. */
	while (!has_or_gets_no_disk(dev))
		flush_work(&dev->add_work);
	if (force)
		make_dead(dev);
	if (dev->disk_added) {
		mutex_lock(&dev->disk->open_mutex);
		/* The scan for partitions may have had us wait: force since? */
		force = READ_ONCE(dev->del_force);
		if (!force && disk_openers(dev->disk)) {
			mutex_unlock(&dev->disk->open_mutex);
			undelete(dev, -EBUSY);
			goto put;
		}
		dev->closing = true;
		/* In here, for reopen(). */
		set_dying(dev);
		mutex_unlock(&dev->disk->open_mutex);
	}
	/* The mapper finishes an image that nobody writes to any more.  As in drain_all(). */
	synchronize_srcu_expedited(&dev->srcu);
	flush_workqueue(dev->wq);
	flush_workqueue(dev->unbound_wq);
	flush_workqueue(dev->write_wq);
	synchronize_srcu_expedited(&dev->srcu);

	spin_lock_irq(&dev->ftab.lock);
	/* The mapper may have gone meanwhile, and who saw that has called it off. */
	off = dev->state != UBDM_STATE_DYING;
	mapper = !off && dev->chan && dev->chan->started;
	dev->want_shutdown = mapper;
	commits = !force && ubdm_tlb_must_commit(&dev->tlb, &tid);
	if (!off && !mapper && !commits)
		set_going(dev);
	spin_unlock_irq(&dev->ftab.lock);
	if (off)
		goto put;
	if (mapper) {
		ubdm_fetch_kick(dev);
		if (force)
			queue_remove_later(dev);
	} else if (commits) {
		undelete(dev, -ENOTCONN);
	} else {
		queue_remove(dev);
	}
put:
	ubdm_dev_put(dev);
}

/**
 * ubdm_dev_delete - begin to delete a device
 * @dev: the device
 * @force: whoever has it open gets errors
 *
 * Context: process; waits for nothing.
 * Return: 0: begun, an event tells the end; -EBUSY.
 */
int ubdm_dev_delete(struct ubdm_dev *dev, bool force)
{
	if (!force && dev->disk_added && disk_openers(dev->disk))
		return -EBUSY;
	if (!force && READ_ONCE(dev->state) == UBDM_STATE_DYING)
		return -EALREADY;
	if (force) {
		WRITE_ONCE(dev->del_force, true);
		/*
		 * Not only by del_work: that may be under way without force, and
		 * wait for the partition scan, whose reads wait for the mapper.
		 */
		WRITE_ONCE(dev->dead, true);
		ubdm_dev_watch(dev, 0);
	}
	ubdm_dev_get(dev);
	if (!queue_work(ubdm_slow_wq, &dev->del_work))
		ubdm_dev_put(dev);
	return 0;
}

/**
 * ubdm_dev_chan_gone - a channel has ended
 * @dev: its device
 * @chan: the channel
 * @done: with STOP(DONE): the mapper has finished
 * @error: what it says of that
 *
 * Context: process, from STOP or the last close.
 */
void ubdm_dev_chan_gone(struct ubdm_dev *dev, struct ubdm_chan *chan, bool done,
			int error)
{
	bool ours, off = false;
	u32 state;

	mutex_lock(&dev->cmd_mutex);
	spin_lock_irq(&dev->ftab.lock);
	ours = dev->chan == chan && !chan->stopped;
	chan->stopped = true;
	ubdm_fetch_cancel_all(chan);
	if (ours) {
		dev->chan = NULL;
		dev->mapper_pid = 0;
		/* One that came and went without a START has changed nothing. */
		if (dev->state != UBDM_STATE_ORPHANED)
			dev->orphaned_at = jiffies;
		/* What it was told to sync may not have been. */
		ubdm_backing_dirty_all(dev, true);
	}
	state = dev->state;
	if (ours && (state == UBDM_STATE_LIVE || state == UBDM_STATE_FAILED))
		ubdm_dev_set_state(dev, UBDM_STATE_ORPHANED);
	/*
	 * With the channel, or a deletion that begins now would be called off, too.
	 * Without a disk there is nothing to go on with: it goes as a NEW one does.
	 */
	if (ours && state == UBDM_STATE_DYING && !done && dev->disk_added &&
	    !READ_ONCE(dev->del_force)) {
		off = take_back(dev);
		state = dev->state;
	}
	if (ours && (state == UBDM_STATE_NEW || state == UBDM_STATE_DYING))
		set_going(dev);
	spin_unlock_irq(&dev->ftab.lock);
	mutex_unlock(&dev->cmd_mutex);
	if (!ours)
		return;
	if (off)
		reopen(dev, -ENOTCONN);

	switch (state) {
	case UBDM_STATE_NEW:
		queue_remove(dev);
		break;
	case UBDM_STATE_DYING:
		if (done)
			dev->close_error = error;
		queue_remove(dev);
		break;
	case UBDM_STATE_DETACHED:
		break;		/* an attach that did not get to START */
	default:
		ubdm_genl_event(dev, UBDM_EV_ORPHANED, 0);
		if (dev->orphan_timeout)
			ubdm_dev_watch(dev, HZ);
	}
}
