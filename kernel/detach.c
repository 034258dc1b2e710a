// SPDX-License-Identifier: GPL-2.0-only
/*
 * detach.c - a device that needs no mapper, because all of it is mapped.
 */
#include "bio.h"
#include "chan.h"
#include "genl.h"

/* Is every sector mapped, for all that may be done to it, and durably? */
static bool is_complete(struct ubdm_dev *dev)
{
	u8 perm = UBDM_PERM_R | (dev->flags & UBDM_DEV_F_RO ? 0 : UBDM_PERM_W);
	u64 at = 0, lba = 0;

	while (lba != U64_MAX) {
		struct ubdm_extent ext[16];
		unsigned int i, n;

		n = ubdm_tlb_dump(&dev->tlb, &lba, false, ext, ARRAY_SIZE(ext));
		for (i = 0; i < n; i++) {
			if (ext[i].lba != at || (ext[i].perm & perm) != perm || ext[i].tid)
				return false;
			at += ext[i].len;
		}
		if (fatal_signal_pending(current))
			return false;
		cond_resched();
	}
	return at == dev->size;
}

/**
 * ubdm_dev_undetach - extents may be evicted again
 * @dev: the device, detached or not
 *
 * Context: process, cmd_mutex.
 */
void ubdm_dev_undetach(struct ubdm_dev *dev)
{
	lockdep_assert_held(&dev->cmd_mutex);
	ubdm_tlb_pin(&dev->tlb, false);
}

/**
 * ubdm_dev_detach - STOP(DETACH): go on without a mapper
 * @dev: the device
 * @chan: its channel
 *
 * Context: process.
 * Return: 0; -ENODATA: something is not mapped; -EBUSY: something is not
 * committed, or waits; -ESTALE, -ESHUTDOWN.
 */
int ubdm_dev_detach(struct ubdm_dev *dev, struct ubdm_chan *chan)
{
	bool was_pinned;
	int ret = 0;
	u64 tid;

	mutex_lock(&dev->cmd_mutex);
	/* By a DETACH before this one, which stays whatever becomes of us. */
	was_pinned = dev->tlb.pinned;
	ubdm_tlb_pin(&dev->tlb, true);
	if (!is_complete(dev))
		ret = -ENODATA;
	spin_lock_irq(&dev->ftab.lock);
	if (dev->chan != chan)
		ret = -ESTALE;
	else if (chan->stopped)
		ret = -ESHUTDOWN;
	/* A PLACE has recorded its change when it leaves the list: in this order. */
	else if (!ret && (dev->ftab.nr_parked || !list_empty(&dev->places) ||
			  ubdm_tlb_must_commit(&dev->tlb, &tid) ||
			  dev->state != UBDM_STATE_LIVE))
		ret = -EBUSY;
	if (!ret) {
		chan->stopped = true;
		ubdm_fetch_cancel_all(chan);
		dev->chan = NULL;
		dev->mapper_pid = 0;
		ubdm_backing_dirty_all(dev, true);
		ubdm_dev_set_state(dev, UBDM_STATE_DETACHED);
	}
	spin_unlock_irq(&dev->ftab.lock);
	if (ret && !was_pinned)
		ubdm_dev_undetach(dev);
	mutex_unlock(&dev->cmd_mutex);
	if (!ret) {
		ubdm_genl_event(dev, UBDM_EV_DETACHED, 0);
		ubdm_dev_watch(dev, HZ);
	}
	return ret;
}
