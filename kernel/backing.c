// SPDX-License-Identifier: GPL-2.0-only
/*
 * backing.c - registering, handing out, syncing and releasing backings.
 */
#include "backing.h"
#include "bio.h"
#include "chan.h"
#include "flush.h"

#include <linux/file.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

/* Is @bdev a device of this driver, or a partition of one? */
static bool is_ours(struct block_device *bdev)
{
	return bdev && bdev->bd_disk->fops->submit_bio == ubdm_submit_bio;
}

/* Is @bdev this device or a partition of it? */
static bool is_own(struct ubdm_dev *dev, struct block_device *bdev)
{
	return dev->disk && bdev && bdev->bd_disk == dev->disk;
}

/* What direct I/O needs, in bytes; 0: not possible. */
static u32 dio_align(struct file *file)
{
	struct kstat stat;

	if (vfs_getattr(&file->f_path, &stat, STATX_DIOALIGN, AT_STATX_DONT_SYNC))
		return 0;
	/* A file system that does not tell may still do it, by its device. */
	if (!(stat.result_mask & STATX_DIOALIGN)) {
		struct block_device *bdev = file_inode(file)->i_sb->s_bdev;

		return bdev ? bdev_logical_block_size(bdev) : SECTOR_SIZE;
	}
	if (stat.dio_mem_align > SECTOR_SIZE)
		return 0;
	return stat.dio_offset_align;
}

/*
 * May it lie on @bdev?  Not on itself; and on another of ours only before it is a disk
 * that others could lie on, so that no two are each other's: a bio would go round
 * between them for ever.
 */
static bool is_loop(struct ubdm_dev *dev, struct block_device *bdev)
{
	if (is_own(dev, bdev))
		return true;
	return is_ours(bdev) && (dev->disk_added || (dev->chan && dev->chan->started));
}

static int check_file(struct ubdm_dev *dev, struct ubdm_backing *b)
{
	struct inode *inode = b->file->f_mapping->host;
	loff_t pos = 0;
	int ret;

	if (!(b->file->f_mode & FMODE_READ))
		return -EBADF;
	if (b->write && (!(b->file->f_mode & FMODE_WRITE) ||
			 (b->file->f_flags & O_APPEND)))
		return -EBADF;
	if (!b->file->f_op->read_iter || (b->write && !b->file->f_op->write_iter))
		return -EINVAL;
	/* read_iter and write_iter skip these hooks, so ask once, here. */
	ret = rw_verify_area(READ, b->file, &pos, 0);
	if (!ret && b->write)
		ret = rw_verify_area(WRITE, b->file, &pos, 0);
	if (ret < 0)
		return ret;

	if (S_ISBLK(inode->i_mode)) {
		struct block_device *bdev = I_BDEV(inode);

		if (is_loop(dev, bdev))
			return -ELOOP;
		if (bdev_is_zoned(bdev))
			return -EOPNOTSUPP;
		if (b->buffered)
			return 0;
		if (bdev_logical_block_size(bdev) > dev->block_size ||
		    bdev_dma_alignment(bdev) > SECTOR_SIZE - 1)
			return -EOPNOTSUPP;
		b->bdev = bdev;
		b->end = min_t(u64, b->end, bdev_nr_sectors(bdev));
		return b->start < b->end ? 0 : -EINVAL;
	}
	if (!S_ISREG(inode->i_mode))
		return -EINVAL;
	if (is_loop(dev, inode->i_sb->s_bdev))
		return -ELOOP;
	b->nowait = b->file->f_mode & FMODE_NOWAIT;
	/*
	 * A file system on a disk of ours reads its metadata from there, which may have to
	 * wait for a mapper: that is not to wait for itself.
	 */
	b->may_try = b->nowait && !b->buffered && !is_ours(inode->i_sb->s_bdev);
	if (!b->buffered) {
		u32 align = dio_align(b->file);

		if (!(b->file->f_mode & FMODE_CAN_ODIRECT) || !align ||
		    align > dev->block_size)
			return -EOPNOTSUPP;
		/* The length of each piece of memory must be a multiple, too. */
		b->mem_mask = align - 1;
	}
	return 0;
}

/**
 * ubdm_backing_is_stable - must pages that are being written to it not change?
 * @b: the backing
 *
 * What goes through a page cache is copied first.
 *
 * Context: any.
 */
bool ubdm_backing_is_stable(const struct ubdm_backing *b)
{
	if (!b->write || b->buffered)
		return false;
	return b->bdev ? bdev_stable_writes(b->bdev) :
			 mapping_stable_writes(b->file->f_mapping);
}

/*
 * Is there a disk, or about to be, that promises what this backing cannot keep: that
 * pages may change while they are written, that memory need not be aligned as much?
 */
static bool told_otherwise(struct ubdm_dev *dev, const struct ubdm_backing *b)
{
	bool stable = ubdm_backing_is_stable(b);

	if (dev->disk_added)
		return (stable && !bdev_stable_writes(dev->disk->part0)) ||
		       b->mem_mask & ~bdev_dma_alignment(dev->disk->part0);
	return (stable || b->mem_mask >= SECTOR_SIZE) && dev->chan && dev->chan->started;
}

/**
 * ubdm_backing_add - register a file or block device
 * @dev: the device
 * @arg: see struct ubdm_backing_add; the caller's files are current's
 *
 * Context: process, dev->cmd_mutex held.
 * Return: its index, -EBADF, -EINVAL, -EOPNOTSUPP, -ELOOP, -ENOSPC, -ENOMEM.
 */
int ubdm_backing_add(struct ubdm_dev *dev, const struct ubdm_backing_add *arg)
{
	struct ubdm_backing *b;
	int i, ret;

	if (arg->flags & ~(UBDM_BACKING_F_WRITE | UBDM_BACKING_F_BUFFERED))
		return -EINVAL;
	for (i = 0; i < UBDM_MAX_BACKINGS && dev->backing[i]; i++)
		;
	if (i == UBDM_MAX_BACKINGS)
		return -ENOSPC;
	b = kzalloc(sizeof(*b), GFP_KERNEL);
	if (!b)
		return -ENOMEM;
	mutex_init(&b->sync);
	b->instant_tried = jiffies;
	b->try_after = jiffies;
	b->write = arg->flags & UBDM_BACKING_F_WRITE;
	b->buffered = arg->flags & UBDM_BACKING_F_BUFFERED;
	b->index = i;
	b->start = arg->start;
	/* Sectors whose byte offset a loff_t can hold. */
	b->end = LLONG_MAX >> SECTOR_SHIFT;
	if (arg->len != U64_MAX && check_add_overflow(arg->start, arg->len, &b->end))
		goto einval;
	if (b->start >= b->end || b->end > LLONG_MAX >> SECTOR_SHIFT)
		goto einval;
	b->file = fget(arg->fd);
	if (!b->file) {
		kfree(b);
		return -EBADF;
	}
	ret = check_file(dev, b);
	if (ret < 0) {
		fput(b->file);
		kfree(b);
		return ret;
	}
	if (told_otherwise(dev, b)) {
		fput(b->file);
		kfree(b);
		return -EOPNOTSUPP;
	}
	b->wb_err = filemap_sample_wb_err(b->file->f_mapping);
	/* Extents that name it come after it: the tree's publish orders them. */
	WRITE_ONCE(dev->backing[i], b);
	WRITE_ONCE(dev->backing_end, max_t(unsigned int, dev->backing_end, i + 1));
	return i;
einval:
	kfree(b);
	return -EINVAL;
}

/**
 * ubdm_backing_get_fd - a descriptor of a registered file
 * @dev: the device
 * @index: which
 *
 * Context: process, dev->cmd_mutex held.
 * Return: the descriptor, -ENOENT, -EMFILE.
 */
int ubdm_backing_get_fd(struct ubdm_dev *dev, u32 index)
{
	int fd;

	if (index >= UBDM_MAX_BACKINGS || !dev->backing[index])
		return -ENOENT;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd >= 0)
		fd_install(fd, get_file(dev->backing[index]->file));
	return fd;
}

static void release(struct ubdm_backing *b)
{
	fput(b->file);
	kfree(b);
}

/* Who looks at the table under ftab.lock has seen it there for the last time. */
static void take_out(struct ubdm_dev *dev, u32 index)
{
	spin_lock_irq(&dev->ftab.lock);
	WRITE_ONCE(dev->backing[index], NULL);
	spin_unlock_irq(&dev->ftab.lock);
}

/**
 * ubdm_backing_del - give a backing up
 * @dev: the device
 * @index: which
 *
 * Context: process, dev->cmd_mutex held; waits for I/O on the device.
 * Return: 0, -ENOENT, -EBUSY, or what the last sync said.
 */
int ubdm_backing_del(struct ubdm_dev *dev, u32 index)
{
	struct ubdm_backing *b;
	int ret;

	if (index >= UBDM_MAX_BACKINGS || !dev->backing[index])
		return -ENOENT;
	b = dev->backing[index];
	/* In this order: what a PLACE has written is in the tree before it is off its list. */
	if (ubdm_place_uses_backing(dev, index) ||
	    ubdm_tlb_uses_backing(&dev->tlb, index))
		return -EBUSY;
	synchronize_srcu_expedited(&dev->srcu);
	ret = ubdm_backing_sync(dev, b);
	if (ret)
		ubdm_flush_failed(dev, ret);
	take_out(dev, index);
	/* A flush may be looking at it. */
	synchronize_srcu_expedited(&dev->srcu);
	release(b);
	return ret;
}

/**
 * ubdm_backing_release_all - at the device's end
 * @dev: nothing uses it any more
 *
 * Context: a kernel thread, may block.
 * Return: 0, or the first error of the last syncs.
 */
int ubdm_backing_release_all(struct ubdm_dev *dev)
{
	struct ubdm_backing *b;
	unsigned int i;
	int ret = 0, err;

	for (i = 0; i < dev->backing_end; i++) {
		b = dev->backing[i];
		if (!b)
			continue;
		err = ubdm_backing_sync(dev, b);
		ret = ret ?: err;
		take_out(dev, i);
		/* Whoever waits for the device's end may unmount what its files lay on. */
		__fput_sync(b->file);
		kfree(b);
	}
	return ret;
}

/*
 * Cleared before the sync: a write that completes from now on sets it again.  The
 * barrier orders this before the sync looks for work.
 *
 * What a FLUSH that the mapper has will make durable does not count as dirty, but
 * neither is it durable before that is answered.
 */
static bool needs_sync(struct ubdm_dev *dev, struct ubdm_backing *b)
{
	bool need;

	if (xchg(&b->dirty, false))
		return true;
	if (!b->write)
		return false;
	spin_lock_irq(&dev->ftab.lock);
	need = ubdm_ftab_flush_waits(&dev->ftab) || READ_ONCE(b->dirty);
	spin_unlock_irq(&dev->ftab.lock);
	return need;
}

static int lost_writes(struct ubdm_backing *b)
{
	return b->write ? filemap_check_wb_err(b->file->f_mapping, b->wb_err) : 0;
}

/**
 * ubdm_backing_sync - make durable what was written to a backing
 * @dev: the device
 * @b: the backing
 *
 * Only looks for errors if no write has completed since the last time.
 *
 * Context: process, may block.
 * Return: 0, the sync's error, or that of an earlier one, whoever was told.
 */
int ubdm_backing_sync(struct ubdm_dev *dev, struct ubdm_backing *b)
{
	int ret = 0;

	mutex_lock(&b->sync);
	if (needs_sync(dev, b)) {
		if (b->bdev)
			ret = blkdev_issue_flush(b->bdev);
		else
			ret = vfs_fsync_range(b->file, 0, LLONG_MAX, 1);
		if (ret)
			WRITE_ONCE(b->dirty, true);
	}
	mutex_unlock(&b->sync);
	return ret ?: lost_writes(b);
}

/**
 * ubdm_backing_error - has writing back to a backing failed?
 * @dev: the device
 *
 * The kernel tells each open file of it once, at a sync. A mapper that was told
 * shares its open files with its successor and can die before it tells us, so we
 * look for ourselves, without taking the error from anybody.
 *
 * Context: process; dev->cmd_mutex held or inside ubdm_io_enter().
 * Return: 0 or the error of any writable backing since it was registered.
 */
int ubdm_backing_error(struct ubdm_dev *dev)
{
	unsigned int i, end = READ_ONCE(dev->backing_end);
	int err = 0;

	for (i = 0; i < end && !err; i++) {
		struct ubdm_backing *b = READ_ONCE(dev->backing[i]);

		if (b)
			err = lost_writes(b);
	}
	return err;
}

/**
 * ubdm_backing_dirty_all - set or clear what the next flush has to do
 * @dev: the device
 * @dirty: what to set on every writable backing
 *
 * Context: any; the table does not change under us (ftab.lock or cmd_mutex).
 */
void ubdm_backing_dirty_all(struct ubdm_dev *dev, bool dirty)
{
	unsigned int i, end = READ_ONCE(dev->backing_end);

	for (i = 0; i < end; i++) {
		struct ubdm_backing *b = READ_ONCE(dev->backing[i]);

		if (b && b->write)
			WRITE_ONCE(b->dirty, dirty);
	}
}
