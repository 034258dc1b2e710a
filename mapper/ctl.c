// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * ctl.c - the control plane: requests to the driver's netlink family.
 *
 * The only file that knows libnl.  libnl's own error numbers lose the errno,
 * so the callbacks here keep it, and the driver's words (extended ack) too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/family.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include "libubdmap.h"

#define MSG_BYTES 8192 /* an image's path is half of it at most */

struct ubdm_ctl {
	struct nl_sock *sock;
	int family;
	char reason[256];
};

typedef int (*reply_fn)(void *arg, struct nlattr **attr);

/* One request under way. */
struct call {
	struct ubdm_ctl *ctl;
	reply_fn fn;
	void *arg;
	int ret;
	bool over;
};

/* --- errors ------------------------------------------------------------- */

static int errno_of(int nle)
{
	switch (-nle) {
	case NLE_SUCCESS:
		return 0;
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_OBJ_NOTFOUND:
		return -ENOENT;
	case NLE_PERM:
	case NLE_NOACCESS:
		return -EPERM;
	case NLE_AGAIN:
		return -EAGAIN;
	case NLE_PROTO_MISMATCH:
	case NLE_AF_NOSUPPORT:
		return -EPROTONOSUPPORT;
	default:
		return -EIO;
	}
}

/* The driver's own words follow the error, where it sent some. */
static void keep_reason(struct ubdm_ctl *ctl, struct nlmsgerr *e)
{
	struct nlmsghdr *h = (struct nlmsghdr *)((char *)e - NLMSG_HDRLEN);
	struct nlattr *a;
	size_t skip = sizeof(*e);
	int rest;

	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(h->nlmsg_flags & NLM_F_CAPPED))
		skip += NLMSG_ALIGN(e->msg.nlmsg_len) - sizeof(e->msg);
	rest = (int)h->nlmsg_len - NLMSG_HDRLEN - (int)skip;
	for (a = (struct nlattr *)((char *)e + skip); nla_ok(a, rest);
	     a = nla_next(a, &rest))
		if (nla_type(a) == NLMSGERR_ATTR_MSG)
			nla_strlcpy(ctl->reason, a, sizeof(ctl->reason));
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
	struct call *c = arg;

	(void)from;
	c->ret = e->error;
	c->over = true;
	keep_reason(c->ctl, e);
	return NL_STOP;
}

static int on_ack(struct nl_msg *msg, void *arg)
{
	struct call *c = arg;

	(void)msg;
	c->over = true;
	return NL_STOP;
}

static int on_finish(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);
	struct call *c = arg;
	int error;

	if (nlmsg_datalen(h) >= (int)sizeof(error) && !c->ret) {
		memcpy(&error, nlmsg_data(h), sizeof(error));
		if (error < 0)
			c->ret = error;
	}
	c->over = true;
	return NL_STOP;
}

static int on_valid(struct nl_msg *msg, void *arg)
{
	struct nlattr *attr[UBDM_A_MAX + 1];
	struct call *c = arg;
	int ret;

	if (!c->fn || c->ret < 0)
		return NL_OK;
	ret = genlmsg_parse(nlmsg_hdr(msg), 0, attr, UBDM_A_MAX, NULL);
	c->ret = ret ? -EPROTO : c->fn(c->arg, attr);
	return NL_OK;
}

/* --- requests ----------------------------------------------------------- */

static struct nl_msg *request(struct ubdm_ctl *ctl, int cmd, int flags)
{
	struct nl_msg *msg = nlmsg_alloc_size(MSG_BYTES);

	if (msg && !genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, ctl->family, 0,
				flags, cmd, UBDM_GENL_VERSION)) {
		nlmsg_free(msg);
		msg = NULL;
	}
	return msg;
}

/* Sends @msg, frees it, and takes the answers; @arg begins with a struct call. */
static int run(struct ubdm_ctl *ctl, struct nl_msg *msg, nl_recvmsg_msg_cb_t fn,
	       void *arg)
{
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	struct call *c = arg;
	int ret;

	c->ctl = ctl;
	ctl->reason[0] = '\0';
	if (!cb) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, c);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, c);
	nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_finish, c);
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, fn, arg);

	ret = nl_send_auto(ctl->sock, msg);
	nlmsg_free(msg);
	while (ret >= 0 && !c->over)
		ret = nl_recvmsgs(ctl->sock, cb);
	nl_cb_put(cb);
	return c->over || c->ret < 0 ? c->ret : errno_of(ret);
}

static int perform(struct ubdm_ctl *ctl, struct nl_msg *msg, reply_fn fn,
		   void *arg)
{
	struct call c = { .fn = fn, .arg = arg };

	return run(ctl, msg, on_valid, &c);
}

static int simple(struct ubdm_ctl *ctl, int cmd, uint32_t index, reply_fn fn,
		  void *arg)
{
	struct nl_msg *msg = request(ctl, cmd, 0);

	if (!msg)
		return -ENOMEM;
	if (nla_put_u32(msg, UBDM_A_INDEX, index)) {
		nlmsg_free(msg);
		return -ENOMEM;
	}
	return perform(ctl, msg, fn, arg);
}

static uint32_t u32_of(struct nlattr *a)
{
	return a && nla_len(a) >= 4 ? nla_get_u32(a) : 0;
}

static uint64_t u64_of(struct nlattr *a)
{
	return a && nla_len(a) >= 8 ? nla_get_u64(a) : 0;
}

static int take_index(void *arg, struct nlattr **attr)
{
	if (!attr[UBDM_A_INDEX])
		return -EPROTO;
	*(uint32_t *)arg = u32_of(attr[UBDM_A_INDEX]);
	return 0;
}

static int take_device(void *arg, struct nlattr **attr)
{
	struct ubdm_device *dev = arg;

	if (!attr[UBDM_A_INDEX])
		return -EPROTO;
	*dev = (struct ubdm_device){
		.index = u32_of(attr[UBDM_A_INDEX]),
		.state = u32_of(attr[UBDM_A_STATE]),
		.size = u64_of(attr[UBDM_A_SIZE]),
		.block_size = u32_of(attr[UBDM_A_BLOCK_SIZE]),
		.flags = u64_of(attr[UBDM_A_FLAGS]),
		.mapper_pid = u32_of(attr[UBDM_A_MAPPER_PID]),
		.owner_uid = u32_of(attr[UBDM_A_OWNER_UID]),
		.openers = u32_of(attr[UBDM_A_OPENERS]),
		.error = (int32_t)u32_of(attr[UBDM_A_ERROR]),
		.trouble = u32_of(attr[UBDM_A_TROUBLE]),
		.space_timeout = u32_of(attr[UBDM_A_SPACE_TIMEOUT]),
	};
	if (attr[UBDM_A_IDENT])
		nla_strlcpy(dev->ident, attr[UBDM_A_IDENT], sizeof(dev->ident));
	if (attr[UBDM_A_FORMAT])
		nla_strlcpy(dev->format, attr[UBDM_A_FORMAT],
			    sizeof(dev->format));
	return 0;
}

static int take_stats(void *arg, struct nlattr **attr)
{
	struct ubdm_stats *stats = arg;
	struct nlattr *a;
	int rest;

	if (!attr[UBDM_A_STATS])
		return -EPROTO;
	memset(stats, 0, sizeof(*stats));
	nla_for_each_nested(a, attr[UBDM_A_STATS], rest)
		if (nla_type(a) > UBDM_S_PAD && nla_type(a) <= UBDM_S_MAX)
			stats->v[nla_type(a)] = u64_of(a);
	return 0;
}

int ubdm_ctl_create(struct ubdm_ctl *ctl, const struct ubdm_create *c,
		    uint32_t *index)
{
	struct nl_msg *msg = request(ctl, UBDM_NL_CREATE, 0);

	if (!msg)
		return -ENOMEM;
	if (c->index >= 0)
		NLA_PUT_U32(msg, UBDM_A_INDEX, c->index);
	NLA_PUT_U32(msg, UBDM_A_CHANNEL_FD, c->channel);
	NLA_PUT_U64(msg, UBDM_A_SIZE, c->size);
	NLA_PUT_U32(msg, UBDM_A_BLOCK_SIZE, c->block_size);
	if (c->phys_block_size)
		NLA_PUT_U32(msg, UBDM_A_PHYS_BLOCK_SIZE, c->phys_block_size);
	if (c->io_opt)
		NLA_PUT_U32(msg, UBDM_A_IO_OPT, c->io_opt);
	NLA_PUT_U32(msg, UBDM_A_DISCARD_GRAN, c->discard_gran);
	NLA_PUT_U64(msg, UBDM_A_FLAGS, c->flags);
	if (c->max_extents)
		NLA_PUT_U64(msg, UBDM_A_MAX_EXTENTS, c->max_extents);
	if (c->orphan_timeout >= 0)
		NLA_PUT_U32(msg, UBDM_A_ORPHAN_TIMEOUT, c->orphan_timeout);
	if (c->space_timeout >= 0)
		NLA_PUT_U32(msg, UBDM_A_SPACE_TIMEOUT, c->space_timeout);
	if (c->ident)
		NLA_PUT_STRING(msg, UBDM_A_IDENT, c->ident);
	if (c->format)
		NLA_PUT_STRING(msg, UBDM_A_FORMAT, c->format);
	return perform(ctl, msg, take_index, index);

nla_put_failure:
	nlmsg_free(msg);
	return -ENOMEM;
}

int ubdm_ctl_attach(struct ubdm_ctl *ctl, int channel, uint32_t index,
		    struct ubdm_device *dev)
{
	struct nl_msg *msg = request(ctl, UBDM_NL_ATTACH, 0);

	if (!msg)
		return -ENOMEM;
	NLA_PUT_U32(msg, UBDM_A_CHANNEL_FD, channel);
	NLA_PUT_U32(msg, UBDM_A_INDEX, index);
	return perform(ctl, msg, take_device, dev);

nla_put_failure:
	nlmsg_free(msg);
	return -ENOMEM;
}

int ubdm_ctl_delete(struct ubdm_ctl *ctl, uint32_t index, bool force)
{
	struct nl_msg *msg = request(ctl, UBDM_NL_DELETE, 0);

	if (!msg)
		return -ENOMEM;
	NLA_PUT_U32(msg, UBDM_A_INDEX, index);
	if (force)
		NLA_PUT_FLAG(msg, UBDM_A_FORCE);
	return perform(ctl, msg, NULL, NULL);

nla_put_failure:
	nlmsg_free(msg);
	return -ENOMEM;
}

int ubdm_ctl_get(struct ubdm_ctl *ctl, uint32_t index, struct ubdm_device *dev)
{
	return simple(ctl, UBDM_NL_GET, index, take_device, dev);
}

int ubdm_ctl_stats(struct ubdm_ctl *ctl, uint32_t index,
		   struct ubdm_stats *stats)
{
	return simple(ctl, UBDM_NL_STATS, index, take_stats, stats);
}

/* --- dumps -------------------------------------------------------------- */

struct list_arg {
	int (*fn)(void *arg, const struct ubdm_device *dev);
	void *arg;
};

static int list_one(void *arg, struct nlattr **attr)
{
	struct list_arg *l = arg;
	struct ubdm_device dev;
	int ret = take_device(&dev, attr);

	return ret ? ret : l->fn(l->arg, &dev);
}

int ubdm_ctl_list(struct ubdm_ctl *ctl,
		  int (*fn)(void *arg, const struct ubdm_device *dev),
		  void *arg)
{
	struct list_arg l = { fn, arg };
	struct nl_msg *msg = request(ctl, UBDM_NL_GET, NLM_F_DUMP);

	return msg ? perform(ctl, msg, list_one, &l) : -ENOMEM;
}

struct extents_call {
	struct call call;
	int (*fn)(void *arg, const struct ubdm_extent *ext);
	void *arg;
};

/* A message holds as many extents as fit. */
static int on_extents(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);
	struct extents_call *x = arg;
	struct ubdm_extent ext;
	struct nlattr *a;
	int rest;

	nlmsg_for_each_attr(a, h, GENL_HDRLEN, rest) {
		if (nla_type(a) != UBDM_A_EXTENT || x->call.ret < 0)
			continue;
		if (nla_len(a) < (int)sizeof(ext)) {
			x->call.ret = -EPROTO;
			break;
		}
		memcpy(&ext, nla_data(a), sizeof(ext));
		x->call.ret = x->fn(x->arg, &ext);
	}
	return NL_OK;
}

int ubdm_ctl_extents(struct ubdm_ctl *ctl, uint32_t index,
		     int (*fn)(void *arg, const struct ubdm_extent *ext),
		     void *arg)
{
	struct extents_call x = { .fn = fn, .arg = arg };
	struct nl_msg *msg = request(ctl, UBDM_NL_EXTENTS, NLM_F_DUMP);

	if (!msg)
		return -ENOMEM;
	NLA_PUT_U32(msg, UBDM_A_INDEX, index);
	return run(ctl, msg, on_extents, &x);

nla_put_failure:
	nlmsg_free(msg);
	return -ENOMEM;
}

/* --- events ------------------------------------------------------------- */

struct event_arg {
	struct ubdm_event_info *ev;
	bool got;
};

static int on_event(struct nl_msg *msg, void *arg)
{
	struct genlmsghdr *g = nlmsg_data(nlmsg_hdr(msg));
	struct nlattr *attr[UBDM_A_MAX + 1];
	struct event_arg *e = arg;

	if (g->cmd != UBDM_NL_EVENT ||
	    genlmsg_parse(nlmsg_hdr(msg), 0, attr, UBDM_A_MAX, NULL))
		return NL_OK;
	*e->ev = (struct ubdm_event_info){
		.event = u32_of(attr[UBDM_A_EVENT]),
		.index = u32_of(attr[UBDM_A_INDEX]),
		.error = (int32_t)u32_of(attr[UBDM_A_ERROR]),
		.kind = u32_of(attr[UBDM_A_KIND]),
		.waited_ms = u32_of(attr[UBDM_A_WAITED]),
		.sector = u64_of(attr[UBDM_A_SECTOR]),
		.sectors = u64_of(attr[UBDM_A_SECTORS]),
	};
	e->got = true;
	return NL_OK;
}

static int any_seq(struct nl_msg *msg, void *arg)
{
	(void)msg;
	(void)arg;
	return NL_OK;
}

int ubdm_ctl_subscribe(struct ubdm_ctl *ctl)
{
	int group = genl_ctrl_resolve_grp(ctl->sock, UBDM_GENL_NAME,
					  UBDM_GENL_MCGRP);

	if (group < 0)
		return errno_of(group);
	if (setsockopt(nl_socket_get_fd(ctl->sock), SOL_NETLINK,
		       NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
		return -errno;
	return nl_socket_set_nonblocking(ctl->sock) ? -EIO : 0;
}

int ubdm_ctl_fd(const struct ubdm_ctl *ctl)
{
	return nl_socket_get_fd(ctl->sock);
}

int ubdm_ctl_event(struct ubdm_ctl *ctl, struct ubdm_event_info *ev)
{
	struct event_arg e = { .ev = ev };
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	int ret;

	if (!cb)
		return -ENOMEM;
	nl_cb_set(cb, NL_CB_SEQ_CHECK, NL_CB_CUSTOM, any_seq, NULL);
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_event, &e);
	do {
		errno = 0;
		ret = nl_recvmsgs(ctl->sock, cb);
	} while (ret >= 0 && !e.got);
	nl_cb_put(cb);
	if (e.got)
		return 1;
	if (ret == -NLE_AGAIN)
		return 0;
	return ret == -NLE_NOMEM ? -ENOBUFS : errno_of(ret);
}

/* --- connection --------------------------------------------------------- */

static int find_family(struct ubdm_ctl *ctl)
{
	struct genl_family *family;
	struct nl_cache *cache;
	int ret;

	ret = genl_ctrl_alloc_cache(ctl->sock, &cache);
	if (ret)
		return errno_of(ret);
	family = genl_ctrl_search_by_name(cache, UBDM_GENL_NAME);
	if (!family) {
		ret = -ENOENT;
	} else if (genl_family_get_version(family) != UBDM_GENL_VERSION) {
		ret = -EPROTO;
	} else {
		ctl->family = genl_family_get_id(family);
		ret = 0;
	}
	if (family)
		genl_family_put(family);
	nl_cache_free(cache);
	return ret;
}

int ubdm_ctl_open(struct ubdm_ctl **out)
{
	struct ubdm_ctl *ctl = calloc(1, sizeof(*ctl));
	int one = 1, ret = -ENOMEM;

	*out = NULL;
	if (!ctl)
		return -ENOMEM;
	ctl->sock = nl_socket_alloc();
	if (!ctl->sock)
		goto err_free;
	ret = errno_of(genl_connect(ctl->sock));
	if (ret)
		goto err_sock;
	setsockopt(nl_socket_get_fd(ctl->sock), SOL_NETLINK, NETLINK_EXT_ACK,
		   &one, sizeof(one));
	setsockopt(nl_socket_get_fd(ctl->sock), SOL_NETLINK, NETLINK_CAP_ACK,
		   &one, sizeof(one));
	ret = find_family(ctl);
	if (ret)
		goto err_sock;
	*out = ctl;
	return 0;

err_sock:
	nl_socket_free(ctl->sock);
err_free:
	free(ctl);
	return ret;
}

void ubdm_ctl_close(struct ubdm_ctl *ctl)
{
	if (!ctl)
		return;
	nl_socket_free(ctl->sock);
	free(ctl);
}

const char *ubdm_ctl_reason(const struct ubdm_ctl *ctl)
{
	return ctl->reason;
}
