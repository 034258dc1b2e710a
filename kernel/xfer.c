// SPDX-License-Identifier: GPL-2.0-only
/*
 * xfer.c - pread and pwrite on the channel: the bytes of a parked request.
 *
 * For what cannot be mapped.  The position names the fault (UBDM_FAULT_POS).  During
 * the copy cmd_mutex keeps it from being answered, and a pin from being killed.  So
 * the copy must not wait for the mapper's memory, which may be this device's or a
 * file's that somebody holds up: what is not there is brought in between, without
 * either, and the fault is looked up again.
 */
#include "chan.h"

#include <linux/highmem.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>

static ssize_t copy(struct bio *bio, u32 skip, struct iov_iter *iter, bool to_bio)
{
	struct bvec_iter at = bio->bi_iter;
	ssize_t done = 0;
	struct bio_vec bv;

	bio_advance_iter(bio, &at, skip);
	while (at.bi_size && iov_iter_count(iter)) {
		size_t n, got;

		bv = bio_iter_iovec(bio, at);
		n = min_t(size_t, bv.bv_len, iov_iter_count(iter));
		if (to_bio)
			got = copy_page_from_iter(bv.bv_page, bv.bv_offset, n, iter);
		else
			got = copy_page_to_iter(bv.bv_page, bv.bv_offset, n, iter);
		done += got;
		if (got < n)
			break;
		bio_advance_iter(bio, &at, n);
	}
	return done;
}

/* The front request that pos leads to, its fault pinned; or an error. */
static struct bio *pin(struct ubdm_dev *dev, struct ubdm_chan *chan, loff_t pos,
		       bool to_bio, struct ubdm_faultp **pinned)
{
	struct ubdm_faultp *f;
	struct bio *bio;

	lockdep_assert_held(&dev->ftab.lock);
	if (dev->chan != chan)
		return ERR_PTR(-ESTALE);
	f = ubdm_ftab_find_pos(&dev->ftab, upper_32_bits(pos));
	bio = f ? ubdm_ftab_front(f) : NULL;
	if (!bio)
		return ERR_PTR(-ENOENT);
	if (bio_op(bio) != (to_bio ? REQ_OP_READ : REQ_OP_WRITE) ||
	    lower_32_bits(pos) >= bio->bi_iter.bi_size)
		return ERR_PTR(-EINVAL);
	f->pinned = true;
	*pinned = f;
	return bio;
}

/* As far as the mapper's memory is there.  *more: there is more in the request. */
static ssize_t move(struct ubdm_dev *dev, struct ubdm_chan *chan, loff_t pos,
		    struct iov_iter *iter, bool to_bio, bool *more)
{
	struct ubdm_faultp *f;
	struct bio *bio;
	ssize_t n;

	mutex_lock(&dev->cmd_mutex);
	spin_lock_irq(&dev->ftab.lock);
	bio = pin(dev, chan, pos, to_bio, &f);
	spin_unlock_irq(&dev->ftab.lock);
	if (IS_ERR(bio)) {
		mutex_unlock(&dev->cmd_mutex);
		return PTR_ERR(bio);
	}
	pagefault_disable();
	n = copy(bio, lower_32_bits(pos), iter, to_bio);
	pagefault_enable();
	*more = lower_32_bits(pos) + n < bio->bi_iter.bi_size;
	spin_lock_irq(&dev->ftab.lock);
	f->pinned = false;
	if (to_bio && lower_32_bits(pos) <= f->filled)
		f->filled = max_t(u32, f->filled, lower_32_bits(pos) + n);
	spin_unlock_irq(&dev->ftab.lock);
	mutex_unlock(&dev->cmd_mutex);
	/* Pairs with ftab.lock in ubdm_ftab_kill(), which may have passed this one by. */
	if (READ_ONCE(dev->dead))
		ubdm_dev_kill_waiters(dev);
	return n;
}

/**
 * ubdm_xfer - move bytes between a parked request and the mapper
 * @ki: on the channel, its position as UBDM_FAULT_POS
 * @iter: the mapper's memory
 * @to_bio: fill a read; otherwise take the data of a write
 *
 * Context: process, sleeps as long as the mapper likes.
 * Return: bytes moved, -ENOENT, -EINVAL, -EFAULT, -ENOTCONN, -ESTALE,
 * -EINTR.
 */
ssize_t ubdm_xfer(struct kiocb *ki, struct iov_iter *iter, bool to_bio)
{
	struct ubdm_chan *chan = ki->ki_filp->private_data;
	struct ubdm_dev *dev = READ_ONCE(chan->dev);
	ssize_t n, done = 0;
	bool more = true;
	size_t left;

	if (!dev)
		return -ENOTCONN;
	for (;;) {
		n = move(dev, chan, ki->ki_pos + done, iter, to_bio, &more);
		if (n < 0)
			return done ?: n;
		done += n;
		left = iov_iter_count(iter);
		if (!left || !more)
			return done;
		if (fatal_signal_pending(current))
			return done ?: -EINTR;
		if (n)
			continue;
		/* At least the next byte, or the mapper has no such memory. */
		n = to_bio ? fault_in_iov_iter_readable(iter, left) :
			     fault_in_iov_iter_writeable(iter, left);
		if (n == left)
			return done ?: -EFAULT;
	}
}
