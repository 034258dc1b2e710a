// SPDX-License-Identifier: GPL-2.0-only
/*
 * dev.c - the life of a device; its end is in del.c.
 *
 *   NEW --START--> LIVE <--START-- (attached)
 *    |             |  ^               ^
 *    |    mapper   |  +---------------+
 *    |     gone    +--> ORPHANED -----+
 *    |            |
 *    |     DETACH +--> DETACHED --START--> LIVE
 *    v                     |
 *  (gone)   LIVE, ORPHANED -DELETE-> DYING --> (gone)
 */
#include "bio.h"
#include "chan.h"
#include "flush.h"
#include "genl.h"

#include <linux/idr.h>
#include <linux/module.h>
#include <linux/slab.h>

#define IO_POOL_MIN		64
#define BIO_POOL_MIN		64
#define DEFAULT_MAX_EXTENTS	BIT_ULL(20)
#define MAX_DISCARD_SECT	BIT(21)	/* 1 GiB */

static DEFINE_MUTEX(ubdm_ctl_mutex);
static DEFINE_IDR(devices);			/* ubdm_ctl_mutex */
struct workqueue_struct *ubdm_ctl_wq, *ubdm_slow_wq;
static struct kmem_cache *io_cache;

static int disk_open(struct gendisk *disk, blk_mode_t mode)
{
	struct ubdm_dev *dev = disk->private_data;

	/* Under open_mutex, as is the change of closing. */
	return dev->closing ? -ENXIO : 0;
}

static void dev_free(struct ubdm_dev *dev);

static void disk_free(struct gendisk *disk)
{
	dev_free(disk->private_data);
}

static const struct block_device_operations disk_fops = {
	.owner		= THIS_MODULE,
	.submit_bio	= ubdm_submit_bio,
	.open		= disk_open,
	.free_disk	= disk_free,
};

/**
 * ubdm_dev_set_state - change the state that others see
 * @dev: the device
 * @state: enum ubdm_dev_state
 *
 * Context: any, ftab.lock held.
 */
void ubdm_dev_set_state(struct ubdm_dev *dev, u32 state)
{
	WRITE_ONCE(dev->state, state);
}

/**
 * ubdm_dev_fail - a sync has failed
 * @dev: the device
 *
 * Sticky: what the failed sync should have saved may be lost although a later
 * one would succeed, so writes and flushes fail until the device is set up
 * again.  Reads go on.
 *
 * Context: any.
 */
void ubdm_dev_fail(struct ubdm_dev *dev)
{
	unsigned long flags;

	spin_lock_irqsave(&dev->ftab.lock, flags);
	WRITE_ONCE(dev->failed, true);
	if (dev->state == UBDM_STATE_LIVE)
		ubdm_dev_set_state(dev, UBDM_STATE_FAILED);
	spin_unlock_irqrestore(&dev->ftab.lock, flags);
}

static u32 dma_alignment(struct ubdm_dev *dev)
{
	unsigned int i, end = READ_ONCE(dev->backing_end);
	u32 align = SECTOR_SIZE - 1;
	struct ubdm_backing *b;
	int idx;

	/* The backings stay as long as we are inside. */
	idx = ubdm_io_enter(dev);
	for (i = 0; i < end; i++) {
		b = READ_ONCE(dev->backing[i]);
		if (b)
			align |= b->bdev ? bdev_dma_alignment(b->bdev) : b->mem_mask;
	}
	ubdm_io_leave(dev, idx);
	return align;
}

/*
 * Somebody below has checksums over the pages that are being written: whoever writes
 * to us must not change them meanwhile.
 */
static bool needs_stable_pages(struct ubdm_dev *dev)
{
	unsigned int i, end = READ_ONCE(dev->backing_end);
	struct ubdm_backing *b;
	bool stable = false;
	int idx;

	idx = ubdm_io_enter(dev);
	for (i = 0; i < end && !stable; i++) {
		b = READ_ONCE(dev->backing[i]);
		stable = b && ubdm_backing_is_stable(b);
	}
	ubdm_io_leave(dev, idx);
	return stable;
}

static int add_disk_now(struct ubdm_dev *dev)
{
	struct queue_limits lim;
	struct gendisk *disk;
	int ret;

	blk_set_stacking_limits(&lim);
	lim.features = BLK_FEAT_WRITE_CACHE | BLK_FEAT_FUA | BLK_FEAT_NOWAIT |
		       BLK_FEAT_IO_STAT;
	if (needs_stable_pages(dev))
		lim.features |= BLK_FEAT_STABLE_WRITES;
	lim.logical_block_size = dev->block_size;
	lim.physical_block_size = max(dev->phys_block_size, dev->block_size);
	lim.io_min = lim.physical_block_size;
	lim.io_opt = dev->io_opt;
	lim.dma_alignment = dma_alignment(dev);
	lim.max_hw_discard_sectors = dev->discard_gran ? MAX_DISCARD_SECT : 0;
	lim.discard_granularity = dev->discard_gran;
	lim.max_write_zeroes_sectors = MAX_DISCARD_SECT;
	lim.max_secure_erase_sectors = 0;
	lim.max_zone_append_sectors = 0;

	disk = blk_alloc_disk(&lim, NUMA_NO_NODE);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	disk->fops = &disk_fops;
	disk->private_data = dev;
	strscpy(disk->disk_name, dev->name, DISK_NAME_LEN);
	set_capacity(disk, dev->size);
	if (dev->flags & UBDM_DEV_F_RO)
		set_disk_ro(disk, true);
	/* The scan reads through the mapper: not from here, see scan_work. */
	set_bit(GD_SUPPRESS_PART_SCAN, &disk->state);
	dev->disk = disk;
	ret = add_disk(disk);
	if (ret) {
		dev->disk = NULL;
		put_disk(disk);		/* calls free_disk only once added */
		return ret;
	}
	dev->disk_added = true;
	return 0;
}

/**
 * ubdm_dev_living_state - what a device is that is not being deleted
 * @dev: the device
 *
 * Context: ftab.lock held.
 * Return: enum ubdm_dev_state.
 */
u32 ubdm_dev_living_state(const struct ubdm_dev *dev)
{
	if (!dev->disk_added && dev->chan)
		return UBDM_STATE_NEW;
	if (dev->chan && dev->chan->started)
		return dev->failed ? UBDM_STATE_FAILED : UBDM_STATE_LIVE;
	return dev->tlb.pinned ? UBDM_STATE_DETACHED : UBDM_STATE_ORPHANED;
}

/**
 * ubdm_dev_scan - look for partitions, if that is wanted and was not done
 * @dev: the device, with its disk
 *
 * Context: process.
 */
void ubdm_dev_scan(struct ubdm_dev *dev)
{
	if (dev->flags & UBDM_DEV_F_PARTSCAN &&
	    test_bit(GD_SUPPRESS_PART_SCAN, &dev->disk->state))
		queue_work(ubdm_slow_wq, &dev->scan_work);
}

static void add_work(struct work_struct *work)
{
	struct ubdm_dev *dev = container_of(work, struct ubdm_dev, add_work);
	int ret = dev->disk_added ? -EALREADY : add_disk_now(dev);

	spin_lock_irq(&dev->ftab.lock);
	dev->adding = false;
	if (!ret && (dev->state == UBDM_STATE_NEW ||
		     dev->state == UBDM_STATE_ORPHANED))
		ubdm_dev_set_state(dev, ubdm_dev_living_state(dev));
	spin_unlock_irq(&dev->ftab.lock);
	if (!ret) {
		ubdm_genl_event(dev, UBDM_EV_LIVE, 0);
		ubdm_dev_scan(dev);
	}
	ubdm_wait_fire_all(dev, &dev->starting, ret);
	ubdm_dev_put(dev);
}

static void scan_work(struct work_struct *work)
{
	struct ubdm_dev *dev = container_of(work, struct ubdm_dev, scan_work);

	mutex_lock(&dev->disk->open_mutex);
	if (!dev->closing) {
		/* In here: who sees the bit in sysfs opens the disk to wait for us. */
		clear_bit(GD_SUPPRESS_PART_SCAN, &dev->disk->state);
		bdev_disk_changed(dev->disk, false);
	}
	mutex_unlock(&dev->disk->open_mutex);
}

/**
 * ubdm_dev_start - START
 * @dev: the device
 * @chan: its channel
 * @cmd: ends when the disk is there
 * @granule_shift: in sectors
 * @issue_flags: as given
 *
 * Context: cmd_mutex held.
 * Return: -EIOCBQUEUED, 0 (was live already), -EALREADY, -ENOBUFS (no FETCH
 * is armed), -EINVAL.
 */
int ubdm_dev_start(struct ubdm_dev *dev, struct ubdm_chan *chan,
		   struct io_uring_cmd *cmd, unsigned int granule_shift,
		   unsigned int issue_flags)
{
	bool live, dying;
	int ret = 0;

	spin_lock_irq(&dev->ftab.lock);
	if (chan->started)
		ret = -EALREADY;
	else if (list_empty(&chan->fetches))
		ret = -ENOBUFS;
	else if (dev->disk_added && dev->ftab.granule_shift != granule_shift)
		ret = -EINVAL;
	else
		chan->started = true;
	live = dev->disk_added;
	if (!ret && live && (dev->state == UBDM_STATE_ORPHANED ||
			     dev->state == UBDM_STATE_DETACHED))
		ubdm_dev_set_state(dev, dev->failed ? UBDM_STATE_FAILED :
						      UBDM_STATE_LIVE);
	if (!ret && !live)
		dev->ftab.granule_shift = granule_shift;
	spin_unlock_irq(&dev->ftab.lock);
	if (ret)
		return ret;
	if (live) {
		ubdm_dev_undetach(dev);
		ubdm_fetch_kick(dev);
		ubdm_genl_event(dev, UBDM_EV_LIVE, 0);
		return 0;
	}
	ret = ubdm_wait_add(dev, cmd, &dev->starting, issue_flags);
	spin_lock_irq(&dev->ftab.lock);
	dying = dev->state == UBDM_STATE_DYING;
	if (!dying) {
		dev->adding = true;
		ubdm_dev_get(dev);
		if (!queue_work(ubdm_ctl_wq, &dev->add_work))
			ubdm_dev_put(dev);	/* the channel has one */
	}
	spin_unlock_irq(&dev->ftab.lock);
	/* Who deletes it may have ended those that waited before we did. */
	if (dying)
		ubdm_wait_fire_all(dev, &dev->starting, -ESHUTDOWN);
	return ret;
}

static void free_spare_ios(struct ubdm_dev *dev)
{
	struct ubdm_io *io;
	int cpu;

	if (!dev->cpuq)
		return;
	for_each_possible_cpu(cpu) {
		struct ubdm_cpuq *q = per_cpu_ptr(dev->cpuq, cpu);

		while ((io = q->spare)) {
			q->spare = io->spare;
			mempool_free(io, &dev->io_pool);
		}
	}
}

static void dev_free(struct ubdm_dev *dev)
{
	WRITE_ONCE(dev->removed, true);
	cancel_delayed_work_sync(&dev->watch_work);
	if (dev->shrinker)
		ubdm_shrink_exit(dev);
	if (dev->wq)
		destroy_workqueue(dev->wq);
	if (dev->unbound_wq)
		destroy_workqueue(dev->unbound_wq);
	if (dev->write_wq)
		destroy_workqueue(dev->write_wq);
	if (dev->sync_wq)
		destroy_workqueue(dev->sync_wq);
	if (dev->has_tlb)
		ubdm_tlb_destroy(&dev->tlb);
	if (dev->has_srcu)
		cleanup_srcu_struct(&dev->srcu);
	bioset_exit(&dev->place_set);
	bioset_exit(&dev->clone_set);
	bioset_exit(&dev->split_set);
	free_spare_ios(dev);
	mempool_exit(&dev->io_pool);
	free_percpu(dev->cpuq);
	free_percpu(dev->stats);
	kvfree(dev->backing);
	if (dev->owner)
		put_cred(dev->owner);
	kfree(dev->ident);
	kfree(dev->format);
	kvfree(dev);
	module_put(THIS_MODULE);
}

static void dev_release(struct kref *ref)
{
	struct ubdm_dev *dev = container_of(ref, struct ubdm_dev, ref);

	if (dev->disk_added)
		put_disk(dev->disk);
	else
		dev_free(dev);
}

/**
 * ubdm_dev_put - drop a reference
 * @dev: the device
 *
 * The last one drops the disk, and who has that open frees the device with it:
 * whoever holds a reference may look at the disk, also after its deletion.
 *
 * Context: process; not from one of the device's own workqueues.
 */
void ubdm_dev_put(struct ubdm_dev *dev)
{
	kref_put(&dev->ref, dev_release);
}

static int alloc_queues(struct ubdm_dev *dev)
{
	int cpu;

	dev->wq = alloc_workqueue("%s", WQ_MEM_RECLAIM, 0, dev->name);
	dev->unbound_wq = alloc_workqueue("%s-io", WQ_MEM_RECLAIM | WQ_UNBOUND, 256,
					  dev->name);
	dev->write_wq = alloc_workqueue("%s-write", WQ_MEM_RECLAIM | WQ_UNBOUND, 256,
					dev->name);
	dev->sync_wq = alloc_workqueue("%s-sync", WQ_MEM_RECLAIM | WQ_UNBOUND, 16,
				       dev->name);
	if (!dev->wq || !dev->unbound_wq || !dev->write_wq || !dev->sync_wq)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		struct ubdm_cpuq *q = per_cpu_ptr(dev->cpuq, cpu);

		init_llist_head(&q->list);
		init_llist_head(&q->written);
		INIT_WORK(&q->work, ubdm_hit_file_batch);
		q->dev = dev;
	}
	return 0;
}

static void init_fields(struct ubdm_dev *dev, const struct ubdm_dev_args *args)
{
	kref_init(&dev->ref);
	mutex_init(&dev->cmd_mutex);
	spin_lock_init(&dev->redrive_lock);
	spin_lock_init(&dev->flush_lock);
	bio_list_init(&dev->redrive);
	bio_list_init(&dev->starved);
	bio_list_init(&dev->flush);
	INIT_LIST_HEAD(&dev->places);
	INIT_LIST_HEAD(&dev->placing);
	INIT_LIST_HEAD(&dev->drain);
	INIT_LIST_HEAD(&dev->draining);
	INIT_LIST_HEAD(&dev->starting);
	INIT_WORK(&dev->redrive_work, ubdm_redrive_work);
	INIT_WORK(&dev->flush_work, ubdm_flush_work);
	INIT_WORK(&dev->drain_work, ubdm_drain_work);
	INIT_WORK(&dev->add_work, add_work);
	INIT_WORK(&dev->scan_work, scan_work);
	INIT_WORK(&dev->del_work, ubdm_del_work);
	INIT_DELAYED_WORK(&dev->remove_work, ubdm_remove_work);
	INIT_DELAYED_WORK(&dev->watch_work, ubdm_dev_watch_work);
	ubdm_ftab_init(&dev->ftab, args->size);
	dev->size = args->size;
	dev->flags = args->flags;
	dev->block_size = args->block_size;
	dev->phys_block_size = args->phys_block_size;
	dev->io_opt = args->io_opt;
	dev->discard_gran = args->discard_gran;
	dev->orphan_timeout = args->orphan_timeout;
	dev->space_timeout = args->space_timeout;
	dev->state = UBDM_STATE_NEW;
}

/* All that can fail.  What was made is undone by dev_free(). */
static int alloc_parts(struct ubdm_dev *dev, const struct ubdm_dev_args *args)
{
	int ret;

	ret = init_srcu_struct(&dev->srcu);
	if (ret)
		return ret;
	dev->has_srcu = true;
	ret = ubdm_tlb_init(&dev->tlb, args->max_extents ?: DEFAULT_MAX_EXTENTS);
	if (ret)
		return ret;
	dev->has_tlb = true;
	dev->backing = kvcalloc(UBDM_MAX_BACKINGS, sizeof(*dev->backing), GFP_KERNEL);
	dev->stats = alloc_percpu(struct ubdm_stats);
	dev->cpuq = alloc_percpu(struct ubdm_cpuq);
	if (!dev->backing || !dev->stats || !dev->cpuq)
		return -ENOMEM;
	ret = mempool_init_slab_pool(&dev->io_pool, IO_POOL_MIN, io_cache);
	if (!ret)
		ret = bioset_init(&dev->split_set, BIO_POOL_MIN, 0, 0);
	if (!ret)
		ret = bioset_init(&dev->clone_set, BIO_POOL_MIN, 0, 0);
	if (!ret)
		ret = bioset_init(&dev->place_set, BIO_POOL_MIN, 0, 0);
	return ret ?: alloc_queues(dev) ?: ubdm_shrink_init(dev);
}

/**
 * ubdm_dev_create - make a device on a channel
 * @chan: not bound yet
 * @args: checked; its strings are taken over on success
 *
 * Context: process.
 * Return: its index, -EBUSY (the channel is bound), -EEXIST (the index is
 * taken), -ENOMEM.
 */
int ubdm_dev_create(struct ubdm_chan *chan, struct ubdm_dev_args *args)
{
	struct ubdm_dev *dev;
	int ret;

	dev = kvzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	__module_get(THIS_MODULE);
	init_fields(dev, args);

	mutex_lock(&ubdm_ctl_mutex);
	if (chan->dev) {
		ret = -EBUSY;
		goto unlock;
	}
	ret = args->index < 0 ?
		idr_alloc(&devices, NULL, 0, 0, GFP_KERNEL) :
		idr_alloc(&devices, NULL, args->index, args->index + 1, GFP_KERNEL);
	if (ret < 0) {
		ret = ret == -ENOSPC ? -EEXIST : ret;
		goto unlock;
	}
	dev->index = ret;
	snprintf(dev->name, sizeof(dev->name), "ubdmap%d", dev->index);
	ret = alloc_parts(dev, args);
	if (ret) {
		idr_remove(&devices, dev->index);
		goto unlock;
	}
	dev->owner = get_cred(chan->cred);
	if (!ns_capable_noaudit(&init_user_ns, CAP_SYS_ADMIN))
		dev->flags |= UBDM_DEV_F_UNPRIVILEGED;
	dev->ident = args->ident;
	dev->format = args->format;
	dev->mapper_pid = task_tgid_nr(current);
	dev->chan = chan;
	dev->epoch = 1;
	dev->ftab.epoch = 1;
	ubdm_dev_get(dev);
	/* Pairs with the acquire in chan_uring_cmd(). */
	smp_store_release(&chan->dev, dev);
	idr_replace(&devices, dev, dev->index);
	mutex_unlock(&ubdm_ctl_mutex);
	ubdm_genl_event(dev, UBDM_EV_CREATED, 0);
	return dev->index;
unlock:
	mutex_unlock(&ubdm_ctl_mutex);
	ubdm_dev_put(dev);
	return ret;
}

/**
 * ubdm_dev_attach - give an orphaned device a new mapper
 * @chan: not bound yet
 * @dev: the device
 *
 * Faults are delivered again after START.
 *
 * Context: process; waits for a command of the mapper before.
 * Return: 0, -EBUSY (a mapper is there, or the channel is bound), -EINTR.
 */
int ubdm_dev_attach(struct ubdm_chan *chan, struct ubdm_dev *dev)
{
	int ret = 0;

	/* First, for a mapper may be at it for long, and others wait for the table. */
	if (mutex_lock_killable(&dev->cmd_mutex))
		return -EINTR;
	mutex_lock(&ubdm_ctl_mutex);
	spin_lock_irq(&dev->ftab.lock);
	if (chan->dev || dev->removing || dev->chan ||
	    (dev->state != UBDM_STATE_ORPHANED &&
	     dev->state != UBDM_STATE_DETACHED)) {
		ret = -EBUSY;
	} else {
		dev->epoch++;
		dev->attached_at = jiffies;
		ubdm_ftab_requeue(&dev->ftab, dev->epoch, dev->tlb.max_tid);
		dev->mapper_pid = task_tgid_nr(current);
		dev->chan = chan;
	}
	spin_unlock_irq(&dev->ftab.lock);
	if (!ret) {
		ubdm_dev_get(dev);
		/* Pairs with the acquire in chan_uring_cmd(). */
		smp_store_release(&chan->dev, dev);
	}
	mutex_unlock(&ubdm_ctl_mutex);
	mutex_unlock(&dev->cmd_mutex);
	if (!ret)
		ubdm_genl_event(dev, UBDM_EV_ATTACHED, 0);
	return ret;
}

/**
 * ubdm_dev_begin_remove - from here on nobody attaches
 * @dev: the device
 *
 * Context: process.
 * Return: false: it has begun before.
 */
bool ubdm_dev_begin_remove(struct ubdm_dev *dev)
{
	bool first;

	mutex_lock(&ubdm_ctl_mutex);
	first = !dev->removing;
	dev->removing = true;
	mutex_unlock(&ubdm_ctl_mutex);
	return first;
}

/**
 * ubdm_dev_forget - let go of a device that is gone; its name may be used again
 * @dev: the device
 *
 * Context: process.
 */
void ubdm_dev_forget(struct ubdm_dev *dev)
{
	mutex_lock(&ubdm_ctl_mutex);
	idr_remove(&devices, dev->index);
	mutex_unlock(&ubdm_ctl_mutex);
	ubdm_dev_put(dev);	/* the table's */
}

/**
 * ubdm_dev_find_from - the device with the lowest index from @index on
 * @index: where to begin
 *
 * Context: process.
 * Return: with a reference, or NULL.
 */
struct ubdm_dev *ubdm_dev_find_from(int index)
{
	struct ubdm_dev *dev;

	mutex_lock(&ubdm_ctl_mutex);
	dev = idr_get_next(&devices, &index);
	if (dev)
		ubdm_dev_get(dev);
	mutex_unlock(&ubdm_ctl_mutex);
	return dev;
}

/**
 * ubdm_dev_find - the device with this index
 * @index: N of ubdmapN
 *
 * Context: process.
 * Return: with a reference, or NULL.
 */
struct ubdm_dev *ubdm_dev_find(int index)
{
	struct ubdm_dev *dev;

	mutex_lock(&ubdm_ctl_mutex);
	dev = idr_find(&devices, index);
	if (dev)
		ubdm_dev_get(dev);
	mutex_unlock(&ubdm_ctl_mutex);
	return dev;
}

/**
 * ubdm_dev_is_owner - are these the owner's credentials?
 * @dev: the device
 * @cred: whose
 */
bool ubdm_dev_is_owner(struct ubdm_dev *dev, const struct cred *cred)
{
	return uid_eq(cred->euid, dev->owner->euid);
}

/**
 * ubdm_dev_init - set up what all devices share
 *
 * Return: 0 or -ENOMEM.
 */
int ubdm_dev_init(void)
{
	io_cache = KMEM_CACHE(ubdm_io, 0);
	if (!io_cache)
		return -ENOMEM;
	ubdm_ctl_wq = alloc_workqueue("ubdmap-ctl", WQ_UNBOUND, 0);
	ubdm_slow_wq = alloc_workqueue("ubdmap-slow", WQ_UNBOUND, WQ_MAX_ACTIVE);
	if (ubdm_ctl_wq && ubdm_slow_wq)
		return 0;
	if (ubdm_ctl_wq)
		destroy_workqueue(ubdm_ctl_wq);
	if (ubdm_slow_wq)
		destroy_workqueue(ubdm_slow_wq);
	kmem_cache_destroy(io_cache);
	return -ENOMEM;
}

/**
 * ubdm_dev_exit - undo ubdm_dev_init(); no device exists
 */
void ubdm_dev_exit(void)
{
	destroy_workqueue(ubdm_slow_wq);
	destroy_workqueue(ubdm_ctl_wq);
	kmem_cache_destroy(io_cache);
	idr_destroy(&devices);
	rcu_barrier();
}
