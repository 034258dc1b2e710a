/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * acct.h - the disk's statistics, counted for each hit.
 *
 * The block layer's bio_start_io_acct() and bdev_end_io_acct() look at each end
 * whether a jiffy has passed, for the time that the disk was busy.  Where none
 * has, which is nearly always the case for what deserves to be called a hit, all
 * that is left of them are these few counters; else they do it.
 */
#ifndef UBDM_ACCT_H
#define UBDM_ACCT_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/jiffies.h>
#include <linux/part_stat.h>

/* A whole disk, and somebody was here in this jiffy already: no busy time to add. */
static __always_inline bool ubdm_acct_simple(struct block_device *bdev, unsigned long now)
{
	return READ_ONCE(bdev->bd_stamp) == now && !bdev_is_partition(bdev);
}

/* As bio_start_io_acct(). */
static __always_inline unsigned long ubdm_acct_start(struct bio *bio)
{
	struct block_device *bdev = bio->bi_bdev;
	unsigned long now = READ_ONCE(jiffies);

	if (unlikely(!ubdm_acct_simple(bdev, now)))
		return bio_start_io_acct(bio);
	part_stat_lock();
	part_stat_local_inc(bdev, in_flight[op_is_write(bio_op(bio))]);
	part_stat_unlock();
	return now;
}

/* As bdev_end_io_acct(), for reads and writes. */
static __always_inline void ubdm_acct_end(struct block_device *bdev, enum req_op op,
					  unsigned int sectors, unsigned long start)
{
	const int group = op_is_write(op) ? STAT_WRITE : STAT_READ;
	unsigned long now = READ_ONCE(jiffies);

	if (unlikely(start != now || !ubdm_acct_simple(bdev, now))) {
		bdev_end_io_acct(bdev, op, sectors, start);
		return;
	}
	part_stat_lock();
	__part_stat_add(bdev, ios[group], 1);
	__part_stat_add(bdev, sectors[group], sectors);
	part_stat_local_dec(bdev, in_flight[op_is_write(op)]);
	part_stat_unlock();
}

/* Started, but it will be done another time. */
static inline void ubdm_acct_cancel(struct block_device *bdev, enum req_op op)
{
	part_stat_lock();
	part_stat_local_dec(bdev, in_flight[op_is_write(op)]);
	part_stat_unlock();
}

#endif /* UBDM_ACCT_H */
