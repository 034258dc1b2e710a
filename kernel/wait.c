// SPDX-License-Identifier: GPL-2.0-only
/*
 * wait.c - commands of a channel that wait in the kernel, and the drain.
 *
 * A waiting command sits on a list under ftab.lock.  Whoever takes it off
 * owns its end: either the event it waits for, which completes it in its own
 * task (io_uring_cmd_done() takes a mutex and must not be called from
 * wherever the event happened), or its cancellation, which comes with the
 * ring's lock held and completes it on the spot.
 *
 * The drain.  Commands that replaced or removed a translation end when no I/O
 * that used the old one is left.  All that wait at one time share one
 * expedited grace period of the device's SRCU.
 */
#include "chan.h"

static void finish_in_task(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	io_uring_cmd_done(cmd, (long)ubdm_wait_of(cmd)->buf, 0, issue_flags);
}

/**
 * ubdm_wait_add - let a command wait
 * @dev: the device
 * @cmd: from uring_cmd
 * @list: of @dev
 * @issue_flags: as given
 *
 * Context: uring_cmd issue; never from io-wq.
 * Return: -EIOCBQUEUED.
 */
int ubdm_wait_add(struct ubdm_dev *dev, struct io_uring_cmd *cmd,
		  struct list_head *list, unsigned int issue_flags)
{
	struct ubdm_wait *w = ubdm_wait_of(cmd);

	w->fetch = false;
	w->buf = 0;
	w->state = UBDM_WS_WAITING;
	spin_lock_irq(&dev->ftab.lock);
	list_add_tail(&w->link, list);
	spin_unlock_irq(&dev->ftab.lock);
	/*
	 * It may be fired already, but it ends in this very task, so not before
	 * we return; and a cancellation finds it only from here on.
	 */
	io_uring_cmd_mark_cancelable(cmd, issue_flags);
	return -EIOCBQUEUED;
}

/**
 * ubdm_wait_fire - a command's event has come
 * @w: on a list, WAITING
 * @res: its result
 *
 * Context: ftab.lock held, any context.
 */
void ubdm_wait_fire(struct ubdm_wait *w, long res)
{
	list_del_init(&w->link);
	w->state = UBDM_WS_FIRING;
	w->buf = res;
	io_uring_cmd_complete_in_task(ubdm_wait_cmd(w), finish_in_task);
}

/**
 * ubdm_wait_fire_all - end everything on a list
 * @dev: the device
 * @list: of it
 * @res: result for all
 *
 * Context: any; takes ftab.lock.
 */
void ubdm_wait_fire_all(struct ubdm_dev *dev, struct list_head *list, long res)
{
	unsigned long flags;

	spin_lock_irqsave(&dev->ftab.lock, flags);
	while (!list_empty(list))
		ubdm_wait_fire(list_first_entry(list, struct ubdm_wait, link),
			       res);
	spin_unlock_irqrestore(&dev->ftab.lock, flags);
}

/**
 * ubdm_wait_cancel - io_uring wants a command back
 * @dev: the device
 * @cmd: a FETCH or another that waits
 * @issue_flags: as given
 *
 * Context: the ring's lock is held.
 */
void ubdm_wait_cancel(struct ubdm_dev *dev, struct io_uring_cmd *cmd,
		      unsigned int issue_flags)
{
	struct ubdm_wait *w = ubdm_wait_of(cmd);
	bool ours = false;

	spin_lock_irq(&dev->ftab.lock);
	if (w->state == UBDM_WS_WAITING) {
		list_del_init(&w->link);
		w->state = UBDM_WS_CANCELLED;
		ubdm_place_forget(dev, cmd);
		ours = true;
	}
	spin_unlock_irq(&dev->ftab.lock);
	if (ours)
		io_uring_cmd_done(cmd, -ECANCELED, 0, issue_flags);
}

/**
 * ubdm_drain_work - wait for older I/O, then end the commands that wait for it
 * @work: the device's drain_work
 */
void ubdm_drain_work(struct work_struct *work)
{
	struct ubdm_dev *dev = container_of(work, struct ubdm_dev, drain_work);
	struct ubdm_wait *w, *next;

	spin_lock_irq(&dev->ftab.lock);
	list_splice_tail_init(&dev->drain, &dev->draining);
	spin_unlock_irq(&dev->ftab.lock);

	synchronize_srcu_expedited(&dev->srcu);

	/* Only this work adds to draining, so all in it were there before. */
	spin_lock_irq(&dev->ftab.lock);
	list_for_each_entry_safe(w, next, &dev->draining, link)
		ubdm_wait_fire(w, (long)w->buf);
	spin_unlock_irq(&dev->ftab.lock);
}
