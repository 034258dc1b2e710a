// SPDX-License-Identifier: GPL-2.0-only
/*
 * xfer.c - pread and pwrite on the channel: the bytes of a parked request.
 *
 * For what cannot be mapped.  The position names the fault (UBDM_FAULT_POS);
 * cmd_mutex keeps it, and so its bios, parked during the copy.
 */
#include "chan.h"

#include <linux/highmem.h>
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
			return done ?: -EFAULT;
		bio_advance_iter(bio, &at, n);
	}
	return done;
}

/**
 * ubdm_xfer - move bytes between a parked request and the mapper
 * @ki: on the channel, its position as UBDM_FAULT_POS
 * @iter: the mapper's memory
 * @to_bio: fill a read; otherwise take the data of a write
 *
 * Context: process.
 * Return: bytes moved, -ENOENT, -EINVAL, -EFAULT, -ENOTCONN, -ESTALE.
 */
ssize_t ubdm_xfer(struct kiocb *ki, struct iov_iter *iter, bool to_bio)
{
	struct ubdm_chan *chan = ki->ki_filp->private_data;
	struct ubdm_dev *dev = READ_ONCE(chan->dev);
	u32 skip = lower_32_bits(ki->ki_pos);
	struct ubdm_faultp *f;
	struct bio *bio = NULL;
	ssize_t ret = 0;

	if (!dev)
		return -ENOTCONN;
	mutex_lock(&dev->cmd_mutex);
	spin_lock_irq(&dev->ftab.lock);
	if (dev->chan != chan) {
		ret = -ESTALE;
	} else {
		f = ubdm_ftab_find_pos(&dev->ftab, upper_32_bits(ki->ki_pos));
		bio = f ? ubdm_ftab_front(f) : NULL;
		if (!bio)
			ret = -ENOENT;
		else if (bio_op(bio) != (to_bio ? REQ_OP_READ : REQ_OP_WRITE) ||
			 skip >= bio->bi_iter.bi_size)
			ret = -EINVAL;
	}
	spin_unlock_irq(&dev->ftab.lock);
	if (!ret)
		ret = copy(bio, skip, iter, to_bio);
	mutex_unlock(&dev->cmd_mutex);
	return ret;
}
