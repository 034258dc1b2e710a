// SPDX-License-Identifier: GPL-2.0-only
/*
 * fetch.c - telling the mapper of faults.
 *
 * FETCHes wait armed on their channel.  When a fault is queued one of them is
 * fired; in its own task it takes as many faults as fit its buffer, and copies
 * their descriptors there before it completes.  A fault becomes DELIVERED only
 * in that moment, so one whose FETCH is cancelled is still queued for the next.
 */
#include "chan.h"

#include <linux/uaccess.h>

/* Something to say that is not a fault: no answer wanted, cookie 0. */
static bool next_notice(struct ubdm_dev *dev, struct ubdm_fault *desc)
{
	memset(desc, 0, sizeof(*desc));
	if (dev->want_commit) {
		dev->want_commit = false;
		desc->kind = UBDM_FAULT_COMMIT;
		desc->tid = dev->tlb.max_tid;
		return true;
	}
	if (dev->want_shutdown) {
		dev->want_shutdown = false;
		desc->kind = UBDM_FAULT_SHUTDOWN;
		return true;
	}
	return false;
}

static bool pending(struct ubdm_dev *dev)
{
	return ubdm_ftab_pending(&dev->ftab) || dev->want_commit ||
	       dev->want_shutdown;
}

static void fetch_in_task(struct io_uring_cmd *cmd, unsigned int issue_flags);

/* ftab.lock held */
static void fire(struct ubdm_wait *w)
{
	list_del_init(&w->link);
	w->state = UBDM_WS_FIRING;
	io_uring_cmd_complete_in_task(ubdm_wait_cmd(w), fetch_in_task);
}

static void kick_locked(struct ubdm_dev *dev)
{
	struct ubdm_chan *chan = dev->chan;

	lockdep_assert_held(&dev->ftab.lock);
	if (chan && chan->started && !list_empty(&chan->fetches) && pending(dev))
		fire(list_first_entry(&chan->fetches, struct ubdm_wait, link));
}

/**
 * ubdm_fetch_kick - something is to be delivered
 * @dev: the device
 *
 * Context: any.
 */
void ubdm_fetch_kick(struct ubdm_dev *dev)
{
	unsigned long flags;
	bool waits;

	spin_lock_irqsave(&dev->ftab.lock, flags);
	waits = ubdm_ftab_pending(&dev->ftab);
	kick_locked(dev);
	spin_unlock_irqrestore(&dev->ftab.lock, flags);
	if (waits)
		ubdm_dev_watch(dev, HZ);
}

/* One descriptor.  False: there is none. */
static bool take(struct ubdm_dev *dev, struct ubdm_chan *chan,
		 struct ubdm_fault *desc, struct ubdm_faultp **f)
{
	bool got = false;

	spin_lock_irq(&dev->ftab.lock);
	*f = NULL;
	if (dev->chan == chan && chan->started && !chan->stopped) {
		*f = ubdm_ftab_next(&dev->ftab, desc);
		got = *f || next_notice(dev, desc);
		/*
		 * The mapper's sync will cover what was written so far; should
		 * it fail or die, everything counts as dirty again.
		 */
		if (*f && desc->kind == UBDM_FAULT_FLUSH)
			ubdm_backing_dirty_all(dev, false);
	}
	spin_unlock_irq(&dev->ftab.lock);
	return got;
}

static void give_back(struct ubdm_dev *dev, struct ubdm_chan *chan, struct ubdm_faultp *f,
		      const struct ubdm_fault *desc)
{
	spin_lock_irq(&dev->ftab.lock);
	if (!f)
		/* Else the deletion has been called off, and the next one goes on. */
		dev->want_shutdown |= desc->kind == UBDM_FAULT_SHUTDOWN &&
				      dev->chan == chan && dev->state == UBDM_STATE_DYING;
	else if (f == ubdm_ftab_find(&dev->ftab, desc->cookie))
		ubdm_ftab_undeliver(&dev->ftab, f);
	if (desc->kind == UBDM_FAULT_FLUSH)
		ubdm_backing_dirty_all(dev, true);
	spin_unlock_irq(&dev->ftab.lock);
}

static void fetch_in_task(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct ubdm_wait *w = ubdm_wait_of(cmd);
	struct ubdm_chan *chan = cmd->file->private_data;
	struct ubdm_fault __user *buf = u64_to_user_ptr(w->buf);
	struct ubdm_dev *dev = chan->dev;
	struct ubdm_faultp *f;
	struct ubdm_fault desc;
	bool end = false;
	int n = 0;

	if (issue_flags & IO_URING_F_TASK_DEAD) {
		io_uring_cmd_done(cmd, -ECANCELED, 0, issue_flags);
		ubdm_fetch_kick(dev);
		return;
	}
again:
	while (n < w->nr && take(dev, chan, &desc, &f)) {
		if (copy_to_user(&buf[n], &desc, sizeof(desc))) {
			give_back(dev, chan, f, &desc);
			n = n ?: -EFAULT;
			break;
		}
		ubdm_count(dev, UBDM_S_FAULTS);
		n++;
	}
	spin_lock_irq(&dev->ftab.lock);
	if (n == 0) {
		/* Another one took it.  Wait on, unless this is the end. */
		end = chan->stopped || dev->chan != chan;
		if (!end && !pending(dev)) {
			w->state = UBDM_WS_WAITING;
			list_add(&w->link, &chan->fetches);
			spin_unlock_irq(&dev->ftab.lock);
			return;
		}
	} else {
		kick_locked(dev);
	}
	spin_unlock_irq(&dev->ftab.lock);
	if (n == 0 && !end)
		goto again;
	io_uring_cmd_done(cmd, n ?: -ECANCELED, 0, issue_flags);
}

/**
 * ubdm_fetch - arm a FETCH
 * @dev: the device
 * @chan: the channel
 * @cmd: the command
 * @f: its body
 * @issue_flags: as given
 *
 * Context: uring_cmd issue.
 * Return: -EIOCBQUEUED, -EINVAL, -ESHUTDOWN, -ESTALE.
 */
int ubdm_fetch(struct ubdm_dev *dev, struct ubdm_chan *chan,
	       struct io_uring_cmd *cmd, const struct ubdm_fetch *f,
	       unsigned int issue_flags)
{
	struct ubdm_wait *w = ubdm_wait_of(cmd);
	int ret = 0;

	if (!f->nr || f->nr > UBDM_MAX_FETCH || f->queue || f->flags)
		return -EINVAL;
	w->fetch = true;
	w->buf = f->buf;
	w->nr = f->nr;
	w->state = UBDM_WS_WAITING;

	spin_lock_irq(&dev->ftab.lock);
	if (chan->stopped)
		ret = -ESHUTDOWN;
	else if (dev->chan != chan)
		ret = -ESTALE;
	else
		list_add_tail(&w->link, &chan->fetches);
	spin_unlock_irq(&dev->ftab.lock);
	if (ret)
		return ret;
	/* See ubdm_wait_add() for why this order is right. */
	io_uring_cmd_mark_cancelable(cmd, issue_flags);
	ubdm_fetch_kick(dev);
	return -EIOCBQUEUED;
}

/**
 * ubdm_fetch_cancel_all - end every armed FETCH of a channel
 * @chan: stopped, or no longer served
 *
 * Context: ftab.lock held.
 */
void ubdm_fetch_cancel_all(struct ubdm_chan *chan)
{
	struct ubdm_wait *w, *next;

	list_for_each_entry_safe(w, next, &chan->fetches, link)
		ubdm_wait_fire(w, -ECANCELED);
}
