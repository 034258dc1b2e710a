// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_del.c - ubdmap del: flush, close the image, remove the device.
 *
 * The driver only queues the deletion; the mapper then finishes the image.  We
 * wait for both: when this returns the device is gone and the image is free
 * for others.
 *
 * Meanwhile the device may get another mapper, by an upgrade or by its keeper, and
 * a deletion is off when the mapper dies over it: all that tells our device from the
 * next with its number is the disk.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"

#define POLL_MS 20
#define RETRY_MS 3000 /* for openers that come and go */
#define UNHEARD_MS 5000 /* without events: the driver would have begun by now */
#define LOST_MS 60000 /* with them: the one that said so was lost */
#define KEEPER_MS 2000 /* for a new mapper to come by itself */
#define START_MS 60000 /* for one that has come to serve: it completes the metadata */
#define EXIT_WAIT_MS \
	30000 /* for the mapper's process, once the device is gone */

struct del {
	struct ubdm_ctl *ctl, *events;
	struct ubdm_device dev;
	char path[32];
	bool force;
	uint64_t disk; /* which disk it is; 0: not known */
	bool began; /* it was seen dying */
	bool told; /* an event told how it ended */
	bool gone;
	int error;
	uint32_t mapper; /* the last that was seen: it closes the image */
	int pidfd; /* of it */
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void pause_ms(int ms)
{
	poll(NULL, 0, ms);
}

static bool is_gone(int ret)
{
	return ret == -ENODEV || ret == -ENOENT || ret == -ENXIO;
}

static int say_busy(const struct del *d)
{
	char users[1024];

	device_users(d->dev.index, users, sizeof(users));
	return fail(
		EXIT_BUSY,
		"%s: in use%s%s; end that first, or use --force and lose what is not written",
		d->path, users[0] ? ": " : "", users);
}

/* Returns an exit status; EXIT_BUSY silently: it may help to ask again. */
static int request(struct del *d)
{
	int ret = ubdm_ctl_delete(d->ctl, d->dev.index, d->force);

	if (!ret || ret == -EALREADY || is_gone(ret))
		return EXIT_OK;
	if (ret == -EBUSY)
		return EXIT_BUSY;
	if (ret == -EPERM || ret == -EACCES)
		return fail(EXIT_PERM, "%s: not yours to delete; run as root",
			    d->path);
	return fail(exit_status_of(ret), "%s: %s", d->path,
		    ubdm_ctl_reason(d->ctl)[0] ? ubdm_ctl_reason(d->ctl) :
						 strerror(-ret));
}

static void progress(const struct del *d, int64_t since, bool *shown)
{
	if (now_ms() - since < 1000 || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r%s: closing the image, %llds ", d->path,
		(long long)(now_ms() - since) / 1000);
	*shown = true;
}

/* Takes what events tell of our device's end. */
static void take_events(struct del *d)
{
	struct ubdm_event_info ev;

	while (d->events && ubdm_ctl_event(d->events, &ev) > 0) {
		if (ev.event != UBDM_EV_DELETED || ev.index != d->dev.index)
			continue;
		d->told = true;
		d->error = ev.error;
	}
}

/*
 * Another device can get the number of ours as soon as that is gone.  Another mapper
 * says nothing.
 */
static bool is_another(const struct del *d, const struct ubdm_device *dev)
{
	uint64_t disk = device_disk(dev->index);

	return strcmp(dev->ident, d->dev.ident) ||
	       (d->disk && disk && disk != d->disk);
}

/* It was told that ours is gone: what is seen now came later. */
static bool is_later(const struct del *d, const struct ubdm_device *dev)
{
	return d->told && !d->error && dev->state != UBDM_STATE_DYING;
}

/* The driver accepted the request, and then something was in its way. */
static bool is_refused(struct del *d, const struct ubdm_device *dev,
		       int64_t since)
{
	if (dev->state == UBDM_STATE_DYING) {
		d->began = true;
		return false;
	}
	/* Only the mapper's death takes a device back from there. */
	if (d->began && !d->told)
		d->error = -ENOTCONN;
	return d->began || d->told ||
	       now_ms() - since > (d->events ? LOST_MS : UNHEARD_MS);
}

static void watch_mapper(struct del *d, uint32_t pid)
{
	if (!pid || pid == d->mapper)
		return;
	if (d->pidfd >= 0)
		close(d->pidfd);
	d->mapper = pid;
	d->pidfd = syscall(SYS_pidfd_open, pid, 0);
}

static int say_refused(const struct del *d)
{
	return fail(
		exit_status_of(d->error), "%s: not deleted: %s", d->path,
		d->error == -ENOTCONN ?
			"it takes a mapper to close its image, and that ended; try again" :
			strerror(-d->error));
}

static int say_deleted(const struct del *d)
{
	if (!d->error)
		return EXIT_OK;
	return fail(
		EXIT_FAIL,
		"%s: deleted, but its image %s was not closed cleanly (%s); check it: qemu-img check",
		d->path, d->dev.ident, strerror(-d->error));
}

/* Returns an exit status; EXIT_BUSY silently. */
static int wait_device(struct del *d)
{
	int64_t since = now_ms();
	struct ubdm_device dev;
	bool shown = false, refused = false;
	int ret;

	for (;;) {
		/* First, so that what is seen is what the last of them left. */
		take_events(d);
		ret = ubdm_ctl_get(d->ctl, d->dev.index, &dev);
		if (ret)
			break;
		if (is_another(d, &dev) || is_later(d, &dev)) {
			ret = -ENODEV;
			break;
		}
		refused = is_refused(d, &dev, since);
		if (refused)
			break;
		watch_mapper(d, dev.mapper_pid);
		if (dev.error && !d->told)
			d->error = dev.error;
		progress(d, since, &shown);
		pause_ms(POLL_MS);
	}
	if (shown)
		fputs("\r\033[K", stderr);
	take_events(d);
	if (refused && (!d->error || d->error == -EBUSY))
		return EXIT_BUSY;
	if (refused)
		return say_refused(d);
	if (!is_gone(ret))
		return fail(exit_status_of(ret), "%s: %s", d->path,
			    strerror(-ret));
	d->gone = true;
	return say_deleted(d);
}

static void wait_mapper(struct del *d)
{
	struct pollfd p = { .fd = d->pidfd, .events = POLLIN };

	if (d->pidfd >= 0)
		poll(&p, 1, EXIT_WAIT_MS);
}

/*
 * Its keeper may be about to start a mapper, or that be about to serve.  Returns
 * whether the device has one now, or is gone.
 */
static bool wait_keeper(struct del *d)
{
	int64_t since = now_ms(), alone = since;
	int64_t most = d->force ? KEEPER_MS : START_MS;
	struct ubdm_device dev;

	while (now_ms() - alone < KEEPER_MS && now_ms() - since < most) {
		int ret = ubdm_ctl_get(d->ctl, d->dev.index, &dev);

		d->gone = is_gone(ret) || (!ret && is_another(d, &dev));
		if (d->gone)
			return true;
		if (ret)
			return false;
		d->dev = dev;
		if (dev.state != UBDM_STATE_ORPHANED)
			return true;
		if (dev.mapper_pid)
			alone = now_ms();
		pause_ms(POLL_MS);
	}
	return false;
}

/* Nobody else could finish the image. */
static int adopt_orphan(struct del *d)
{
	char *args[] = { "--attach", d->path };
	struct launched out;
	int status;

	if (wait_keeper(d))
		return EXIT_OK;
	if (d->force && d->dev.mapper_pid)
		status = EXIT_BUSY; /* which does not get ready */
	else
		status = launch_mapper(2, args, &out, false);
	/* If it was refused, then because another one has come just now. */
	if ((!status || status == EXIT_BUSY) && wait_keeper(d))
		return EXIT_OK;
	status = status ? status : EXIT_BUSY;
	if (d->force)
		warn("%s: deleted without a mapper; check the image: qemu-img check %s",
		     d->path, d->dev.ident);
	else
		warn("%s: its mapper is gone and no new one could start; --force deletes it and loses what is not in the image",
		     d->path);
	return d->force ? EXIT_OK : status;
}

/*
 * Between two requests the device may have got another mapper, lost it, or gone, and
 * the next with its number is not ours to delete.  Returns an exit status.
 */
static int prepare(struct del *d)
{
	struct ubdm_device dev;
	int status = EXIT_OK, ret = ubdm_ctl_get(d->ctl, d->dev.index, &dev);

	d->gone = is_gone(ret) || (!ret && is_another(d, &dev));
	if (d->gone)
		return EXIT_OK;
	if (ret)
		return fail(exit_status_of(ret), "%s: %s", d->path,
			    strerror(-ret));
	d->dev = dev;
	if (d->dev.state == UBDM_STATE_ORPHANED)
		status = adopt_orphan(d);
	if (status || d->gone)
		return status;
	watch_mapper(d, d->dev.mapper_pid);
	/* What is told from here on is an answer. */
	take_events(d);
	d->began = false;
	d->told = false;
	d->error = 0;
	return EXIT_OK;
}

/* udev and the like look at a device and go. */
static int delete_and_wait(struct del *d)
{
	int64_t give_up = 0; /* from the first request on */
	char users[256];
	int status;

	for (;;) {
		status = prepare(d);
		if (status || d->gone)
			return status;
		if (!give_up)
			give_up = now_ms() + RETRY_MS;
		status = request(d);
		if (!status)
			status = wait_device(d);
		if (status != EXIT_BUSY)
			return status;
		if (now_ms() > give_up ||
		    device_users(d->dev.index, users, sizeof(users)))
			return say_busy(d);
		pause_ms(POLL_MS);
	}
}

static int del_one(struct ubdm_ctl *ctl, const struct ubdm_device *dev, bool force)
{
	struct del d = { .ctl = ctl, .dev = *dev, .force = force, .pidfd = -1 };
	int status;

	device_path(dev->index, d.path);
	d.disk = device_disk(dev->index);
	if (!ubdm_ctl_open(&d.events) && ubdm_ctl_subscribe(d.events)) {
		ubdm_ctl_close(d.events);
		d.events = NULL;
	}
	status = delete_and_wait(&d);
	if (d.gone)
		wait_mapper(&d);
	if (d.pidfd >= 0)
		close(d.pidfd);
	ubdm_ctl_close(d.events);
	return status;
}

/* What cannot be deleted is said, and the next one tried; the first failure counts. */
static int del_named(struct ubdm_ctl *ctl, char **names, bool force)
{
	struct ubdm_device dev;
	int one, status = EXIT_OK;

	for (; *names; names++) {
		one = device_get(ctl, *names, &dev);
		if (!one)
			one = del_one(ctl, &dev, force);
		if (!status)
			status = one;
	}
	return status;
}

static int newer_first(const void *a, const void *b)
{
	uint64_t one = device_disk(*(const uint32_t *)a);
	uint64_t two = device_disk(*(const uint32_t *)b);

	return one < two ? 1 : one > two ? -1 : 0;
}

/*
 * Who may delete his own only does not mean all others.  A device that lies on another
 * one was made after it, whatever their numbers.
 */
static int del_all(struct ubdm_ctl *ctl, bool force)
{
	struct ubdm_device dev;
	uid_t me = geteuid();
	uint32_t *index;
	unsigned int nr;
	int one, failed = EXIT_OK, status = device_all(ctl, &index, &nr);

	if (nr)
		qsort(index, nr, sizeof(*index), newer_first);
	for (unsigned int i = 0; !status && i < nr; i++) {
		if (ubdm_ctl_get(ctl, index[i], &dev) ||
		    (me && dev.owner_uid != me))
			continue;
		one = del_one(ctl, &dev, force);
		if (!failed)
			failed = one;
	}
	free(index);
	return status ? status : failed;
}

static int run_del(int argc, char **argv)
{
	static const struct arguments want = { 0, INT_MAX, NULL, NULL };
	bool force = false, all = false;
	const struct flag flags[] = { { "force", 0, &force },
				      { "all", 'a', &all },
				      {} };
	int status = parse_flags(&cmd_del, argc, argv, flags, &want);
	struct ubdm_ctl *ctl;

	if (status != PARSED)
		return status;
	if (all ? optind < argc : optind == argc)
		return usage_error(&cmd_del, "which device? some, or --all");

	status = driver_ctl(&ctl);
	if (status)
		return status;
	status = all ? del_all(ctl, force) :
		       del_named(ctl, argv + optind, force);
	ubdm_ctl_close(ctl);
	return status;
}

const struct command cmd_del = {
	.name = "del",
	.args = "[--force] DEV... | -a",
	.summary = "flush, close the image, remove the device",
	.help = "Deletes the devices and waits until their images are complete and free. Refuses\n"
		"while a device is open, mounted, or otherwise used.\n"
		"\n"
		"  -a, --all               all devices; a user's own, if that is not root\n"
		"      --force             delete it though it is in use: requests fail from\n"
		"                          then on, what was not flushed is lost\n"
		"  -h, --help              this\n",
	.run = run_del,
};
