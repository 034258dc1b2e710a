// SPDX-License-Identifier: GPL-2.0-only
/*
 * mapper_start.c - from an image or an orphan to a device that is served.
 *
 * Where it fails it undoes what it did, tells why, and the process ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "harden.h"
#include "keeper.h"
#include "mapper_process.h"

#define NODE_WAIT_MS 10000
#define UNDO_WAIT_MS 10000
#define VACANT_WAIT_MS 10000
#define VACANT_POLL_MS 2
#define ROOM_WAIT_MS 30000
#define ROOM_PATIENCE_MS 5000 /* then it is killed */

static int open_channel(struct mapper_process *p)
{
	p->channel = open(UBDM_CHANNEL_PATH, O_RDWR | O_CLOEXEC);
	if (p->channel >= 0)
		return EXIT_OK;
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return tell_failure(p, EXIT_DRIVER, "%s", driver_missing());
	case EACCES:
	case EPERM:
		return tell_failure(p, EXIT_PERM,
				    UBDM_CHANNEL_PATH
				    ": no permission; run as root");
	default:
		return tell_failure(p, EXIT_FAIL, UBDM_CHANNEL_PATH ": %s",
				    strerror(errno));
	}
}

static int open_ctl(struct mapper_process *p, struct ubdm_ctl **ctl)
{
	int ret = ubdm_ctl_open(ctl);

	switch (ret) {
	case 0:
		return EXIT_OK;
	case -ENOENT:
		return tell_failure(p, EXIT_DRIVER, "%s", driver_missing());
	case -EPROTO:
		return tell_failure(
			p, EXIT_DRIVER,
			"the loaded driver is of another version; run: modprobe -r ubdmap && modprobe ubdmap");
	default:
		return tell_failure(p, exit_status_of(ret), "netlink: %s",
				    strerror(-ret));
	}
}

/* What the driver said, or the errno's name. */
static const char *why(const struct ubdm_ctl *ctl, int error)
{
	const char *reason = ubdm_ctl_reason(ctl);

	return reason[0] ? reason : strerror(-error);
}

static int fill_create(struct mapper_process *p, struct ubdm_create *c,
		       const struct ubdm_image_info *info)
{
	uint32_t bs = p->opt.block_size ? p->opt.block_size : info->block_size;

	if (!info->size)
		return tell_failure(
			p, EXIT_FAIL,
			"%s: empty, there is nothing to serve; give it a size first: qemu-img resize",
			p->opt.image);
	if (bs < info->block_size)
		return tell_failure(
			p, EXIT_FAIL,
			"%s: lies on storage with sectors of %u bytes, smaller ones are not possible; leave out -b %u",
			p->opt.image, info->block_size, bs);

	*c = (struct ubdm_create){
		.channel = p->channel,
		.index = -1,
		.size = info->size,
		.block_size = bs,
		.phys_block_size =
			info->granule_bytes >= 4096 || bs == 4096 ? 4096 : bs,
		.io_opt = info->granule_bytes > 4096 ? info->granule_bytes : 0,
		.discard_gran = info->discard_gran,
		.flags = (info->read_only ? UBDM_DEV_F_RO : 0) |
			 (p->opt.partscan ? UBDM_DEV_F_PARTSCAN : 0),
		.orphan_timeout = p->opt.orphan_timeout,
		.space_timeout = p->opt.space_timeout,
		.ident = p->opt.image,
		.format = info->format,
	};
	return EXIT_OK;
}

/* When we end, whoever started us may use the image in another way. */
static void undo_create(struct mapper_process *p, struct ubdm_ctl *ctl)
{
	struct ubdm_device dev;
	bool dying = false;

	ubdm_ctl_delete(ctl, p->index, true);
	ubdm_mapper_abort(p->m);
	close(p->channel);
	for (int ms = 0; ms < UNDO_WAIT_MS; ms += VACANT_POLL_MS) {
		if (ubdm_ctl_get(ctl, p->index, &dev))
			return;
		/* Another one may have its number by then. */
		if (dying && dev.state != UBDM_STATE_DYING)
			return;
		dying = dev.state == UBDM_STATE_DYING;
		poll(NULL, 0, VACANT_POLL_MS);
	}
}

/* udev is not waited for: devtmpfs makes the node. */
static int wait_for_node(struct mapper_process *p)
{
	for (int ms = 0; ms < NODE_WAIT_MS; ms += 10) {
		if (device_node_ready(p->index))
			return 0;
		mapper_turn(p, 10);
		if (p->gone)
			return p->gone;
	}
	return -ETIMEDOUT;
}

static int serve_new(struct mapper_process *p, struct ubdm_ctl *ctl,
		     const struct ubdm_create *c)
{
	struct ubdm_err err = { .msg = "" };
	int ret;

	ret = ubdm_ctl_create(ctl, c, &p->index);
	if (ret)
		return tell_failure(p, exit_status_of(ret),
				    "%s: the driver made no device: %s",
				    p->opt.image, why(ctl, ret));
	ret = ubdm_mapper_serve(p->m, p->channel, c->block_size, &err);
	if (!ret) {
		ret = wait_for_node(p);
		p->disk = device_disk(p->index);
		snprintf(
			err.msg, sizeof(err.msg),
			"/dev/ubdmap%u does not appear; is devtmpfs mounted on /dev?",
			p->index);
	}
	if (!ret) {
		ret = mapper_start_back(p);
		snprintf(err.msg, sizeof(err.msg), "no thread: %s",
			 strerror(-ret));
	}
	if (!ret && p->opt.detach) {
		ret = mapper_detach(p);
		snprintf(err.msg, sizeof(err.msg), "%.4095s: %.6000s",
			 p->opt.image, p->err.msg);
	}
	if (!ret)
		return EXIT_OK;
	undo_create(p, ctl);
	return tell_failure(p, exit_status_of(ret), "%s", err.msg);
}

int mapper_begin_new(struct mapper_process *p)
{
	struct ubdm_err err = { .msg = "" };
	struct ubdm_image image = {
		.path = p->opt.image,
		.format = p->opt.format,
		.read_only = p->opt.read_only,
		.cache_bytes = p->opt.cache_bytes,
		.block_size = p->opt.block_size,
	};
	struct ubdm_image_info info;
	struct ubdm_create c;
	struct ubdm_ctl *ctl;
	int ret;

	ret = ubdm_mapper_open(&p->m, &image, &mapper_ops, p, &err);
	if (ret)
		return tell_failure(p, exit_status_of(ret), "%s", err.msg);
	ubdm_mapper_info(p->m, &info);
	tell_warning(p, info.warning);
	stay_in_memory();

	ret = open_channel(p);
	if (ret)
		return ret;
	ret = fill_create(p, &c, &info);
	if (!ret)
		ret = open_ctl(p, &ctl);
	if (ret)
		return ret;
	ret = serve_new(p, ctl, &c);
	ubdm_ctl_close(ctl);
	return ret;
}

static int tell_not_attached(const struct mapper_process *p,
			     const struct ubdm_ctl *ctl, int ret)
{
	if (ret != -EBUSY)
		return tell_failure(p, exit_status_of(ret), "%s: %s",
				    p->opt.attach, why(ctl, ret));
	/* Who comes after a mapper need not be the one that replaces it. */
	if (p->after.pid)
		return EXIT_BUSY;
	return tell_failure(p, EXIT_BUSY, "%s: has a mapper; nothing to do",
			    p->opt.attach);
}

static int serve_attached(struct mapper_process *p,
			  const struct ubdm_device *dev)
{
	struct ubdm_err err = { .msg = "" };
	int ret;

	p->disk = device_disk(p->index);
	ret = ubdm_mapper_takeover(&p->m, p->channel, dev, p->opt.cache_bytes,
				   &mapper_ops, p, &err);
	if (!ret)
		ret = mapper_start_back(p);
	if (ret)
		return tell_failure(p, exit_status_of(ret), "%s: %s",
				    p->opt.attach, err.msg);
	return EXIT_OK;
}

static int attach(struct mapper_process *p, struct ubdm_ctl *ctl)
{
	struct ubdm_device dev;
	int ret = ubdm_ctl_attach(ctl, p->channel, p->index, &dev);

	return ret ? tell_not_attached(p, ctl, ret) : serve_attached(p, &dev);
}

/*
 * The kernel sees the end of a mapper a moment after its parent does, when io_uring
 * has let go of the channel.  Returns an exit status: EXIT_OK once the device
 * has no mapper, EXIT_NOT_NEEDED when it is gone or somebody else serves it.
 */
static int wait_vacant(struct mapper_process *p, struct ubdm_ctl *ctl)
{
	struct ubdm_device dev;

	for (int ms = 0; ms < VACANT_WAIT_MS; ms += VACANT_POLL_MS) {
		int ret = ubdm_ctl_get(ctl, p->index, &dev);

		if (ret == -ENODEV)
			return EXIT_NOT_NEEDED;
		if (ret)
			return tell_failure(p, exit_status_of(ret), "%s",
					    why(ctl, ret));
		if (dev.state == UBDM_STATE_DETACHED)
			return EXIT_NOT_NEEDED;
		if (dev.state == UBDM_STATE_ORPHANED && !dev.mapper_pid &&
		    ms >= p->after.patience_ms)
			return EXIT_OK;
		/* Not one that is still trying to: it may fail. */
		if ((dev.state == UBDM_STATE_LIVE ||
		     dev.state == UBDM_STATE_FAILED) &&
		    dev.mapper_pid && dev.mapper_pid != (uint32_t)p->after.pid)
			return EXIT_NOT_NEEDED;
		poll(NULL, 0, VACANT_POLL_MS);
	}
	return tell_failure(p, EXIT_FAIL, "the old mapper does not let go");
}

static bool is_served(const struct ubdm_device *dev)
{
	return dev->mapper_pid && (dev->state == UBDM_STATE_LIVE ||
				   dev->state == UBDM_STATE_FAILED);
}

/* A mapper that is asked to go.  Its number may be another process's by then. */
struct old_mapper {
	uint32_t pid;
	int fd;
	int asked_ms; /* when it was */
	bool killed;
};

static void process_name(uint32_t pid, char name[16])
{
	char path[32];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	name[0] = '\0';
	f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(name, 16, f))
		name[strcspn(name, "\n")] = '\0';
	fclose(f);
}

/*
 * The mapper that serves now makes room when it is told SIGUSR1, which would end
 * another program that serves by libubdmap.
 */
static int ask_for_room(struct mapper_process *p, struct ubdm_ctl *ctl,
			struct old_mapper *old, uint32_t pid)
{
	struct ubdm_device dev;
	char name[16];

	if (old->fd >= 0)
		close(old->fd);
	old->pid = 0;
	old->killed = false;
	old->fd = pidfd_open(pid, 0);
	if (old->fd < 0)
		return EXIT_OK; /* it has gone by itself */
	process_name(pid, name);
	/* If it is still the one, then what we have opened is it, too. */
	if (ubdm_ctl_get(ctl, p->index, &dev) || dev.mapper_pid != pid)
		return EXIT_OK;
	if (strcmp(name, MAPPER_NAME))
		return tell_failure(
			p, EXIT_FAIL,
			"%s: process %u (%s) serves it, which is no mapper of ubdmap's; end it, then: ubdmap attach %s",
			p->opt.attach, pid, name, p->opt.attach);
	old->pid = pid;
	if (!pidfd_send_signal(old->fd, SIGUSR1, NULL, 0) || errno == ESRCH)
		return EXIT_OK;
	return tell_failure(p, EXIT_PERM, "%s: its mapper %u: %s",
			    p->opt.attach, pid, strerror(errno));
}

/* The driver knows it only of those since a mapper attached, which may not be us. */
static void note_pause(struct mapper_process *p, struct ubdm_ctl *ctl)
{
	struct ubdm_stats s = { .v = { 0 } };

	if (!ubdm_ctl_stats(ctl, p->index, &s) &&
	    s.v[UBDM_S_WAITING_MS] > p->pause_ms)
		p->pause_ms = s.v[UBDM_S_WAITING_MS];
}

/*
 * It commits first, which takes a moment; if it is stopped or hangs it is killed,
 * which is as safe.  Not while its device is being deleted: then it completes the
 * image, which may take long, and without it the deletion would fail.
 *
 * Between its end and our attaching another one may have come: one that was killed
 * has a keeper, which starts the next at once.  That one is asked in its turn.
 */
static int attach_in_place(struct mapper_process *p, struct ubdm_ctl *ctl,
			   struct old_mapper *old, struct ubdm_device *dev)
{
	for (int ms = 0; ms < ROOM_WAIT_MS; ms += VACANT_POLL_MS) {
		int ret = ubdm_ctl_get(ctl, p->index, dev);

		if (ret)
			return tell_failure(p, exit_status_of(ret), "%s: %s",
					    p->opt.attach, why(ctl, ret));
		note_pause(p, ctl);
		if (dev->state == UBDM_STATE_DETACHED && !p->opt.detach)
			return tell_failure(
				p, EXIT_BUSY,
				"%s: has been detached meanwhile; it needs no mapper",
				p->opt.attach);
		if (!dev->mapper_pid && dev->state != UBDM_STATE_DYING) {
			ret = ubdm_ctl_attach(ctl, p->channel, p->index, dev);
			if (ret != -EBUSY)
				return ret ? tell_not_attached(p, ctl, ret) :
					     EXIT_OK;
		} else if (old->pid != dev->mapper_pid && is_served(dev)) {
			ret = ask_for_room(p, ctl, old, dev->mapper_pid);
			if (ret)
				return ret;
			old->asked_ms = ms;
		} else if (dev->state == UBDM_STATE_DYING) {
			old->asked_ms = ms;
		} else if (old->pid && !old->killed &&
			   ms - old->asked_ms >= ROOM_PATIENCE_MS) {
			pidfd_send_signal(old->fd, SIGKILL, NULL, 0);
			old->killed = true;
		}
		poll(NULL, 0, VACANT_POLL_MS);
	}
	return tell_failure(p, EXIT_BUSY,
			    "%s: its mapper does not make room; see ubdmap list",
			    p->opt.attach);
}

static int take_over(struct mapper_process *p, struct ubdm_ctl *ctl)
{
	struct old_mapper old = { .fd = -1 };
	struct ubdm_device dev;
	int ret = attach_in_place(p, ctl, &old, &dev);

	if (old.fd >= 0)
		close(old.fd);
	return ret ? ret : serve_attached(p, &dev);
}

/* Serves already; whether it can do without us as well is another question. */
static int detach_attached(struct mapper_process *p)
{
	int ret;

	keep_tell_ready(p);
	ret = mapper_detach(p);
	if (!ret)
		return EXIT_OK;
	tell_stays(p, exit_status_of(ret), p->err.msg);
	if (ret != -ENODATA)
		return EXIT_FAIL;
	close(p->opt.ready_fd);
	p->opt.ready_fd = -1;
	return EXIT_OK;
}

static int begin_attach(struct mapper_process *p, bool next)
{
	struct ubdm_ctl *ctl;
	int ret;

	if (device_index(p->opt.attach, &p->index))
		return tell_failure(
			p, EXIT_NOENT,
			"%s: not an ubdmap device; see: ubdmap list",
			p->opt.attach);
	ret = open_channel(p);
	if (!ret)
		ret = open_ctl(p, &ctl);
	if (ret)
		return ret;
	if (next)
		ret = wait_vacant(p, ctl);
	if (!ret)
		ret = p->opt.take_over && !next ? take_over(p, ctl) :
						  attach(p, ctl);
	/* Another one that tries now may fail: have us called again then. */
	if (next && ret == EXIT_BUSY)
		ret = wait_vacant(p, ctl) ?: EXIT_FAIL;
	ubdm_ctl_close(ctl);
	if (!ret && !next && p->opt.detach)
		ret = detach_attached(p);
	return ret;
}

/* For a device that lost its mapper some time ago. */
int mapper_begin_attach(struct mapper_process *p)
{
	return begin_attach(p, false);
}

/* For one whose mapper has just died; its keeper has forked us. */
int mapper_begin_next(struct mapper_process *p)
{
	return begin_attach(p, true);
}
