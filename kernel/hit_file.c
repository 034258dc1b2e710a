// SPDX-License-Identifier: GPL-2.0-only
/*
 * hit_file.c - a hit on a file: an asynchronous kiocb over the bio's own pages.
 *
 * Who calls the file system?  Three ways, from cheap to safe:
 *
 *   inline	the submitter itself, NOWAIT, if nothing can go wrong: nobody is
 *		above us whose locks or stack we would be called under
 *		(may_issue_inline() lists the conditions); or, for what has missed, the
 *		task that answered (redrive.c)
 *   batch	this CPU's worker, NOWAIT, many at a time
 *   unbound	a work item of its own that may block; also whatever came back
 *		with -EAGAIN, at once or through ki_complete
 *
 * A kiocb has two references: the submitting function reads it after the file
 * system returned, and the completion may have run by then.
 */
#include "acct.h"
#include "bio.h"
#include "flush.h"
#include "plug.h"

#include <linux/backing-dev.h>
#include <linux/blk-cgroup.h>
#include <linux/cred.h>
#include <linux/kthread.h>
#include <linux/sched/clock.h>
#include <linux/sched/mm.h>
#include <linux/sched/task_stack.h>
#include <linux/uio.h>

#define INLINE_STACK_LEFT	8192

/* A try that took so many nanoseconds is the last for so many jiffies. */
#define TRY_TOO_LONG		(4 * NSEC_PER_MSEC)
#define TRY_PAUSE		(HZ / 10)

static void unbound_work(struct work_struct *work);

static __always_inline void finish(struct ubdm_io *io, bool write, blk_status_t status)
{
	struct ubdm_dev *dev = io->dev;
	struct bio *bio = io->bio;
	u64 tid = io->tid;

	ubdm_acct_end(bio->bi_bdev, write ? REQ_OP_WRITE : REQ_OP_READ, io->sectors,
		      io->start);
	if (write) {
		ubdm_backing_wrote(io->backing);
		if (unlikely(bio->bi_opf & UBDM_BIO_STARVED))
			ubdm_dev_fed(dev, bio, status);
	}
	ubdm_io_leave(dev, io->srcu_idx);
	ubdm_io_free(dev, io);

	if (unlikely(status)) {
		ubdm_count_failed(dev, bio);
		bio->bi_status = status;
	} else if (write && unlikely(ubdm_hit_needs_flush(dev, bio, tid))) {
		ubdm_flush_park(dev, bio, tid);
		return;
	}
	bio_endio(bio);
}

/* Leave it to a worker that may block. */
static noinline void issue_blocking(struct ubdm_io *io)
{
	INIT_WORK(&io->work, unbound_work);
	queue_work(op_is_write(bio_op(io->bio)) ? io->dev->write_wq : io->dev->unbound_wq,
		   &io->work);
}

/* A write that found no space waits for some, rule 29. */
static void starve(struct ubdm_io *io)
{
	struct ubdm_dev *dev = io->dev;
	struct bio *bio = io->bio;
	int idx = io->srcu_idx;

	ubdm_acct_cancel(bio->bi_bdev, bio_op(bio));
	ubdm_backing_wrote(io->backing);
	/* Who removes the device waits for us, then looks for what starves. */
	ubdm_dev_starve(dev, bio);
	ubdm_io_free(dev, io);
	ubdm_io_leave(dev, idx);
}

static noinline void failed(struct ubdm_io *io, int error)
{
	bool full = error == -ENOSPC || error == -EDQUOT;
	struct bio *bio = io->bio;

	/* A piece of a PLACE is its PLACE's to repeat. */
	if (full && op_is_write(bio_op(bio)) && bio->bi_pool != &io->dev->place_set) {
		starve(io);
		return;
	}
	if (!full)
		ubdm_dev_backing_failed(io->dev, bio, io->pos >> SECTOR_SHIFT,
					io->backing, error);
	/* The block layer has no status for EDQUOT. */
	finish(io, op_is_write(bio_op(bio)), errno_to_blk_status(full ? -ENOSPC : error));
}

/* Not all of it was read or written. */
static noinline void fell_short(struct ubdm_io *io)
{
	if (io->nowait && (io->ret == -EAGAIN || io->ret == -EOPNOTSUPP ||
			   io->ret == -EINTR || io->ret == -ERESTARTSYS ||
			   io->ret == -ENOMEM)) {
		/*
		 * It would have blocked, or cannot tell (ext4's page cache), or the
		 * task is being killed that has tried it for somebody else, which is
		 * given no memory either.
		 */
		issue_blocking(io);
		return;
	}
	if (io->ret > 0) {
		io->done += io->ret;
		issue_blocking(io);
		return;
	}
	/* Without an error the file ends where the extent does not: not our data. */
	failed(io, io->ret ?: -EIO);
}

/* Both references are gone: the file system is through with it. */
static __always_inline void ended(struct ubdm_io *io, bool write)
{
	if (write && io->write_started) {
		io->write_started = false;
		kiocb_end_write(&io->ki);
	}
	if (likely(io->done + io->ret == io->sectors << SECTOR_SHIFT))
		finish(io, write, BLK_STS_OK);
	else
		fell_short(io);
}

/* For whom the few instructions do not count. */
static noinline void write_ended(struct ubdm_io *io)
{
	ended(io, true);
}

/*
 * A file system has something to do after a direct write, in a task.  By itself
 * it would queue a work item for each; who offers to do it (CALLER_COMP) is given
 * a function instead, and we do many at a time.  Only for overwrites: what
 * changes metadata is never handed out, so nothing here waits for a journal.
 */
#ifdef IOCB_DIO_CALLER_COMP
/* One place for both, and ki_waitq is only for buffered I/O. */
static_assert(offsetof(struct kiocb, dio_complete) == offsetof(struct kiocb, ki_waitq));
#define CALLER_COMP	IOCB_DIO_CALLER_COMP

static bool wants_task(struct kiocb *ki)
{
	return ki->dio_complete;
}

static void complete_in_task(struct kiocb *ki)
{
	struct ubdm_io *io = container_of(ki, struct ubdm_io, ki);

	if (ki->dio_complete)
		io->ret = ki->dio_complete(ki->private);
}
#else
#define CALLER_COMP	0

static bool wants_task(struct kiocb *ki)
{
	return false;
}

static void complete_in_task(struct kiocb *ki)
{
}
#endif

static void complete_by_worker(struct ubdm_io *io)
{
	struct ubdm_dev *dev = io->dev;
	struct ubdm_cpuq *q = get_cpu_ptr(dev->cpuq);

	if (llist_add(&io->node, &q->written))
		queue_work_on(smp_processor_id(), dev->wq, &q->work);
	put_cpu_ptr(dev->cpuq);
}

static void read_complete(struct kiocb *ki, long ret)
{
	struct ubdm_io *io = container_of(ki, struct ubdm_io, ki);

	io->ret = ret;
	if (atomic_dec_and_test(&io->ref))
		ended(io, false);
}

static void write_complete(struct kiocb *ki, long ret)
{
	struct ubdm_io *io = container_of(ki, struct ubdm_io, ki);

	io->ret = ret;
	if (!atomic_dec_and_test(&io->ref))
		return;
	if (wants_task(ki))
		complete_by_worker(io);
	else
		write_ended(io);
}

static noinline unsigned int count_bvecs(struct bio *bio)
{
	struct bvec_iter iter;
	unsigned int n = 0;
	struct bio_vec bv;

	bio_for_each_bvec(bv, bio, iter)
		n++;
	return n;
}

/*
 * Take part in the writes that freezing the file system waits for.  Who must not
 * block does not wait for a thaw: a submitter would hold up more than its own
 * write, and the batch worker the very completions that freezing waits for.
 */
static bool start_write(struct ubdm_io *io, bool nowait)
{
	struct inode *inode = file_inode(io->backing->file);

	if (io->write_started)
		return true;
	if (!nowait) {
		kiocb_start_write(&io->ki);
	} else if (S_ISREG(inode->i_mode)) {
		if (!sb_start_write_trylock(inode->i_sb))
			return false;
		/* As kiocb_start_write(): its release is not ours. */
		__sb_writers_release(inode->i_sb, SB_FREEZE_WRITE);
	}
	io->write_started = true;
	return true;
}

/*
 * Somebody further out has a plug, and what the file system has sent starts, and
 * ends, only when that is finished.  A write that ends before we are back spares the
 * worker; where the disk completes at once that is worth to start each by itself,
 * elsewhere it costs.  Which holds here is tried once in a jiffy.
 */
static noinline void start_now(struct ubdm_io *io, struct blk_plug *plug)
{
	struct ubdm_backing *b = io->backing;
	bool instant;

	if (plug->nr_ios != 1)
		return;
	if (!READ_ONCE(b->instant)) {
		if (!time_after(jiffies, READ_ONCE(b->instant_tried)))
			return;
		WRITE_ONCE(b->instant_tried, jiffies);
	}
	blk_finish_plug(plug);
	current->plug = plug;
	instant = atomic_read(&io->ref) == 1;
	if (READ_ONCE(b->instant) != instant)
		WRITE_ONCE(b->instant, instant);
}

/*
 * One try.  The caller has set the credentials and the allocation scope.  alone:
 * nothing is gained by starting it together with others.
 */
static __always_inline void issue(struct ubdm_io *io, bool write, bool nowait, bool alone)
{
	struct bio *bio = io->bio;
	struct ubdm_backing *b = io->backing;
	struct kiocb *ki = &io->ki;
	const struct bio_vec *first;
	struct iov_iter iter;
	ssize_t ret;

	first = __bvec_iter_bvec(bio->bi_io_vec, bio->bi_iter);
	/* As iov_iter_bvec(), whose caller stores most of it twice. */
	iter = (struct iov_iter) {
		.iter_type = ITER_BVEC,
		.data_source = write ? ITER_SOURCE : ITER_DEST,
		.bvec = first,
		.nr_segs = 1,
		.iov_offset = bio->bi_iter.bi_bvec_done,
		.count = bio->bi_iter.bi_size,
	};
	if (unlikely(bio->bi_iter.bi_size > first->bv_len - bio->bi_iter.bi_bvec_done))
		iter.nr_segs = count_bvecs(bio);
	/* iov_offset does not count in .count, what is done already does. */
	if (unlikely(io->done))
		iov_iter_advance(&iter, io->done);

	io->nowait = nowait;
	/* Nobody else knows of it yet. */
	atomic_set(&io->ref, 2);
	/* Field by field: gcc would clear it with an instruction for each word. */
	ki->ki_filp = b->file;
	ki->ki_pos = io->pos + io->done;
	ki->ki_complete = write ? write_complete : read_complete;
	ki->private = NULL;
	ki->ki_ioprio = bio->bi_ioprio;
	ki->ki_flags = (b->buffered ? 0 : IOCB_DIRECT) | (nowait ? IOCB_NOWAIT : 0);
	ki->ki_waitq = NULL;
	if (write) {
		if (bio->bi_opf & REQ_FUA)
			ki->ki_flags |= IOCB_DSYNC;
		if (unlikely(!start_write(io, nowait))) {
			issue_blocking(io);
			return;
		}
		ki->ki_flags |= IOCB_WRITE | CALLER_COMP;
		ret = b->file->f_op->write_iter(ki, &iter);
		if (alone && ret == -EIOCBQUEUED && current->plug)
			start_now(io, current->plug);
	} else {
		ret = b->file->f_op->read_iter(ki, &iter);
	}
	if (ret != -EIOCBQUEUED) {
		io->ret = ret;
	} else {
		if (!atomic_dec_and_test(&io->ref))
			return;
		if (write)
			complete_in_task(ki);
	}
	ended(io, write);
}

static noinline void issue_by_worker(struct ubdm_io *io, bool nowait)
{
	if (op_is_write(bio_op(io->bio)))
		issue(io, true, nowait, false);
	else
		issue(io, false, nowait, false);
}

struct io_scope {
	bool on;
	struct cgroup_subsys_state *css;
	const struct cred *cred, *old_cred;
	unsigned int noio;
	unsigned int throttle;
};

/*
 * Backing I/O must neither enter reclaim through the device nor be throttled
 * behind the dirty pages it is cleaning.  It runs with the credentials the
 * file was opened with, and is charged to the cgroup that caused it.
 */
static void scope_enter(struct io_scope *s, struct ubdm_io *io)
{
	s->on = true;
	s->cred = io->backing->file->f_cred;
	s->css = bio_blkcg_css(io->bio);
	s->throttle = current->flags & PF_LOCAL_THROTTLE;
	current->flags |= PF_LOCAL_THROTTLE;
	s->noio = memalloc_noio_save();
	s->old_cred = override_creds(s->cred);
	kthread_associate_blkcg(s->css);
}

static void scope_leave(struct io_scope *s)
{
	kthread_associate_blkcg(NULL);
	revert_creds(s->old_cred);
	memalloc_noio_restore(s->noio);
	if (!s->throttle)
		current->flags &= ~PF_LOCAL_THROTTLE;
	s->on = false;
}

/* Both pointers are held by the scope, so equal means the same. */
static bool scope_fits(const struct io_scope *s, struct ubdm_io *io)
{
	return s->cred == io->backing->file->f_cred &&
	       s->css == bio_blkcg_css(io->bio);
}

static void unbound_work(struct work_struct *work)
{
	struct ubdm_io *io = container_of(work, struct ubdm_io, work);
	struct io_scope scope;

	scope_enter(&scope, io);
	issue_by_worker(io, false);
	scope_leave(&scope);
}

static void complete_written(struct ubdm_cpuq *q)
{
	struct llist_node *list = llist_reverse_order(llist_del_all(&q->written));
	struct ubdm_io *io, *next;
	unsigned int noio;

	noio = memalloc_noio_save();
	llist_for_each_entry_safe(io, next, list, node) {
		complete_in_task(&io->ki);
		write_ended(io);
	}
	memalloc_noio_restore(noio);
}

/**
 * ubdm_hit_file_batch - issue and complete what was queued on this CPU
 * @work: of a struct ubdm_cpuq
 */
void ubdm_hit_file_batch(struct work_struct *work)
{
	struct ubdm_cpuq *q = container_of(work, struct ubdm_cpuq, work);
	struct llist_node *list;
	struct io_scope scope = {};
	struct ubdm_io *io, *next;
	struct blk_plug plug;

	complete_written(q);
	list = llist_reverse_order(llist_del_all(&q->list));
	if (!list)
		return;
	blk_start_plug(&plug);
	llist_for_each_entry_safe(io, next, list, node) {
		if (scope.on && !scope_fits(&scope, io))
			scope_leave(&scope);
		if (!scope.on)
			scope_enter(&scope, io);
		issue_by_worker(io, true);
	}
	if (scope.on)
		scope_leave(&scope);
	blk_finish_plug(&plug);
}

static unsigned long stack_left(void)
{
	unsigned long here = current_stack_pointer;

	return here - (unsigned long)end_of_stack(current);
}

/*
 * May the submitter call the file system itself?  Only if nothing sits on the
 * device that could be in the middle of something: a file system above us may
 * hold locks or a transaction that ours would wait for, and a file system
 * below may read metadata synchronously, which deadlocks while those reads
 * wait on the submitter's own bio_list.  So: no holder, an empty bio_list, no
 * journal, no reclaim, a user's task, and room on the stack.  Nor may the limit of
 * the user's files be taken for one of the disk's.
 */
static __always_inline bool
may_issue_inline(struct ubdm_dev *dev, struct ubdm_backing *b, struct bio *bio)
{
	struct bio_list *lists = current->bio_list;

	if (!b->nowait || b->buffered)
		return false;
	if (READ_ONCE(dev->disk->part0->bd_holder))
		return false;
	if (bio_flagged(bio, BIO_CHAIN))
		return false;
	if (lists && (!bio_list_empty(&lists[0]) || !bio_list_empty(&lists[1])))
		return false;
	if (current->journal_info ||
	    (current->flags & (PF_MEMALLOC | PF_MEMALLOC_NOIO | PF_MEMALLOC_NOFS |
			       PF_KTHREAD | PF_LOCAL_THROTTLE | PF_EXITING)))
		return false;
	if (op_is_write(bio_op(bio)) && rlimit(RLIMIT_FSIZE) != RLIM_INFINITY)
		return false;
	return stack_left() >= INLINE_STACK_LEFT;
}

static __always_inline void issue_inline(struct ubdm_io *io)
{
	struct bio_list *lists = current->bio_list;
	struct file *file = io->backing->file;
	const struct cred *old = current->cred;
	unsigned int noio;

	noio = memalloc_noio_save();
	/*
	 * As override_creds(), but both are held by others as long as this takes:
	 * no counting, which every CPU would do in the same place.
	 */
	rcu_assign_pointer(current->cred, file->f_cred);
	current->bio_list = NULL;
	/* So that what completes at once has completed when the file system returns. */
	ubdm_plug_finish_empty();
	if (op_is_write(bio_op(io->bio)))
		issue(io, true, true, true);
	else
		issue(io, false, true, true);
	current->bio_list = lists;
	rcu_assign_pointer(current->cred, old);
	memalloc_noio_restore(noio);
}

static __always_inline void fill(struct ubdm_io *io, struct ubdm_dev *dev,
				 struct bio *bio, struct ubdm_backing *b, u64 sector,
				 u64 tid, int srcu_idx)
{
	io->dev = dev;
	io->backing = b;
	io->bio = bio;
	io->tid = tid;
	io->srcu_idx = srcu_idx;
	io->sectors = bio_sectors(bio);
	io->pos = sector << SECTOR_SHIFT;
	io->done = 0;
	io->write_started = false;
	io->start = ubdm_acct_start(bio);
}

/**
 * ubdm_hit_file - read or write a file backing
 * @dev: the device
 * @bio: wholly inside one extent
 * @b: the backing
 * @sector: where in it
 * @tid: of the extent
 * @srcu_idx: the drain reference, passes to the I/O
 * @may_inline: the caller is submit_bio, and @bio was not cut
 *
 * Context: submit_bio, or a worker of the device.
 */
void ubdm_hit_file(struct ubdm_dev *dev, struct bio *bio, struct ubdm_backing *b,
		   u64 sector, u64 tid, int srcu_idx, bool may_inline)
{
	bool nowait = bio->bi_opf & REQ_NOWAIT;
	struct ubdm_cpuq *q;
	struct ubdm_io *io;

	io = ubdm_io_alloc(dev, nowait);
	if (unlikely(!io)) {
		ubdm_io_leave(dev, srcu_idx);
		bio_wouldblock_error(bio);
		return;
	}
	fill(io, dev, bio, b, sector, tid, srcu_idx);

	if (may_inline && may_issue_inline(dev, b, bio)) {
		ubdm_count(dev, UBDM_S_INLINE);
		issue_inline(io);
		return;
	}
	ubdm_count(dev, UBDM_S_WORKER);
	if (!b->nowait) {
		issue_blocking(io);
		return;
	}
	q = get_cpu_ptr(dev->cpuq);
	if (llist_add(&io->node, &q->list))
		queue_work_on(smp_processor_id(), dev->wq, &q->work);
	put_cpu_ptr(dev->cpuq);
}

/**
 * ubdm_try_file - read a file backing here and now
 * @dev: the device
 * @bio: wholly inside one extent; not one that was cut
 * @b: the backing
 * @sector: where in it
 * @tid: of the extent
 * @srcu_idx: the drain reference, passes to the I/O
 *
 * What may_issue_inline() is afraid of can't be: nobody is above us but io_uring.
 *
 * File systems know NOWAIT, and wait all the same: for a tag of their disk, or for a
 * block that says where the file lies.  So where that took long it is not tried again
 * for a while.  Writes are left to the worker: for the file's times they may wait for
 * a journal, with FUA for a sync, and what has just been allocated is a hole, of which
 * it is known that it comes back.
 *
 * Context: a user's task, with no lock held that a file system could want.
 * Return: false: nothing was done.
 */
bool ubdm_try_file(struct ubdm_dev *dev, struct bio *bio, struct ubdm_backing *b,
		   u64 sector, u64 tid, int srcu_idx)
{
	struct ubdm_io *io;
	u64 began;

	if (op_is_write(bio_op(bio)) || !b->may_try ||
	    time_before(jiffies, READ_ONCE(b->try_after)))
		return false;
	if (stack_left() < INLINE_STACK_LEFT)
		return false;
	io = ubdm_io_alloc(dev, true);
	if (unlikely(!io))
		return false;
	ubdm_bio_disown(bio);
	fill(io, dev, bio, b, sector, tid, srcu_idx);
	ubdm_count_hit(dev, false, io->sectors);
	ubdm_count(dev, UBDM_S_INLINE);
	began = local_clock();
	issue_inline(io);
	/* Who called us is inside the device's SRCU, too: the backing is still there. */
	if (local_clock() - began > TRY_TOO_LONG)
		WRITE_ONCE(b->try_after, jiffies + TRY_PAUSE);
	return true;
}
