/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dev.h - a device: the disk, its TLB, its faults, its backings, its owner.
 *
 * Lifetime.  The table of devices (dev.c) holds a reference until the device is
 * deleted; a bound channel holds one; queued work holds one.
 *
 * Locks, outermost first:
 *
 *   disk->open_mutex	against openers
 *   dev->cmd_mutex	commands of the channel: one is applied after the other,
 *			and attach cannot come between check and effect
 *   ubdm_ctl_mutex	the table of devices, binding and unbinding of channels;
 *			never held while waiting for what a mapper may hold up
 *   dev->tlb.lock	writers of the tree
 *   dev->ftab.lock	irq-safe spinlock: faults, the channel that is served,
 *			its armed FETCHes, commands waiting for a drain
 *
 * I/O holds none of them, only the device's SRCU: taken before the lookup,
 * released at completion.
 */
#ifndef UBDM_DEV_H
#define UBDM_DEV_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/kref.h>
#include <linux/llist.h>
#include <linux/mempool.h>
#include <linux/mutex.h>
#include <linux/srcu.h>
#include <linux/workqueue.h>

#include "backing.h"
#include "fault.h"
#include "stats.h"
#include "tlb.h"
#include "../uapi/ubdmap_nl.h"

struct ubdm_chan;
struct ubdm_dev;

/* What each CPU has for itself. */
struct ubdm_cpuq {
	struct llist_head list;		/* file hits for this CPU's worker ... */
	struct llist_head written;	/* ... and writes for it to complete */
	struct work_struct work;
	struct ubdm_dev *dev;
	struct ubdm_io *spare;		/* see ubdm_io_alloc(); interrupts off */
	unsigned int nr_spare;
};

struct ubdm_dev_args {
	int index;			/* -1: lowest free */
	u64 size;			/* sectors */
	u32 block_size, phys_block_size, io_opt, discard_gran;
	u64 flags;			/* UBDM_DEV_F_* */
	u64 max_extents;
	u32 orphan_timeout;		/* seconds */
	u32 space_timeout;		/* seconds, 0: none */
	char *ident, *format;		/* taken over on success */
};

struct ubdm_dev {
	/* Read on every hit, written rarely. */
	struct ubdm_tlb tlb;
	struct ubdm_backing **backing;	/* [UBDM_MAX_BACKINGS]; cmd_mutex, readers SRCU */
	unsigned int backing_end;	/* above every index ever used; cmd_mutex */
	struct ubdm_stats __percpu *stats;
	struct ubdm_cpuq __percpu *cpuq;
	struct gendisk *disk;
	bool failed;			/* a sync failed: no write succeeds any more */
	bool dead;			/* nothing is parked any more, it fails */
	struct srcu_struct srcu;
	mempool_t io_pool;		/* struct ubdm_io */
	struct bio_set split_set;	/* fronts of split bios */
	struct bio_set clone_set;	/* hit_bdev.c */
	struct bio_set place_set;	/* pieces of a PLACE */

	struct ubdm_ftab ftab;
	struct ubdm_chan *chan;		/* served; ftab.lock */
	bool want_shutdown;		/* deliver SHUTDOWN; ftab.lock */
	bool want_commit;		/* deliver COMMIT; ftab.lock */
	struct list_head places;	/* PLACEs in flight; ftab.lock */
	struct list_head placing;	/* their commands; ftab.lock */

	struct workqueue_struct *wq;	/* I/O: batches, re-drive, PLACE */
	struct workqueue_struct *unbound_wq; /* reads of files that may block, PLACE */
	struct workqueue_struct *write_wq; /* writes: they wait while the fs is frozen */
	struct workqueue_struct *sync_wq; /* flushes, drains */

	spinlock_t redrive_lock;	/* the list below */
	struct bio_list redrive;	/* redrive_lock */
	struct bio_list starved;	/* hits that found no space; redrive_lock */
	unsigned long starved_since;	/* jiffies, 0: nothing starves; redrive_lock */
	unsigned long starved_last;	/* jiffies, of the latest; redrive_lock */
	unsigned int redrives;		/* how often something was put there */
	struct work_struct redrive_work;

	spinlock_t flush_lock;		/* the list below */
	struct bio_list flush;		/* flush_lock */
	struct work_struct flush_work;

	struct list_head drain;		/* commands; ftab.lock */
	struct list_head draining;	/* the batch being waited for; ftab.lock */
	struct work_struct drain_work;

	struct delayed_work watch_work;	/* what has to be looked after in a while */
	u32 trouble;			/* UBDM_TROUBLE_* that was told; watch_work */
	bool backing_error;		/* to be told by watch_work */

	struct mutex cmd_mutex;		/* the channel's commands, attach */
	struct list_head starting;	/* START commands; ftab.lock */
	struct work_struct add_work;
	struct work_struct scan_work;
	struct work_struct del_work;
	struct delayed_work remove_work;
	bool del_force;			/* del_work */
	bool closing;			/* openers are refused; open_mutex */
	bool removed;			/* nothing looks after it any more; READ_ONCE */
	bool going;			/* it will be removed, for good; ftab.lock */
	bool removing;			/* remove_work is at it; ubdm_ctl_mutex */
	bool disk_added;
	bool adding;			/* add_work is queued or at it; ftab.lock */
	bool has_srcu, has_tlb;		/* made, so to be unmade */
	int close_error;		/* what STOP(DONE) said */

	u32 state;			/* enum ubdm_dev_state; ftab.lock, READ_ONCE */
	int index;
	char name[DISK_NAME_LEN];
	u64 flags;			/* UBDM_DEV_F_* */
	u64 size;			/* sectors */
	u32 block_size, phys_block_size, io_opt, discard_gran; /* bytes */
	u32 epoch;			/* of the newest channel; cmd_mutex */
	u32 orphan_timeout;		/* seconds, 0: none */
	u32 space_timeout;		/* seconds, 0: none */
	unsigned long orphaned_at;	/* jiffies */
	unsigned long attached_at;	/* jiffies; of the mapper after that */
	u32 mapper_pid;
	const struct cred *owner;
	char *ident, *format;
	struct shrinker *shrinker;
	struct kref ref;
};

extern struct workqueue_struct *ubdm_ctl_wq;	/* control work of all devices */
extern struct workqueue_struct *ubdm_slow_wq;	/* of it what may wait for a mapper */

int ubdm_dev_create(struct ubdm_chan *chan, struct ubdm_dev_args *args);
int ubdm_dev_attach(struct ubdm_chan *chan, struct ubdm_dev *dev);
int ubdm_dev_start(struct ubdm_dev *dev, struct ubdm_chan *chan,
		   struct io_uring_cmd *cmd, unsigned int granule_shift,
		   unsigned int issue_flags);

/* del.c */
int ubdm_dev_delete(struct ubdm_dev *dev, bool force);
void ubdm_dev_chan_gone(struct ubdm_dev *dev, struct ubdm_chan *chan, bool done,
			int error);
void ubdm_del_work(struct work_struct *work);
void ubdm_remove_work(struct work_struct *work);

/* detach.c */
int ubdm_dev_detach(struct ubdm_dev *dev, struct ubdm_chan *chan);
void ubdm_dev_undetach(struct ubdm_dev *dev);

/* watch.c */
void ubdm_dev_starve(struct ubdm_dev *dev, struct bio *bio);
void ubdm_dev_fed(struct ubdm_dev *dev, struct bio *bio, blk_status_t status);
void ubdm_dev_backing_failed(struct ubdm_dev *dev, struct bio *bio, u64 sector,
			     const struct ubdm_backing *b, int error);
u32 ubdm_dev_trouble(struct ubdm_dev *dev, struct ubdm_fault *desc);
void ubdm_dev_watch(struct ubdm_dev *dev, unsigned long delay);
void ubdm_dev_watch_work(struct work_struct *work);
void ubdm_dev_kill_waiters(struct ubdm_dev *dev);

void ubdm_dev_fail(struct ubdm_dev *dev);
void ubdm_dev_set_state(struct ubdm_dev *dev, u32 state);
u32 ubdm_dev_living_state(const struct ubdm_dev *dev);
void ubdm_dev_scan(struct ubdm_dev *dev);
bool ubdm_dev_begin_remove(struct ubdm_dev *dev);
void ubdm_dev_forget(struct ubdm_dev *dev);
struct ubdm_dev *ubdm_dev_find(int index);
struct ubdm_dev *ubdm_dev_find_from(int index);
bool ubdm_dev_is_owner(struct ubdm_dev *dev, const struct cred *cred);
void ubdm_dev_put(struct ubdm_dev *dev);
int ubdm_shrink_init(struct ubdm_dev *dev);
void ubdm_shrink_exit(struct ubdm_dev *dev);
int ubdm_dev_init(void);
void ubdm_dev_exit(void);

/*
 * I/O is between these two from before its lookup until its completion, in
 * whatever context that is; who drains waits for it.  The annotations tell
 * sparse that they do not pair within a function.
 */
static inline int ubdm_io_enter(struct ubdm_dev *dev)
{
	int idx = srcu_down_read(&dev->srcu);

	__release(&dev->srcu);
	return idx;
}

static inline void ubdm_io_leave(struct ubdm_dev *dev, int idx)
{
	__acquire(&dev->srcu);
	srcu_up_read(&dev->srcu, idx);
}

static inline struct ubdm_dev *ubdm_dev_get(struct ubdm_dev *dev)
{
	kref_get(&dev->ref);
	return dev;
}

#endif /* UBDM_DEV_H */
