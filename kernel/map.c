// SPDX-License-Identifier: GPL-2.0-only
/*
 * map.c - MAP, RESOLVE and DUMP: extents from and to the mapper.
 *
 * What a mapper sends is copied once and the copy is checked for all that does
 * not depend on the tree; the tree checks the rest (tlb.c).
 */
#include "bio.h"
#include "chan.h"
#include "flush.h"

#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

static bool linear_ok(struct ubdm_dev *dev, const struct ubdm_extent *e)
{
	struct ubdm_backing *b;
	u64 end;

	if (e->backing >= UBDM_MAX_BACKINGS)
		return false;
	b = dev->backing[e->backing];
	if (!b || check_add_overflow(e->off, e->len, &end))
		return false;
	if (e->off < b->start || end > b->end)
		return false;
	/* A direct access needs what the device's block needs. */
	if (!b->buffered && (e->off << SECTOR_SHIFT) & (dev->block_size - 1))
		return false;
	return b->write || !(e->perm & UBDM_PERM_W);
}

static bool extent_ok(struct ubdm_dev *dev, const struct ubdm_extent *e)
{
	u64 mask = (dev->block_size >> SECTOR_SHIFT) - 1;
	u64 end;

	if (!e->len || check_add_overflow(e->lba, e->len, &end) ||
	    end > dev->size || ((e->lba | e->len) & mask))
		return false;
	if (e->flags & ~UBDM_EXT_F_IN)
		return false;
	if ((e->flags & UBDM_EXT_F_IN) && !e->tid)
		return false;
	switch (e->type) {
	case UBDM_EXT_LINEAR:
		if (e->perm != UBDM_PERM_R &&
		    e->perm != (UBDM_PERM_R | UBDM_PERM_W))
			return false;
		return linear_ok(dev, e);
	case UBDM_EXT_JOURNAL:
		return !e->perm && e->tid && linear_ok(dev, e);
	case UBDM_EXT_ZERO:
		return e->perm == UBDM_PERM_R && !e->off && !e->backing;
	case UBDM_EXT_ERROR:
		return !e->perm && !e->off && !e->backing;
	default:
		return false;
	}
}

static int check(struct ubdm_dev *dev, const struct ubdm_extent *ext, u32 nr)
{
	u64 at = 0;
	u32 i;

	for (i = 0; i < nr; i++) {
		if (!extent_ok(dev, &ext[i]) || (i && ext[i].lba < at))
			return -EINVAL;
		at = ext[i].lba + ext[i].len;
	}
	return 0;
}

/**
 * ubdm_take_extents - copy what MAP and RESOLVE point to
 * @addr: user address of the extents
 * @nr: how many
 *
 * The memory may be a file's that somebody holds up, so no lock may be held.
 *
 * Context: process, sleeps as long as the mapper likes.
 * Return: them, to be kvfree()d; NULL: there are none, or more than may be;
 * -ENOMEM, -EFAULT.
 */
struct ubdm_extent *ubdm_take_extents(u64 addr, u32 nr)
{
	struct ubdm_extent *ext;

	if (!nr || nr > UBDM_MAX_EXTENTS)
		return NULL;
	ext = kvmalloc_array(nr, sizeof(*ext), GFP_KERNEL);
	if (!ext)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(ext, u64_to_user_ptr(addr), nr * sizeof(*ext))) {
		kvfree(ext);
		return ERR_PTR(-EFAULT);
	}
	return ext;
}

static int taken_ok(struct ubdm_dev *dev, const struct ubdm_extent *ext, u32 nr)
{
	if (!ext)
		return -EINVAL;
	return PTR_ERR_OR_ZERO(ext) ?: check(dev, ext, nr);
}

/*
 * Uncommitted extents cannot be evicted, so the tree can outgrow its bound.
 * Past the bound the mapper is asked to commit, past twice the bound nothing
 * more is taken until it has.
 */
static int install(struct ubdm_dev *dev, const struct ubdm_extent *ext, u32 nr)
{
	u64 have = READ_ONCE(dev->tlb.nr), max = dev->tlb.max;
	bool ask = false;
	int ret = -ENOMEM;

	if (have <= 2 * max)
		ret = ubdm_tlb_install(&dev->tlb, ext, nr);
	if (READ_ONCE(dev->tlb.nr) > max) {
		spin_lock_irq(&dev->ftab.lock);
		ask = !dev->want_commit;
		dev->want_commit = true;
		spin_unlock_irq(&dev->ftab.lock);
	}
	if (ask)
		ubdm_fetch_kick(dev);
	return ret;
}

/**
 * ubdm_map - MAP
 * @dev: the device
 * @ext: of ubdm_take_extents()
 * @nr: how many
 *
 * Context: dev->cmd_mutex held.
 * Return: 0, 1 if the caller must drain, -EINVAL, -EFAULT, -EEXIST, -ENOMEM.
 */
int ubdm_map(struct ubdm_dev *dev, const struct ubdm_extent *ext, u32 nr)
{
	return taken_ok(dev, ext, nr) ?: install(dev, ext, nr);
}

/* Parts of the front request are complete: end it or shorten it. */
static void front_done(struct ubdm_dev *dev, struct bio *bio, u64 sectors,
		       struct bio_list *again)
{
	if (bio_op(bio) == REQ_OP_WRITE) {
		/* As drive() would have it, were it looked up again. */
		if (READ_ONCE(dev->failed)) {
			ubdm_bio_done(dev, bio, BLK_STS_IOERR);
			return;
		}
		ubdm_count(dev, UBDM_S_WRITE_HITS);
		ubdm_count_add(dev, UBDM_S_WRITE_SECTORS,
			       min_t(u64, sectors, bio_sectors(bio)));
	}
	if (sectors >= bio_sectors(bio)) {
		ubdm_bio_done(dev, bio, BLK_STS_OK);
		return;
	}
	bio_advance(bio, sectors << SECTOR_SHIFT);
	bio_list_add_head(again, bio);
}

/* Ends the fault; drops ftab.lock, which the caller has taken. */
static void end_fault(struct ubdm_dev *dev, const struct ubdm_resolve *r,
		      struct ubdm_faultp *f, struct bio_list *again)
	__releases(&dev->ftab.lock)
{
	bool failed = r->action == UBDM_RESOLVE_ERROR;
	bool flush = f->kind == UBDM_FAULT_FLUSH;
	bool progress = r->action != UBDM_RESOLVE_REDRIVE;
	struct bio *front = NULL;
	struct bio_list bios;
	bool more;

	bio_list_init(&bios);
	if (!flush && progress)
		front = ubdm_ftab_pop(&dev->ftab, f);
	more = ubdm_ftab_end(&dev->ftab, f, progress, &bios);
	if (flush && failed)
		ubdm_backing_dirty_all(dev, true);
	spin_unlock_irq(&dev->ftab.lock);

	if (flush) {
		ubdm_flush_answered(dev, &bios, r->error ?: ubdm_flush_check(dev));
	} else {
		if (front && failed)
			ubdm_bio_done(dev, front, errno_to_blk_status(r->error));
		else if (front)
			front_done(dev, front, r->done, &bios);
		bio_list_merge(again, &bios);
	}
	if (more)
		ubdm_fetch_kick(dev);
}

static int resolve_ok(const struct ubdm_resolve *r)
{
	if (r->flags & ~(UBDM_RESOLVE_F_INLINE | UBDM_RESOLVE_F_FAIL_DEV |
			 UBDM_RESOLVE_F_SPACE) || r->pad)
		return -EINVAL;
	if ((r->flags & UBDM_RESOLVE_F_SPACE) && r->action != UBDM_RESOLVE_HOLD)
		return -EINVAL;
	if ((r->flags & UBDM_RESOLVE_F_INLINE) && r->nr_ext != 1)
		return -EINVAL;
	if (r->nr_ext > UBDM_MAX_EXTENTS)
		return -EINVAL;
	switch (r->action) {
	case UBDM_RESOLVE_REDRIVE:
		return r->error || r->done ? -EINVAL : 0;
	case UBDM_RESOLVE_DONE:
		return r->error ? -EINVAL : 0;
	case UBDM_RESOLVE_ERROR:
		return r->error >= 0 || r->error < -MAX_ERRNO || r->done ? -EINVAL : 0;
	case UBDM_RESOLVE_PLACE:
		return r->error || r->done || !r->nr_ext ? -EINVAL : 0;
	case UBDM_RESOLVE_HOLD:
		return r->error || r->nr_ext || r->done > 60000 ? -EINVAL : 0;
	default:
		return -EINVAL;
	}
}

/*
 * A read that is said to be done and was not filled shows what its pages had before,
 * which is not for everybody's eyes.  Who has CAP_SYS_ADMIN has other ways.
 */
static bool reveals(const struct ubdm_dev *dev, struct ubdm_faultp *f, u64 sectors)
{
	if (!(dev->flags & UBDM_DEV_F_UNPRIVILEGED) || f->kind != UBDM_FAULT_READ)
		return false;
	return min_t(u64, sectors, bio_sectors(ubdm_ftab_front(f))) << SECTOR_SHIFT >
	       f->filled;
}

/* May the fault be answered like this?  -ENOENT: it is not outstanding. */
static int answer_ok(struct ubdm_dev *dev, const struct ubdm_resolve *r)
{
	struct ubdm_faultp *f;
	int ret = 0;

	spin_lock_irq(&dev->ftab.lock);
	f = ubdm_ftab_find(&dev->ftab, r->cookie);
	if (!f)
		ret = -ENOENT;
	else if (f->kind == UBDM_FAULT_FLUSH)
		/* Only the mapper knows whether it has committed. */
		ret = r->action == UBDM_RESOLVE_DONE ||
		      r->action == UBDM_RESOLVE_ERROR ||
		      r->action == UBDM_RESOLVE_HOLD ? 0 : -EINVAL;
	else if (r->action == UBDM_RESOLVE_DONE)
		/* "Nothing is done" would be asked for ever. */
		ret = r->done && !(r->done & ((dev->block_size >> SECTOR_SHIFT) - 1)) &&
		      !reveals(dev, f, r->done) ? 0 : -EINVAL;
	spin_unlock_irq(&dev->ftab.lock);
	return ret;
}

/**
 * ubdm_resolve - RESOLVE
 * @dev: the device
 * @cmd: the command, for a PLACE that ends later
 * @r: the body
 * @ext: of ubdm_take_extents(), unless INLINE
 * @again: out: for ubdm_redrive_here(), once the mutex is dropped
 * @issue_flags: as given
 *
 * Context: dev->cmd_mutex held: nobody else answers.  Inside the device's SRCU
 * until @again is empty, so that who drains waits for what is in it.
 * Return: 0, 1 if the caller must drain, -EIOCBQUEUED (PLACE), -ENOENT, -EINVAL,
 * and as ubdm_map().
 */
int ubdm_resolve(struct ubdm_dev *dev, struct io_uring_cmd *cmd,
		 const struct ubdm_resolve *r, const struct ubdm_extent *ext,
		 struct bio_list *again, unsigned int issue_flags)
{
	struct ubdm_faultp *f;
	int ret, drain = 0;

	ret = resolve_ok(r);
	if (ret)
		return ret;
	ret = answer_ok(dev, r);
	if (ret)
		return ret;

	if (r->flags & UBDM_RESOLVE_F_INLINE)
		ext = &r->ext;
	else if (memchr_inv(&r->ext, 0, sizeof(r->ext)))
		return -EINVAL;
	if (r->nr_ext)
		ret = taken_ok(dev, ext, r->nr_ext);
	if (ret)
		return ret;

	if (r->action == UBDM_RESOLVE_PLACE)
		return ubdm_place(dev, r->cookie, cmd, ext, r->nr_ext, issue_flags);
	if (r->nr_ext) {
		drain = install(dev, ext, r->nr_ext);
		if (drain < 0)
			return drain;
	}
	if (r->flags & UBDM_RESOLVE_F_FAIL_DEV)
		ubdm_dev_fail(dev);

	spin_lock_irq(&dev->ftab.lock);
	f = ubdm_ftab_find(&dev->ftab, r->cookie);
	if (f && r->action != UBDM_RESOLVE_HOLD) {
		end_fault(dev, r, f, again);
		return drain;
	}
	if (f) {
		if (r->flags & UBDM_RESOLVE_F_SPACE)
			ubdm_ftab_want_space(&dev->ftab, f, jiffies, again);
		ubdm_ftab_hold(&dev->ftab, f, jiffies + msecs_to_jiffies(r->done));
	} else if (!r->nr_ext) {
		ret = -ENOENT;
	}
	/* else a forced delete took it, but the extents are in: that is success */
	spin_unlock_irq(&dev->ftab.lock);
	ubdm_dev_watch(dev, msecs_to_jiffies(r->done) + 1);
	return ret ?: drain;
}

/**
 * ubdm_dump - DUMP
 * @dev: the device
 * @d: the body
 * @out: what is to be copied to @d->addr, then kvfree()d
 *
 * Context: dev->cmd_mutex held.
 * Return: bytes of it, -EINVAL, -ENOMEM.
 */
int ubdm_dump(struct ubdm_dev *dev, const struct ubdm_dump *d, void **out)
{
	struct ubdm_dump_head *head;
	struct ubdm_extent *ext;
	u64 lba = d->lba;
	u32 i;

	static_assert(sizeof(*head) % __alignof__(*ext) == 0);
	if (!d->nr || d->nr > UBDM_MAX_EXTENTS ||
	    (d->flags & ~UBDM_DUMP_F_UNCOMMITTED))
		return -EINVAL;
	head = kvzalloc(sizeof(*head) + d->nr * sizeof(*ext), GFP_KERNEL);
	if (!head)
		return -ENOMEM;
	ext = (struct ubdm_extent *)(head + 1);
	if (!lba)
		head->nr = ubdm_place_dump(dev, ext, d->nr);
	if (head->nr < d->nr)
		head->nr += ubdm_tlb_dump(&dev->tlb, &lba,
					  d->flags & UBDM_DUMP_F_UNCOMMITTED,
					  ext + head->nr, d->nr - head->nr);
	head->next_lba = lba;
	head->max_tid = dev->tlb.max_tid;
	for (i = 0; i < head->nr; i++)
		head->max_tid = max(head->max_tid, ext[i].tid);
	head->committed_tid = dev->tlb.committed_tid;
	*out = head;
	return sizeof(*head) + head->nr * sizeof(*ext);
}
