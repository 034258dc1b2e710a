// SPDX-License-Identifier: GPL-2.0-only
/*
 * place.c - PLACE: write a parked request first, map its storage then.
 *
 * A whole-cluster write needs no copy of the old content, but its new storage
 * must not be visible before it holds the new content.  So the front request's
 * data is written to extents that are not installed; when all of it is there
 * they are, in one transaction, and only then the request ends.  On an error
 * nothing is installed and the old content stays.
 *
 * The fault stays in the table as PLACING, so nobody else gets at the range.  A
 * mapper that dies meanwhile changes nothing: the PLACE ends, and DUMP tells
 * of it until then.
 */
#include "bio.h"
#include "chan.h"
#include "flush.h"

#include <linux/sched/mm.h>
#include <linux/slab.h>

struct place {
	struct ubdm_dev *dev;
	struct ubdm_faultp *f;
	struct io_uring_cmd *cmd;	/* ftab.lock; NULL: cancelled */
	struct list_head link;		/* dev->places */
	struct work_struct work;
	struct bio *bio;		/* the front request */
	u64 sectors;			/* of it, to be placed */
	atomic_t pieces;
	blk_status_t status;
	unsigned int nr;
	struct ubdm_extent ext[];
};

/*
 * All of @bio that was placed is written and mapped.  What is left of it is cut off
 * first if it has FUA: it may meet storage whose metadata is durable, and would then
 * end without what was placed.  The two end as one.
 */
static void mapped(struct place *p, struct bio *bio, u64 tid, struct bio_list *again)
{
	struct ubdm_dev *dev = p->dev;
	struct bio *rest = NULL;

	ubdm_count(dev, UBDM_S_WRITE_HITS);
	ubdm_count_add(dev, UBDM_S_WRITE_SECTORS, p->sectors);
	if (p->sectors < bio_sectors(bio)) {
		rest = bio;
		bio = NULL;
		if (rest->bi_opf & REQ_FUA) {
			bio = bio_split(rest, p->sectors, GFP_NOIO, &dev->split_set);
			bio_chain(bio, rest);
		} else {
			bio_advance(rest, p->sectors << SECTOR_SHIFT);
		}
		bio_list_add_head(again, rest);
	}
	if (!bio)
		return;
	/* Its pieces have been counted as the disk's writes. */
	bio->bi_iter.bi_size = 0;
	if (ubdm_hit_needs_flush(dev, bio, tid))
		ubdm_flush_park(dev, bio, tid);
	else
		ubdm_bio_done(dev, bio, BLK_STS_OK);
}

static void ended(struct place *p)
{
	struct ubdm_dev *dev = p->dev;
	struct bio *bio = p->bio;
	struct bio_list bios;
	u64 tid = 0;
	bool more, installed = false;
	int ret = blk_status_to_errno(p->status);

	/* With FUA all of them are to be committed. */
	for (unsigned int i = 0; i < p->nr; i++)
		tid = max_t(u64, tid, p->ext[i].tid);

	if (!ret) {
		ret = ubdm_tlb_install(&dev->tlb, p->ext, p->nr);
		installed = ret >= 0;
	}

	bio_list_init(&bios);
	spin_lock_irq(&dev->ftab.lock);
	list_del(&p->link);
	if (p->cmd) {
		struct ubdm_wait *w = ubdm_wait_of(p->cmd);

		/* Its end waits for readers of what was superseded. */
		w->buf = (long)(installed ? 0 : ret);
		list_move_tail(&w->link, &dev->drain);
	}
	more = ubdm_ftab_end(&dev->ftab, p->f, installed, &bios);
	spin_unlock_irq(&dev->ftab.lock);
	queue_work(dev->sync_wq, &dev->drain_work);

	if (installed) {
		mapped(p, bio, tid, &bios);
	} else if (ret == -ENOSPC) {
		ubdm_dev_starve(dev, bio);
	} else if (ret == -ENOMEM) {
		/* Written but not recorded: nobody saw it, do it again. */
		bio_list_add_head(&bios, bio);
	} else {
		ubdm_bio_done(dev, bio, errno_to_blk_status(ret));
	}
	ubdm_redrive(dev, &bios);
	if (more)
		ubdm_fetch_kick(dev);
	kvfree(p);
}

static void end_work(struct work_struct *work)
{
	ended(container_of(work, struct place, work));
}

static void put_piece(struct place *p)
{
	if (!atomic_dec_and_test(&p->pieces))
		return;
	INIT_WORK(&p->work, end_work);
	queue_work(p->dev->unbound_wq, &p->work);
}

static void piece_end_io(struct bio *piece)
{
	struct place *p = piece->bi_private;

	if (piece->bi_status)
		WRITE_ONCE(p->status, piece->bi_status);
	bio_put(piece);
	put_piece(p);
}

/* One extent's share of the front request: each ends without our help. */
static void write_piece(struct place *p, const struct ubdm_extent *e)
{
	struct ubdm_dev *dev = p->dev;
	struct bio *piece;
	int idx;

	piece = bio_alloc_clone(p->bio->bi_bdev, p->bio, GFP_NOIO, &dev->place_set);
	bio_advance(piece, (e->lba - p->ext[0].lba) << SECTOR_SHIFT);
	piece->bi_iter.bi_size = e->len << SECTOR_SHIFT;
	/* FUA is decided when the whole is mapped (rule 19). */
	piece->bi_opf &= ~(REQ_FUA | REQ_PREFLUSH | REQ_NOWAIT);
	piece->bi_private = p;
	piece->bi_end_io = piece_end_io;
	atomic_inc(&p->pieces);
	idx = ubdm_io_enter(dev);
	ubdm_hit(dev, piece, READ_ONCE(dev->backing[e->backing]), e->off, 0, idx,
		 false);
}

static void start_work(struct work_struct *work)
{
	struct place *p = container_of(work, struct place, work);
	unsigned int noio = memalloc_noio_save();
	unsigned int i;

	for (i = 0; i < p->nr; i++)
		write_piece(p, &p->ext[i]);
	memalloc_noio_restore(noio);
	put_piece(p);
}

static int check(struct bio *front, const struct ubdm_extent *ext,
		 unsigned int nr, u64 *sectors)
{
	u64 at = front->bi_iter.bi_sector;
	unsigned int i;

	if (bio_op(front) != REQ_OP_WRITE)
		return -EINVAL;
	for (i = 0; i < nr; i++) {
		if (ext[i].type != UBDM_EXT_LINEAR || !ext[i].tid ||
		    !(ext[i].perm & UBDM_PERM_W) || ext[i].lba != at)
			return -EINVAL;
		at += ext[i].len;
	}
	if (at > bio_end_sector(front))
		return -EINVAL;
	*sectors = at - front->bi_iter.bi_sector;
	return 0;
}

/**
 * ubdm_place - begin a PLACE
 * @dev: the device
 * @cookie: of the fault
 * @cmd: the RESOLVE, ends when the PLACE has
 * @ext: checked extents; copied
 * @nr: how many
 * @issue_flags: as given
 *
 * Context: dev->cmd_mutex held.
 * Return: -EIOCBQUEUED, -EINVAL, -EEXIST (a tid is used already), -ENOENT,
 * -EIO (a sync has failed), -ENOMEM.
 */
int ubdm_place(struct ubdm_dev *dev, u64 cookie, struct io_uring_cmd *cmd,
	       const struct ubdm_extent *ext, unsigned int nr,
	       unsigned int issue_flags)
{
	struct ubdm_wait *w = ubdm_wait_of(cmd);
	struct ubdm_faultp *f;
	struct place *p;
	unsigned int i;
	int ret;

	if (READ_ONCE(dev->failed))
		return -EIO;
	p = kvzalloc(struct_size(p, ext, nr), GFP_KERNEL);
	if (!p)
		return -ENOMEM;
	p->dev = dev;
	p->cmd = cmd;
	p->nr = nr;
	memcpy(p->ext, ext, nr * sizeof(*ext));
	for (i = 0; i < nr; i++)
		p->ext[i].flags = UBDM_EXT_F_REPLACE | UBDM_EXT_F_TOUCHED;
	atomic_set(&p->pieces, 1);
	INIT_WORK(&p->work, start_work);
	w->fetch = false;
	w->state = UBDM_WS_WAITING;

	spin_lock_irq(&dev->ftab.lock);
	f = ubdm_ftab_find(&dev->ftab, cookie);
	ret = f ? check(ubdm_ftab_front(f), ext, nr, &p->sectors) : -ENOENT;
	if (!ret) {
		p->f = f;
		p->bio = ubdm_ftab_pop(&dev->ftab, f);
		ubdm_ftab_place(&dev->ftab, f, p);
		list_add_tail(&p->link, &dev->places);
		list_add_tail(&w->link, &dev->placing);
	}
	spin_unlock_irq(&dev->ftab.lock);
	if (ret) {
		kvfree(p);
		return ret;
	}
	queue_work(dev->unbound_wq, &p->work);
	io_uring_cmd_mark_cancelable(cmd, issue_flags);
	return -EIOCBQUEUED;
}

/**
 * ubdm_place_uses_backing - does a PLACE in flight write to a backing?
 * @dev: the device
 * @backing: index
 *
 * Context: process; no other PLACE begins while dev->cmd_mutex is held.
 */
bool ubdm_place_uses_backing(struct ubdm_dev *dev, u16 backing)
{
	struct place *p;
	bool used = false;
	unsigned int i;

	spin_lock_irq(&dev->ftab.lock);
	list_for_each_entry(p, &dev->places, link)
		for (i = 0; i < p->nr && !used; i++)
			used = p->ext[i].backing == backing;
	spin_unlock_irq(&dev->ftab.lock);
	return used;
}

/**
 * ubdm_place_forget - a PLACE's command was cancelled
 * @dev: the device
 * @cmd: the command
 *
 * Context: ftab.lock held.
 */
void ubdm_place_forget(struct ubdm_dev *dev, struct io_uring_cmd *cmd)
{
	struct place *p;

	list_for_each_entry(p, &dev->places, link)
		if (p->cmd == cmd)
			p->cmd = NULL;
}

/**
 * ubdm_place_dump - the extents of PLACEs in flight
 * @dev: the device
 * @ext: room
 * @nr: for how many
 *
 * Context: process.
 * Return: how many were written.
 */
unsigned int ubdm_place_dump(struct ubdm_dev *dev, struct ubdm_extent *ext,
			     unsigned int nr)
{
	unsigned int n = 0, i;
	struct place *p;

	spin_lock_irq(&dev->ftab.lock);
	list_for_each_entry(p, &dev->places, link)
		for (i = 0; i < p->nr && n < nr; i++, n++) {
			ext[n] = p->ext[i];
			ext[n].flags = UBDM_EXT_F_PLACING | UBDM_EXT_F_TOUCHED;
		}
	spin_unlock_irq(&dev->ftab.lock);
	return n;
}
