/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * backing.h - a file or block device that extents may point to.
 *
 * The device's table owns one reference.  I/O takes none: it runs inside the
 * device's SRCU section, and a backing leaves the table only after a drain.
 */
#ifndef UBDM_BACKING_H
#define UBDM_BACKING_H

#include <linux/fs.h>
#include <linux/blkdev.h>

struct ubdm_dev;
struct ubdm_backing_add;

struct ubdm_backing {
	struct file *file;
	struct block_device *bdev;	/* bios are cloned to it; NULL: kiocbs */
	u64 start, end;			/* the window, in sectors */
	u16 index;
	bool write;
	bool buffered;
	bool nowait;			/* the file honours NOWAIT */
	u32 mem_mask;			/* a file's, direct: of addresses and lengths, bytes */
	bool may_try;			/* a file: the mapper may read it for a miss ... */
	unsigned long try_after;	/* ... but not before, in jiffies */
	bool dirty;			/* a write completed since the last sync */
	bool instant;			/* writes complete while they are started ... */
	unsigned long instant_tried;	/* ... or did not, in this jiffy */
	errseq_t wb_err;		/* what had failed when it was registered */
	struct mutex sync;		/* who finds it clean relies on a sync that has ended */
};

bool ubdm_backing_is_stable(const struct ubdm_backing *b);
int ubdm_backing_add(struct ubdm_dev *dev, const struct ubdm_backing_add *arg);
int ubdm_backing_get_fd(struct ubdm_dev *dev, u32 index);
int ubdm_backing_del(struct ubdm_dev *dev, u32 index);
int ubdm_backing_release_all(struct ubdm_dev *dev);
int ubdm_backing_sync(struct ubdm_dev *dev, struct ubdm_backing *b);
int ubdm_backing_error(struct ubdm_dev *dev);
void ubdm_backing_dirty_all(struct ubdm_dev *dev, bool dirty);

/* A write to @b has completed: the next flush has work to do. */
static inline void ubdm_backing_wrote(struct ubdm_backing *b)
{
	/* Test first: most writes find it set, and the line stays shared. */
	if (!READ_ONCE(b->dirty))
		WRITE_ONCE(b->dirty, true);
}

#endif /* UBDM_BACKING_H */
