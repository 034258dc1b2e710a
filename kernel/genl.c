// SPDX-License-Identifier: GPL-2.0-only
/*
 * genl.c - the control plane over generic netlink.
 *
 * Handlers run in parallel and wait for nothing: what may wait is queued
 * (dev.c), and an event tells its end.
 */
#include "genl.h"
#include "chan.h"

#include <linux/file.h>
#include <linux/slab.h>
#include <net/genetlink.h>
#include <net/sock.h>

#define IDENT_MAX	4095
#define FORMAT_MAX	15
#define INDEX_MAX	0xfffff		/* the block layer's minors */
#define BLOCK_MAX	BIT(21)	/* a cluster */
#define ORPHAN_MAX	86400
#define SPACE_TIMEOUT	60		/* seconds */
#define EXTENTS_MAX	BIT_ULL(26)	/* some 3 GiB */

static struct genl_family family;

static const struct nla_policy policy[UBDM_A_MAX + 1] = {
	[UBDM_A_INDEX]		= { .type = NLA_U32 },
	[UBDM_A_CHANNEL_FD]	= { .type = NLA_U32 },
	[UBDM_A_SIZE]		= { .type = NLA_U64 },
	[UBDM_A_BLOCK_SIZE]	= NLA_POLICY_RANGE(NLA_U32, 512, 4096),
	[UBDM_A_PHYS_BLOCK_SIZE] = { .type = NLA_U32 },
	[UBDM_A_IO_OPT]		= { .type = NLA_U32 },
	[UBDM_A_DISCARD_GRAN]	= { .type = NLA_U32 },
	[UBDM_A_FLAGS]		= NLA_POLICY_MASK(NLA_U64, UBDM_DEV_F_RO |
							   UBDM_DEV_F_PARTSCAN),
	[UBDM_A_IDENT]		= { .type = NLA_NUL_STRING, .len = IDENT_MAX },
	[UBDM_A_FORMAT]		= { .type = NLA_NUL_STRING, .len = FORMAT_MAX },
	[UBDM_A_FORCE]		= { .type = NLA_FLAG },
	[UBDM_A_MAX_EXTENTS]	= { .type = NLA_U64 },
	[UBDM_A_ORPHAN_TIMEOUT]	= { .type = NLA_U32 },
	[UBDM_A_SPACE_TIMEOUT]	= { .type = NLA_U32 },
};

static bool is_admin(struct sk_buff *skb)
{
	return netlink_capable(skb, CAP_SYS_ADMIN);
}

/*
 * The owner is who sends it and who made the socket: a program with more rights than
 * its caller may be made to write what it is given to a socket that it was given.
 */
static bool may_control(struct ubdm_dev *dev, struct sk_buff *skb)
{
	const struct cred *opener = NETLINK_CB(skb).sk->sk_socket->file->f_cred;

	return is_admin(skb) || (ubdm_dev_is_owner(dev, current_cred()) &&
				 ubdm_dev_is_owner(dev, opener));
}

/* The device a request names, for whoever may only look at it, too. */
static struct ubdm_dev *see_dev(struct genl_info *info)
{
	struct ubdm_dev *dev;

	if (GENL_REQ_ATTR_CHECK(info, UBDM_A_INDEX))
		return ERR_PTR(-EINVAL);
	dev = ubdm_dev_find(nla_get_u32(info->attrs[UBDM_A_INDEX]));
	if (dev)
		return dev;
	NL_SET_ERR_MSG(info->extack, "no such device");
	return ERR_PTR(-ENODEV);
}

/* The same, if the caller may control it. */
static struct ubdm_dev *get_dev(struct sk_buff *skb, struct genl_info *info)
{
	struct ubdm_dev *dev = see_dev(info);

	if (!IS_ERR(dev) && !may_control(dev, skb)) {
		ubdm_dev_put(dev);
		NL_SET_ERR_MSG(info->extack, "the device is somebody else's");
		return ERR_PTR(-EPERM);
	}
	return dev;
}

/* Milliseconds: that the oldest waits, or that the longest took. */
static u64 wait_ms(struct ubdm_dev *dev, bool longest)
{
	unsigned long since, t = 0;

	spin_lock_irq(&dev->ftab.lock);
	if (longest)
		t = dev->ftab.longest;
	else if (ubdm_ftab_oldest(&dev->ftab, &since))
		t = jiffies - since;
	spin_unlock_irq(&dev->ftab.lock);
	return jiffies_to_msecs(t);
}

static int put_stats(struct sk_buff *msg, struct ubdm_dev *dev)
{
	struct nlattr *nest = nla_nest_start(msg, UBDM_A_STATS);
	unsigned int n;
	int i;

	if (!nest)
		return -EMSGSIZE;
	for (i = UBDM_S_PAD + 1; i < __UBDM_S_MAX; i++) {
		u64 v;

		switch (i) {
		case UBDM_S_EXTENTS:
			v = READ_ONCE(dev->tlb.nr);
			break;
		case UBDM_S_EVICTED:
			v = READ_ONCE(dev->tlb.evicted);
			break;
		case UBDM_S_PARKED:
			v = READ_ONCE(dev->ftab.nr_parked);
			break;
		case UBDM_S_BACKINGS:
			/* Not cmd_mutex: a mapper may be at it for long. */
			spin_lock_irq(&dev->ftab.lock);
			for (v = 0, n = 0; n < dev->backing_end; n++)
				v += !!dev->backing[n];
			spin_unlock_irq(&dev->ftab.lock);
			break;
		case UBDM_S_MAX_TID:
			v = READ_ONCE(dev->tlb.max_tid);
			break;
		case UBDM_S_COMMITTED_TID:
			v = READ_ONCE(dev->tlb.committed_tid);
			break;
		case UBDM_S_WAITING_MS:
		case UBDM_S_LONGEST_MS:
			v = wait_ms(dev, i == UBDM_S_LONGEST_MS);
			break;
		default:
			v = ubdm_stats_sum(dev->stats, i);
		}
		if (nla_put_u64_64bit(msg, i, v, UBDM_S_PAD))
			return -EMSGSIZE;
	}
	nla_nest_end(msg, nest);
	return 0;
}

static int put_dev(struct sk_buff *msg, struct ubdm_dev *dev)
{
	struct ubdm_fault desc;
	u32 openers = dev->disk_added ? disk_openers(dev->disk) : 0;

	if (nla_put_u32(msg, UBDM_A_INDEX, dev->index) ||
	    nla_put_u64_64bit(msg, UBDM_A_SIZE, dev->size, UBDM_A_PAD) ||
	    nla_put_u32(msg, UBDM_A_BLOCK_SIZE, dev->block_size) ||
	    nla_put_u64_64bit(msg, UBDM_A_FLAGS, dev->flags, UBDM_A_PAD) ||
	    nla_put_u32(msg, UBDM_A_STATE, READ_ONCE(dev->state)) ||
	    nla_put_u32(msg, UBDM_A_MAPPER_PID, READ_ONCE(dev->mapper_pid)) ||
	    nla_put_u32(msg, UBDM_A_OWNER_UID,
			from_kuid_munged(current_user_ns(), dev->owner->euid)) ||
	    nla_put_u32(msg, UBDM_A_OPENERS, openers) ||
	    nla_put_s32(msg, UBDM_A_ERROR, READ_ONCE(dev->close_error)) ||
	    nla_put_u32(msg, UBDM_A_TROUBLE, ubdm_dev_trouble(dev, &desc)) ||
	    nla_put_u32(msg, UBDM_A_SPACE_TIMEOUT, dev->space_timeout) ||
	    (dev->ident && nla_put_string(msg, UBDM_A_IDENT, dev->ident)) ||
	    (dev->format && nla_put_string(msg, UBDM_A_FORMAT, dev->format)))
		return -EMSGSIZE;
	return 0;
}

/* Answer a request with one message that fill() completes. */
static int reply(struct genl_info *info, u8 cmd, struct ubdm_dev *dev,
		 int (*fill)(struct sk_buff *msg, struct ubdm_dev *dev))
{
	struct sk_buff *msg = genlmsg_new(GENLMSG_DEFAULT_SIZE + IDENT_MAX,
					  GFP_KERNEL);
	void *head;

	if (!msg)
		return -ENOMEM;
	head = genlmsg_put_reply(msg, info, &family, 0, cmd);
	if (!head || fill(msg, dev)) {
		nlmsg_free(msg);
		return -EMSGSIZE;
	}
	genlmsg_end(msg, head);
	return genlmsg_reply(msg, info);
}

static u32 u32_or(struct genl_info *info, int attr, u32 otherwise)
{
	return info->attrs[attr] ? nla_get_u32(info->attrs[attr]) : otherwise;
}

static u64 u64_or(struct genl_info *info, int attr, u64 otherwise)
{
	return info->attrs[attr] ? nla_get_u64(info->attrs[attr]) : otherwise;
}

static int get_args(struct genl_info *info, struct ubdm_dev_args *a)
{
	if (GENL_REQ_ATTR_CHECK(info, UBDM_A_CHANNEL_FD) ||
	    GENL_REQ_ATTR_CHECK(info, UBDM_A_SIZE))
		return -EINVAL;
	a->index = (int)u32_or(info, UBDM_A_INDEX, U32_MAX);
	a->size = u64_or(info, UBDM_A_SIZE, 0);
	a->block_size = u32_or(info, UBDM_A_BLOCK_SIZE, 512);
	a->phys_block_size = u32_or(info, UBDM_A_PHYS_BLOCK_SIZE, a->block_size);
	a->io_opt = u32_or(info, UBDM_A_IO_OPT, 0);
	a->discard_gran = u32_or(info, UBDM_A_DISCARD_GRAN, 0);
	a->flags = u64_or(info, UBDM_A_FLAGS, 0);
	a->max_extents = u64_or(info, UBDM_A_MAX_EXTENTS, 0);
	a->orphan_timeout = u32_or(info, UBDM_A_ORPHAN_TIMEOUT, 0);
	a->space_timeout = u32_or(info, UBDM_A_SPACE_TIMEOUT, SPACE_TIMEOUT);
	if ((info->attrs[UBDM_A_INDEX] && (u32)a->index > INDEX_MAX) ||
	    a->orphan_timeout > ORPHAN_MAX || a->space_timeout > ORPHAN_MAX) {
		NL_SET_ERR_MSG(info->extack, "index or timeout out of range");
		return -EINVAL;
	}
	if (a->phys_block_size > BLOCK_MAX || a->io_opt > BLOCK_MAX ||
	    a->discard_gran > BLOCK_MAX || !is_power_of_2(a->block_size) ||
	    !is_power_of_2(a->phys_block_size) ||
	    a->phys_block_size < a->block_size ||
	    a->io_opt & (a->block_size - 1) ||
	    (a->discard_gran && (!is_power_of_2(a->discard_gran) ||
				 a->discard_gran < a->block_size))) {
		NL_SET_ERR_MSG(info->extack, "block sizes do not fit together");
		return -EINVAL;
	}
	if (a->max_extents > EXTENTS_MAX) {
		NL_SET_ERR_MSG(info->extack, "more extents than can be kept");
		return -EINVAL;
	}
	if (!a->size || a->size > LLONG_MAX >> SECTOR_SHIFT ||
	    a->size & ((a->block_size >> SECTOR_SHIFT) - 1)) {
		NL_SET_ERR_MSG(info->extack, "size is not a number of blocks");
		return -EINVAL;
	}
	return 0;
}

static int put_index(struct sk_buff *msg, struct ubdm_dev *dev)
{
	return nla_put_u32(msg, UBDM_A_INDEX, dev->index);
}

static int do_create(struct sk_buff *skb, struct genl_info *info)
{
	struct ubdm_dev_args args = {};
	struct ubdm_chan *chan;
	struct ubdm_dev *dev;
	struct file *file;
	int ret;

	ret = get_args(info, &args);
	if (ret)
		return ret;
	chan = ubdm_chan_from_fd(nla_get_u32(info->attrs[UBDM_A_CHANNEL_FD]), &file);
	if (IS_ERR(chan)) {
		NL_SET_ERR_MSG(info->extack, "not a descriptor of /dev/ubdmap");
		return PTR_ERR(chan);
	}
	ret = -ENOMEM;
	if (info->attrs[UBDM_A_IDENT]) {
		args.ident = nla_strdup(info->attrs[UBDM_A_IDENT], GFP_KERNEL);
		if (!args.ident)
			goto out;
	}
	if (info->attrs[UBDM_A_FORMAT]) {
		args.format = nla_strdup(info->attrs[UBDM_A_FORMAT], GFP_KERNEL);
		if (!args.format)
			goto out;
	}
	ret = ubdm_dev_create(chan, &args);
	if (ret < 0)
		goto out;
	memset(&args, 0, sizeof(args));	/* the strings are the device's now */
	/* The channel holds the device; it cannot go while we hold the file. */
	dev = chan->dev;
	ret = reply(info, UBDM_NL_CREATE, dev, put_index);
out:
	kfree(args.ident);
	kfree(args.format);
	fput(file);
	return ret;
}

static int do_attach(struct sk_buff *skb, struct genl_info *info)
{
	struct ubdm_chan *chan;
	struct ubdm_dev *dev;
	struct file *file;
	int ret;

	if (GENL_REQ_ATTR_CHECK(info, UBDM_A_CHANNEL_FD))
		return -EINVAL;
	dev = get_dev(skb, info);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	chan = ubdm_chan_from_fd(nla_get_u32(info->attrs[UBDM_A_CHANNEL_FD]), &file);
	if (IS_ERR(chan)) {
		NL_SET_ERR_MSG(info->extack, "not a descriptor of /dev/ubdmap");
		ret = PTR_ERR(chan);
		goto put;
	}
	ret = ubdm_dev_attach(chan, dev);
	if (ret)
		NL_SET_ERR_MSG(info->extack, "the device has a mapper");
	else
		ret = reply(info, UBDM_NL_ATTACH, dev, put_dev);
	fput(file);
put:
	ubdm_dev_put(dev);
	return ret;
}

static int do_delete(struct sk_buff *skb, struct genl_info *info)
{
	struct ubdm_dev *dev = get_dev(skb, info);
	int ret;

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	ret = ubdm_dev_delete(dev, nla_get_flag(info->attrs[UBDM_A_FORCE]));
	if (ret == -EBUSY)
		NL_SET_ERR_MSG(info->extack, "the device is open");
	ubdm_dev_put(dev);
	return ret;
}

static int reply_about(struct genl_info *info, u8 cmd,
		       int (*fill)(struct sk_buff *, struct ubdm_dev *))
{
	struct ubdm_dev *dev = see_dev(info);
	int ret;

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	ret = reply(info, cmd, dev, fill);
	ubdm_dev_put(dev);
	return ret;
}

static int do_get(struct sk_buff *skb, struct genl_info *info)
{
	return reply_about(info, UBDM_NL_GET, put_dev);
}

static int dump_get(struct sk_buff *msg, struct netlink_callback *cb)
{
	int index = cb->args[0];
	struct ubdm_dev *dev;
	int err = 0;
	void *head;

	while ((dev = ubdm_dev_find_from(index))) {
		head = genlmsg_put(msg, NETLINK_CB(cb->skb).portid,
				   cb->nlh->nlmsg_seq, &family, NLM_F_MULTI,
				   UBDM_NL_GET);
		if (!head || put_dev(msg, dev)) {
			if (head)
				genlmsg_cancel(msg, head);
			ubdm_dev_put(dev);
			err = -EMSGSIZE;
			break;
		}
		genlmsg_end(msg, head);
		index = dev->index + 1;
		ubdm_dev_put(dev);
	}
	cb->args[0] = index;
	return err && !msg->len ? err : msg->len;
}

static int do_stats(struct sk_buff *skb, struct genl_info *info)
{
	return reply_about(info, UBDM_NL_STATS, put_stats);
}

/* A few extents a message; args[0]: the next lba, args[1]: at the end. */
static int dump_extents(struct sk_buff *msg, struct netlink_callback *cb)
{
	const struct genl_info *info = genl_info_dump(cb);
	struct ubdm_extent ext[32];
	unsigned int n, i;
	struct ubdm_dev *dev;
	u64 lba = cb->args[0];
	void *head;

	if (!info->attrs[UBDM_A_INDEX])
		return -EINVAL;
	if (cb->args[1])
		return 0;
	dev = ubdm_dev_find(nla_get_u32(info->attrs[UBDM_A_INDEX]));
	if (!dev)
		return -ENODEV;
	if (!may_control(dev, cb->skb)) {
		ubdm_dev_put(dev);
		return -EPERM;
	}
	n = ubdm_tlb_dump(&dev->tlb, &lba, false, ext, ARRAY_SIZE(ext));
	ubdm_dev_put(dev);
	head = genlmsg_put(msg, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
			   &family, NLM_F_MULTI, UBDM_NL_EXTENTS);
	if (!head)
		return -EMSGSIZE;
	for (i = 0; i < n; i++) {
		if (nla_put(msg, UBDM_A_EXTENT, sizeof(ext[i]), &ext[i])) {
			lba = ext[i].lba;
			break;
		}
	}
	genlmsg_end(msg, head);
	cb->args[0] = lba;
	cb->args[1] = lba == U64_MAX;
	return msg->len;
}

static const struct genl_ops ops[] = {
	{ .cmd = UBDM_NL_CREATE, .doit = do_create },
	{ .cmd = UBDM_NL_ATTACH, .doit = do_attach },
	{ .cmd = UBDM_NL_DELETE, .doit = do_delete },
	{ .cmd = UBDM_NL_GET, .doit = do_get, .dumpit = dump_get },
	{ .cmd = UBDM_NL_STATS, .doit = do_stats },
	{ .cmd = UBDM_NL_EXTENTS, .dumpit = dump_extents },
};

static const struct genl_multicast_group groups[] = {
	{ .name = UBDM_GENL_MCGRP, .flags = GENL_MCAST_CAP_SYS_ADMIN },
};

static struct genl_family family __ro_after_init = {
	.name		= UBDM_GENL_NAME,
	.version	= UBDM_GENL_VERSION,
	.maxattr	= UBDM_A_MAX,
	.policy		= policy,
	.module		= THIS_MODULE,
	.ops		= ops,
	.n_ops		= ARRAY_SIZE(ops),
	.mcgrps		= groups,
	.n_mcgrps	= ARRAY_SIZE(groups),
	.resv_start_op	= __UBDM_NL_MAX,
	.netnsok	= true,
	.parallel_ops	= true,
};

static int put_fault(struct sk_buff *msg, const struct ubdm_fault *f, u32 ms)
{
	if (nla_put_u64_64bit(msg, UBDM_A_SECTOR, f->want_lba, UBDM_A_PAD) ||
	    nla_put_u64_64bit(msg, UBDM_A_SECTORS, f->want_len, UBDM_A_PAD) ||
	    nla_put_u32(msg, UBDM_A_KIND, f->kind) ||
	    nla_put_u32(msg, UBDM_A_WAITED, ms))
		return -EMSGSIZE;
	return 0;
}

/**
 * ubdm_genl_event - tell those who listen
 * @dev: the device
 * @event: enum ubdm_event
 * @error: -errno that goes with it, or 0
 *
 * Context: process.
 */
void ubdm_genl_event(struct ubdm_dev *dev, u32 event, int error)
{
	ubdm_genl_event_fault(dev, event, error, NULL, 0);
}

/**
 * ubdm_genl_event_fault - tell those who listen, of a fault
 * @dev: the device
 * @event: enum ubdm_event
 * @error: -errno that goes with it, or 0
 * @fault: which, or NULL
 * @ms: that it has waited
 *
 * Context: process.
 */
void ubdm_genl_event_fault(struct ubdm_dev *dev, u32 event, int error,
			   const struct ubdm_fault *fault, u32 ms)
{
	struct sk_buff *msg = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_NOIO);
	void *head;

	if (!msg)
		return;
	head = genlmsg_put(msg, 0, 0, &family, 0, UBDM_NL_EVENT);
	if (!head || nla_put_u32(msg, UBDM_A_EVENT, event) ||
	    nla_put_u32(msg, UBDM_A_INDEX, dev->index) ||
	    nla_put_u32(msg, UBDM_A_STATE, READ_ONCE(dev->state)) ||
	    (error && nla_put_s32(msg, UBDM_A_ERROR, error)) ||
	    (fault && put_fault(msg, fault, ms))) {
		nlmsg_free(msg);
		return;
	}
	genlmsg_end(msg, head);
	genlmsg_multicast_allns(&family, msg, 0, 0);
}

/**
 * ubdm_genl_init - register the family
 *
 * Return: 0 or -errno.
 */
int ubdm_genl_init(void)
{
	return genl_register_family(&family);
}

/**
 * ubdm_genl_exit - and take it back
 */
void ubdm_genl_exit(void)
{
	genl_unregister_family(&family);
}
