// SPDX-License-Identifier: GPL-2.0-only
/*
 * chan.c - /dev/ubdmap: open gives a channel, commands come by io_uring.
 *
 * The body of a command lies in memory shared with userspace.  It is copied
 * once; the copy is checked and used.
 */
#include "bio.h"
#include "chan.h"
#include "flush.h"

#include <linux/cred.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

struct call {
	struct ubdm_chan *chan;
	struct ubdm_dev *dev;
	struct io_uring_cmd *cmd;
	unsigned int issue_flags;
	struct ubdm_extent *ext;	/* MAP, RESOLVE: of ubdm_take_extents() */
	struct bio_list again;		/* RESOLVE: to be looked up again ... */
	int srcu_idx;			/* ... and inside of what until then */
	void *out;			/* DUMP: for the mapper's memory */
};

union body {
	u8 raw[UBDM_CMD_BODY];
	struct ubdm_start start;
	struct ubdm_stop stop;
	struct ubdm_fetch fetch;
	struct ubdm_resolve resolve;
	struct ubdm_map map;
	struct ubdm_invalidate inval;
	struct ubdm_commit commit;
	struct ubdm_backing_add add;
	struct ubdm_backing_ref ref;
	struct ubdm_dump dump;
};

static_assert(sizeof(union body) == UBDM_CMD_BODY);

/* ret > 0: something was superseded, the command ends when that has drained. */
static int after_drain(const struct call *c, int ret)
{
	if (ret <= 0)
		return ret;
	ret = ubdm_wait_add(c->dev, c->cmd, &c->dev->drain, c->issue_flags);
	queue_work(c->dev->sync_wq, &c->dev->drain_work);
	return ret;
}

static int do_start(struct call *c, const union body *b)
{
	if (b->start.flags || memchr_inv(b->start.pad, 0, sizeof(b->start.pad)) ||
	    b->start.granule_shift > UBDM_MAX_GRANULE_SHIFT)
		return -EINVAL;
	return ubdm_dev_start(c->dev, c->chan, c->cmd, b->start.granule_shift,
			      c->issue_flags);
}

static int do_fetch(struct call *c, const union body *b)
{
	return ubdm_fetch(c->dev, c->chan, c->cmd, &b->fetch, c->issue_flags);
}

static int do_stop(struct call *c, const union body *b)
{
	if (b->stop.flags & ~(UBDM_STOP_F_DONE | UBDM_STOP_F_DETACH) ||
	    b->stop.error > 0 || b->stop.error < -MAX_ERRNO)
		return -EINVAL;
	if (b->stop.flags & UBDM_STOP_F_DETACH)
		return b->stop.flags == UBDM_STOP_F_DETACH && !b->stop.error ?
			       ubdm_dev_detach(c->dev, c->chan) : -EINVAL;
	ubdm_dev_chan_gone(c->dev, c->chan, b->stop.flags & UBDM_STOP_F_DONE,
			   b->stop.error);
	return 0;
}

static void take_resolve(struct call *c, const union body *b)
{
	if (!(b->resolve.flags & UBDM_RESOLVE_F_INLINE))
		c->ext = ubdm_take_extents(b->resolve.addr, b->resolve.nr_ext);
}

static int do_resolve(struct call *c, const union body *b)
{
	int ret;

	c->srcu_idx = ubdm_io_enter(c->dev);
	ret = after_drain(c, ubdm_resolve(c->dev, c->cmd, &b->resolve, c->ext, &c->again,
					  c->issue_flags));
	if (bio_list_empty(&c->again))
		ubdm_io_leave(c->dev, c->srcu_idx);
	return ret;
}

static int drive_again(struct call *c, const union body *b, int ret)
{
	if (bio_list_empty(&c->again))
		return ret;
	ubdm_redrive_here(c->dev, &c->again);
	ubdm_io_leave(c->dev, c->srcu_idx);
	return ret;
}

static void take_map(struct call *c, const union body *b)
{
	c->ext = ubdm_take_extents(b->map.addr, b->map.nr_ext);
}

static int do_map(struct call *c, const union body *b)
{
	if (b->map.flags)
		return -EINVAL;
	return after_drain(c, ubdm_map(c->dev, c->ext, b->map.nr_ext));
}

static int do_inval(struct call *c, const union body *b)
{
	const struct ubdm_invalidate *i = &b->inval;
	u64 end;
	int ret = 0;

	if (i->pad || check_add_overflow(i->start, i->len, &end))
		return -EINVAL;
	switch (i->flags) {
	case UBDM_INVAL_F_LBA:
		if (i->backing || end > c->dev->size)
			return -EINVAL;
		if (i->len)
			ret = ubdm_tlb_inval_lba(&c->dev->tlb, i->start, i->len);
		break;
	case UBDM_INVAL_F_BACKING:
		if (i->len)
			ret = ubdm_tlb_inval_backing(&c->dev->tlb, i->backing,
						     i->start, i->len);
		break;
	default:
		return -EINVAL;
	}
	return after_drain(c, ret ?: 1);
}

static int do_commit(struct call *c, const union body *b)
{
	if (b->commit.flags || b->commit.pad)
		return -EINVAL;
	return ubdm_flush_check(c->dev) ?: ubdm_tlb_commit(&c->dev->tlb, b->commit.tid);
}

static int do_backing_add(struct call *c, const union body *b)
{
	return ubdm_backing_add(c->dev, &b->add);
}

static int do_backing_get(struct call *c, const union body *b)
{
	return b->ref.flags ? -EINVAL : ubdm_backing_get_fd(c->dev, b->ref.index);
}

static int do_backing_del(struct call *c, const union body *b)
{
	return b->ref.flags ? -EINVAL : ubdm_backing_del(c->dev, b->ref.index);
}

static int do_dump(struct call *c, const union body *b)
{
	return ubdm_dump(c->dev, &b->dump, &c->out);
}

static int tell_dump(struct call *c, const union body *b, int ret)
{
	if (ret > 0)
		ret = copy_to_user(u64_to_user_ptr(b->dump.addr), c->out, ret) ?
			      -EFAULT : 0;
	return ret;
}

/*
 * Applied one after the other, against attach: under dev->cmd_mutex.  The mapper's
 * memory is touched before and after that: it may be of a kind that keeps us waiting,
 * for ever if the mapper likes, and others would wait with us.
 */
#define SERIAL 1

static const struct {
	u32 op;
	u32 size;
	int (*call)(struct call *c, const union body *b);
	unsigned int flags;
	void (*before)(struct call *c, const union body *b);
	int (*after)(struct call *c, const union body *b, int ret);
} commands[] = {
	{ UBDM_CMD_START, sizeof(struct ubdm_start), do_start, SERIAL },
	{ UBDM_CMD_STOP, sizeof(struct ubdm_stop), do_stop, 0 },
	{ UBDM_CMD_FETCH, sizeof(struct ubdm_fetch), do_fetch, 0 },
	{ UBDM_CMD_RESOLVE, sizeof(struct ubdm_resolve), do_resolve, SERIAL,
	  .before = take_resolve, .after = drive_again },
	{ UBDM_CMD_MAP, sizeof(struct ubdm_map), do_map, SERIAL, .before = take_map },
	{ UBDM_CMD_INVALIDATE, sizeof(struct ubdm_invalidate), do_inval, SERIAL },
	{ UBDM_CMD_COMMIT, sizeof(struct ubdm_commit), do_commit, SERIAL },
	{ UBDM_CMD_BACKING_ADD, sizeof(struct ubdm_backing_add), do_backing_add, SERIAL },
	{ UBDM_CMD_BACKING_GET, sizeof(struct ubdm_backing_ref), do_backing_get, SERIAL },
	{ UBDM_CMD_BACKING_DEL, sizeof(struct ubdm_backing_ref), do_backing_del, SERIAL },
	{ UBDM_CMD_DUMP, sizeof(struct ubdm_dump), do_dump, SERIAL, .after = tell_dump },
};

static int served(struct ubdm_dev *dev, struct ubdm_chan *chan)
{
	int ret = 0;

	spin_lock_irq(&dev->ftab.lock);
	if (chan->stopped)
		ret = -ESHUTDOWN;
	else if (dev->chan != chan)
		ret = -ESTALE;
	spin_unlock_irq(&dev->ftab.lock);
	return ret;
}

static int run(struct call *c, unsigned int i, const union body *b)
{
	unsigned int noio;
	int ret;

	if (!(commands[i].flags & SERIAL))
		return commands[i].call(c, b);
	noio = memalloc_noio_save();
	if (commands[i].before)
		commands[i].before(c, b);
	mutex_lock(&c->dev->cmd_mutex);
	ret = served(c->dev, c->chan);
	if (!ret)
		ret = commands[i].call(c, b);
	mutex_unlock(&c->dev->cmd_mutex);
	if (commands[i].after)
		ret = commands[i].after(c, b, ret);
	memalloc_noio_restore(noio);
	kvfree(c->out);
	if (!IS_ERR(c->ext))
		kvfree(c->ext);
	return ret;
}

static int chan_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct call c = {
		.chan = cmd->file->private_data,
		.cmd = cmd,
		.issue_flags = issue_flags,
	};
	union body body;
	unsigned int i;

	/* Pairs with the release in create and attach: the device is whole. */
	c.dev = smp_load_acquire(&c.chan->dev);
	if (unlikely(issue_flags & IO_URING_F_CANCEL)) {
		ubdm_wait_cancel(c.dev, cmd, issue_flags);
		return 0;
	}
	if (!(issue_flags & IO_URING_F_SQE128) || (issue_flags & IO_URING_F_COMPAT))
		return -EINVAL;
	/* From io-wq, commands would overtake each other. */
	if (issue_flags & IO_URING_F_UNLOCKED)
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].op == cmd->cmd_op)
			break;
	if (i == ARRAY_SIZE(commands))
		return -ENOTTY;
	memcpy(&body, io_uring_sqe_cmd(cmd->sqe), sizeof(body));
	barrier();	/* the copy is what we check */
	if (memchr_inv(body.raw + commands[i].size, 0,
		       sizeof(body) - commands[i].size))
		return -EINVAL;
	if (!c.dev)
		return -ENOTCONN;
	return run(&c, i, &body);
}

static int chan_open(struct inode *inode, struct file *file)
{
	struct ubdm_chan *chan = kzalloc(sizeof(*chan), GFP_KERNEL);

	if (!chan)
		return -ENOMEM;
	INIT_LIST_HEAD(&chan->fetches);
	chan->cred = get_cred(file->f_cred);
	file->private_data = chan;
	return 0;
}

static int chan_release(struct inode *inode, struct file *file)
{
	struct ubdm_chan *chan = file->private_data;

	/* Every command holds the file, so none is left. */
	if (chan->dev) {
		ubdm_dev_chan_gone(chan->dev, chan, false, 0);
		ubdm_dev_put(chan->dev);
	}
	put_cred(chan->cred);
	kfree(chan);
	return 0;
}

static ssize_t chan_read_iter(struct kiocb *ki, struct iov_iter *to)
{
	return ubdm_xfer(ki, to, false);
}

static ssize_t chan_write_iter(struct kiocb *ki, struct iov_iter *from)
{
	return ubdm_xfer(ki, from, true);
}

static const struct file_operations chan_fops = {
	.owner		= THIS_MODULE,
	.open		= chan_open,
	.release	= chan_release,
	.uring_cmd	= chan_uring_cmd,
	.read_iter	= chan_read_iter,
	.write_iter	= chan_write_iter,
	.llseek		= noop_llseek,
};

static struct miscdevice chan_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "ubdmap",
	.fops	= &chan_fops,
	.mode	= 0600,
};

/**
 * ubdm_chan_from_fd - the channel behind a descriptor of the caller's
 * @fd: number
 * @file: reference, for the caller to fput()
 *
 * Return: the channel, or ERR_PTR(-EBADF).
 */
struct ubdm_chan *ubdm_chan_from_fd(int fd, struct file **file)
{
	struct file *f = fget(fd);

	if (!f)
		return ERR_PTR(-EBADF);
	if (f->f_op != &chan_fops) {
		fput(f);
		return ERR_PTR(-EBADF);
	}
	*file = f;
	return f->private_data;
}

/**
 * ubdm_chan_init - make /dev/ubdmap appear
 *
 * Return: 0 or -errno.
 */
int ubdm_chan_init(void)
{
	return misc_register(&chan_misc);
}

/**
 * ubdm_chan_exit - and vanish; no channel is open then
 */
void ubdm_chan_exit(void)
{
	misc_deregister(&chan_misc);
}
