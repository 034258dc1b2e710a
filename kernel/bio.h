/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bio.h - the way of a bio: look up, split, issue or park.
 */
#ifndef UBDM_BIO_H
#define UBDM_BIO_H

#include "dev.h"

/* One hit on its way to a backing. */
struct ubdm_io {
	union {
		struct ubdm_dev *dev;
		struct ubdm_io *spare;	/* the next one, in this CPU's cache */
	};
	struct ubdm_backing *backing;
	struct bio *bio;
	u64 tid;			/* of the extent, for FUA */
	int srcu_idx;
	unsigned int sectors;		/* bi_iter is consumed below us */
	unsigned long start;		/* jiffies, for accounting */
	union {
		struct {		/* hit_bdev.c: what we changed in the bio */
			bio_end_io_t *end_io;
			void *private;
			struct block_device *bdev;
			blk_opf_t opf;
		};
		struct {		/* hit_file.c */
			struct kiocb ki;
			struct llist_node node;
			struct work_struct work;
			u64 pos;	/* bytes */
			unsigned int done; /* bytes */
			long ret;
			atomic_t ref;	/* submitter and completion */
			bool nowait;	/* this try must not block */
			bool write_started; /* kiocb_start_write() was done */
		};
	};
};

/* In bi_opf, of a write to a file that found no space before. */
#define UBDM_BIO_STARVED	REQ_DRV

/*
 * A hit needs a struct ubdm_io and gives it back soon.  Each CPU keeps some, as
 * the slab allocator takes ten times as long, half of that to clear them
 * (init_on_alloc).  The pool's own elements are for when memory is short: they
 * go back to the pool while it lacks any, so who waits for one gets it.  No cache
 * where it would hide mistakes from KASAN.
 */
#define UBDM_IO_SPARE	(IS_ENABLED(CONFIG_KASAN) ? 0 : 64)

static __always_inline struct ubdm_io *ubdm_io_alloc(struct ubdm_dev *dev, bool nowait)
{
	struct ubdm_cpuq *q;
	struct ubdm_io *io;
	unsigned long flags;

	/* against this CPU's interrupts, in which I/O completes */
	local_irq_save(flags);
	q = this_cpu_ptr(dev->cpuq);
	io = q->spare;
	if (likely(io)) {
		q->spare = io->spare;
		q->nr_spare--;
	}
	local_irq_restore(flags);
	if (likely(io))
		return io;
	return mempool_alloc(&dev->io_pool, nowait ? GFP_NOWAIT : GFP_NOIO);
}

static __always_inline void ubdm_io_free(struct ubdm_dev *dev, struct ubdm_io *io)
{
	struct ubdm_cpuq *q;
	unsigned long flags;

	/* as mempool_free(): whoever took an element has counted it by now */
	smp_rmb();
	local_irq_save(flags);
	q = this_cpu_ptr(dev->cpuq);
	if (likely(q->nr_spare < UBDM_IO_SPARE &&
		   READ_ONCE(dev->io_pool.curr_nr) >= dev->io_pool.min_nr)) {
		io->spare = q->spare;
		q->spare = io;
		q->nr_spare++;
		io = NULL;
	}
	local_irq_restore(flags);
	if (unlikely(io))
		mempool_free(io, &dev->io_pool);
}

void ubdm_submit_bio(struct bio *bio);
void ubdm_bio_drive(struct ubdm_dev *dev, struct bio *bio);
void ubdm_bio_done(struct ubdm_dev *dev, struct bio *bio, blk_status_t status);
bool ubdm_bio_try(struct ubdm_dev *dev, struct bio *bio);

/* redrive.c */
void ubdm_redrive(struct ubdm_dev *dev, struct bio_list *bios);
void ubdm_redrive_here(struct ubdm_dev *dev, struct bio_list *bios);
void ubdm_redrive_work(struct work_struct *work);

/*
 * Issue @bio to the backing at @sector.  The SRCU section @srcu_idx passes to
 * the I/O.  For hit_file @may_inline says that the caller is submit_bio itself.
 */
void ubdm_hit_bdev(struct ubdm_dev *dev, struct bio *bio, struct ubdm_backing *b,
		   u64 sector, u64 tid, int srcu_idx);
void ubdm_hit_file(struct ubdm_dev *dev, struct bio *bio, struct ubdm_backing *b,
		   u64 sector, u64 tid, int srcu_idx, bool may_inline);
void ubdm_hit_file_batch(struct work_struct *work);

/* The same, if that keeps nobody waiting; false: nothing was done. */
bool ubdm_try_bdev(struct ubdm_dev *dev, struct bio *bio, struct ubdm_backing *b,
		   u64 sector, u64 tid, int srcu_idx);
/* Reads only. */
bool ubdm_try_file(struct ubdm_dev *dev, struct bio *bio, struct ubdm_backing *b,
		   u64 sector, u64 tid, int srcu_idx);

static inline void ubdm_hit(struct ubdm_dev *dev, struct bio *bio,
			    struct ubdm_backing *b, u64 sector, u64 tid,
			    int srcu_idx, bool may_inline)
{
	if (b->bdev)
		ubdm_hit_bdev(dev, bio, b, sector, tid, srcu_idx);
	else
		ubdm_hit_file(dev, bio, b, sector, tid, srcu_idx, may_inline);
}

static __always_inline void ubdm_count_hit(struct ubdm_dev *dev, bool write,
					   unsigned int sectors)
{
	if (write) {
		ubdm_count(dev, UBDM_S_WRITE_HITS);
		ubdm_count_add(dev, UBDM_S_WRITE_SECTORS, sectors);
	} else {
		ubdm_count(dev, UBDM_S_READ_HITS);
		ubdm_count_add(dev, UBDM_S_READ_SECTORS, sectors);
	}
}

/* A hit failed; of a PLACE's pieces the PLACE tells. */
static inline void ubdm_count_failed(struct ubdm_dev *dev, struct bio *bio)
{
	if (bio->bi_pool != &dev->place_set)
		ubdm_count(dev, UBDM_S_ERRORS);
}

/* A hit came back: what is left to do before the bio may end. */
bool ubdm_hit_needs_flush(struct ubdm_dev *dev, struct bio *bio, u64 tid);

#endif /* UBDM_BIO_H */
