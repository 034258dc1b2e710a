// SPDX-License-Identifier: GPL-2.0-only
/*
 * mapper_daemon.c - ubdmap mapper: the process that serves one device.
 *
 * Threads:
 *
 *	main	the ring thread: takes faults, answers what it can at once
 *	workers	what may block: copies, decompression, metadata, flushes
 *	back	background work (pool, commits by timer), and the clean end
 *
 * The end comes in one of three ways: SHUTDOWN from the driver (the device is
 * being deleted: back finishes the image, main leaves); the channel becomes
 * useless (another mapper took over: leave at once, touch nothing); a signal.
 * SIGTERM only asks the driver to delete the device, and if that is in use we
 * stay.  SIGKILL is safe at any time: the driver keeps what a new mapper needs.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "harden.h"
#include "options.h"
#include "workers.h"

#define NODE_WAIT_MS	10000
#define WITHDRAW_MS	20
#define WITHDRAW_TRIES	250

struct mapper_process {
	struct serve_options opt;
	struct ubdm_mapper *m;
	struct workers workers;
	pthread_t back;
	bool have_back;
	int channel, signals, done;	/* fds; done: back has finished */
	uint32_t index;

	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool work, finish;		/* under lock */

	bool ready;			/* main only, as the next */
	unsigned int withdraw;		/* tries left to delete the device */
	int gone;
	int result;			/* of finish; main, once done is readable */
	struct ubdm_err err;		/* dito */
};

/* --- messages ----------------------------------------------------------- */

static void note(const struct mapper_process *p, int level, const char *fmt, ...)
{
	char msg[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	if (p->opt.foreground)
		fprintf(stderr, "ubdmap: ubdmap%u: %s\n", p->index, msg);
	else
		syslog(level, "ubdmap%u: %s", p->index, msg);
}

/* To whoever started us, who prints it; or it is us. */
static void tell_warning(const struct mapper_process *p, const char *text)
{
	if (!text[0])
		return;
	if (p->opt.ready_fd >= 0)
		dprintf(p->opt.ready_fd, "warn %s\n", text);
	else
		warn("%s", text);
}

static int tell_failure(const struct mapper_process *p, int status,
			const char *fmt, ...)
{
	char msg[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	for (char *c = msg; *c; c++)
		if (*c == '\n')
			*c = ' ';
	if (p->opt.ready_fd >= 0)
		dprintf(p->opt.ready_fd, "fail %d %s\n", status, msg);
	else
		warn("%s", msg);
	return status;
}

static void tell_ready(struct mapper_process *p)
{
	char path[32];

	if (p->opt.ready_fd >= 0) {
		/* If nobody hears it, nobody acknowledges it. */
		dprintf(p->opt.ready_fd, "ready %u\n", p->index);
		return;
	}
	device_path(p->index, path);
	puts(path);
	fflush(stdout);
}

/* --- callbacks, see libubdmap.h ----------------------------------------- */

static void wake_back(struct mapper_process *p, bool finish)
{
	pthread_mutex_lock(&p->lock);
	p->work = true;
	if (finish)
		p->finish = true;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
}

static void on_defer(void *ctx, struct ubdm_job *job)
{
	struct mapper_process *p = ctx;

	workers_add(&p->workers, job);
}

static void on_work(void *ctx)
{
	wake_back(ctx, false);
}

static void on_shutdown(void *ctx)
{
	wake_back(ctx, true);
}

static void on_gone(void *ctx, int error)
{
	struct mapper_process *p = ctx;

	p->gone = error;
}

static const struct ubdm_mapper_ops ops = {
	.defer = on_defer,
	.work = on_work,
	.shutdown = on_shutdown,
	.gone = on_gone,
};

/* --- the background thread ---------------------------------------------- */

static void deadline(struct timespec *t, int ms)
{
	clock_gettime(CLOCK_MONOTONIC, t);
	t->tv_sec += ms / 1000;
	t->tv_nsec += ms % 1000 * 1000000L;
	if (t->tv_nsec >= 1000000000L) {
		t->tv_sec++;
		t->tv_nsec -= 1000000000L;
	}
}

/* Waits @ms, or until woken.  Returns whether it is time to finish. */
static bool doze(struct mapper_process *p, int ms)
{
	struct timespec until;
	int ret = 0;
	bool finish;

	deadline(&until, ms < 0 ? 0 : ms);
	pthread_mutex_lock(&p->lock);
	while (!p->work && !ret) {
		if (ms < 0)
			pthread_cond_wait(&p->wake, &p->lock);
		else
			ret = pthread_cond_timedwait(&p->wake, &p->lock,
						     &until);
	}
	p->work = false;
	finish = p->finish;
	pthread_mutex_unlock(&p->lock);
	return finish;
}

static void *back(void *arg)
{
	struct mapper_process *p = arg;
	uint64_t one = 1;

	while (!doze(p, ubdm_mapper_work(p->m)))
		;
	p->result = ubdm_mapper_finish(p->m, &p->err);
	if (write(p->done, &one, sizeof(one)) < 0)
		abort();
	return NULL;
}

/* --- main loop ---------------------------------------------------------- */

/* The device goes if nobody uses it; SHUTDOWN will follow. */
static int ask_to_delete(struct mapper_process *p)
{
	struct ubdm_ctl *ctl;
	int ret = ubdm_ctl_open(&ctl);

	if (ret)
		return ret;
	ret = ubdm_ctl_delete(ctl, p->index, false);
	ubdm_ctl_close(ctl);
	return ret == -ENODEV ? 0 : ret;
}

static void take_signal(struct mapper_process *p)
{
	struct signalfd_siginfo si;
	int ret;

	if (read(p->signals, &si, sizeof(si)) != sizeof(si))
		return;
	ret = ask_to_delete(p);
	if (ret == -EBUSY)
		note(p, LOG_NOTICE, "the device is in use: serving on");
	else if (ret)
		note(p, LOG_ERR, "cannot delete the device: %s",
		     strerror(-ret));
}

/*
 * Whoever started us has the device's name, or never will: then a new device is
 * not wanted.  udev may be looking at it just now.
 */
static void take_ack(struct mapper_process *p)
{
	char c;
	ssize_t n = read(p->opt.ready_fd, &c, 1);

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0 && !p->opt.attach)
		p->withdraw = WITHDRAW_TRIES;
	close(p->opt.ready_fd);
	p->opt.ready_fd = -1;
}

static void try_withdraw(struct mapper_process *p)
{
	if (ask_to_delete(p) != -EBUSY)
		p->withdraw = 0;
	else if (!--p->withdraw)
		note(p, LOG_NOTICE, "nobody waited for the device, but it is in use: serving on");
}

/*
 * One turn: waits for something to do, at most @ms.  Returns true when the image
 * is finished.
 */
static bool turn(struct mapper_process *p, int ms)
{
	struct pollfd fds[] = {
		{ .fd = ubdm_mapper_fd(p->m), .events = POLLIN },
		{ .fd = p->signals, .events = POLLIN },
		{ .fd = p->done, .events = POLLIN },
		{ .fd = p->ready ? p->opt.ready_fd : -1, .events = POLLIN },
	};

	if (p->withdraw)
		ms = WITHDRAW_MS;
	if (poll(fds, 4, ms) <= 0) {
		if (p->withdraw)
			try_withdraw(p);
		return false;
	}
	if (fds[0].revents)
		ubdm_mapper_process(p->m);
	if (fds[1].revents)
		take_signal(p);
	if (fds[3].revents)
		take_ack(p);
	return fds[2].revents;
}

static int serve_on(struct mapper_process *p)
{
	while (!p->gone)
		if (turn(p, -1))
			return 0;
	return p->gone;
}

/* --- start -------------------------------------------------------------- */

static int set_up_process(struct mapper_process *p)
{
	pthread_condattr_t attr;
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);

	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->wake, &attr);
	pthread_condattr_destroy(&attr);

	p->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	p->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->signals < 0 || p->done < 0)
		return -errno;
	return 0;
}

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
		return tell_failure(p, EXIT_PERM, UBDM_CHANNEL_PATH
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
		return tell_failure(p, EXIT_DRIVER,
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
		return tell_failure(p, EXIT_FAIL,
				    "%s: empty, there is nothing to serve; give it a size first: qemu-img resize",
				    p->opt.image);
	if (bs < info->block_size)
		return tell_failure(p, EXIT_FAIL,
				    "%s: lies on storage with sectors of %u bytes, smaller ones are not possible; leave out -b %u",
				    p->opt.image, info->block_size, bs);
	if (info->size % (bs >> 9))
		return tell_failure(p, EXIT_FAIL,
				    "%s: its size is not a multiple of %u-byte sectors; resize it, or use a smaller -b",
				    p->opt.image, bs);

	*c = (struct ubdm_create){
		.channel = p->channel,
		.index = -1,
		.size = info->size,
		.block_size = bs,
		.phys_block_size = info->granule_bytes >= 4096 || bs == 4096 ?
				   4096 : bs,
		.io_opt = info->granule_bytes > 4096 ? info->granule_bytes : 0,
		.discard_gran = info->discard_gran,
		.flags = (info->read_only ? UBDM_DEV_F_RO : 0) |
			 (p->opt.partscan ? UBDM_DEV_F_PARTSCAN : 0),
		.orphan_timeout = -1,
		.ident = p->opt.image,
		.format = info->format,
	};
	return EXIT_OK;
}

static void undo_create(struct mapper_process *p, struct ubdm_ctl *ctl)
{
	ubdm_ctl_delete(ctl, p->index, true);
	ubdm_mapper_abort(p->m);
	close(p->channel);
}

/* udev is not waited for: devtmpfs makes the node. */
static int wait_for_node(struct mapper_process *p)
{
	for (int ms = 0; ms < NODE_WAIT_MS; ms += 10) {
		if (device_node_ready(p->index))
			return 0;
		turn(p, 10);
		if (p->gone)
			return p->gone;
	}
	return -ETIMEDOUT;
}

static int start_back(struct mapper_process *p)
{
	int ret = start_thread(&p->back, back, p);

	p->have_back = !ret;
	return ret;
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
		snprintf(err.msg, sizeof(err.msg),
			 "/dev/ubdmap%u does not appear; is devtmpfs mounted on /dev?",
			 p->index);
	}
	if (!ret) {
		ret = start_back(p);
		snprintf(err.msg, sizeof(err.msg), "no thread: %s",
			 strerror(-ret));
	}
	if (!ret)
		return EXIT_OK;
	undo_create(p, ctl);
	return tell_failure(p, exit_status_of(ret), "%s", err.msg);
}

static int begin_new(struct mapper_process *p)
{
	struct ubdm_err err = { .msg = "" };
	struct ubdm_image image = {
		.path = p->opt.image,
		.format = p->opt.format,
		.read_only = p->opt.read_only,
		.cache_bytes = p->opt.cache_bytes,
	};
	struct ubdm_image_info info;
	struct ubdm_create c;
	struct ubdm_ctl *ctl;
	int ret;

	ret = ubdm_mapper_open(&p->m, &image, &ops, p, &err);
	if (ret)
		return tell_failure(p, exit_status_of(ret), "%s", err.msg);
	ubdm_mapper_info(p->m, &info);
	tell_warning(p, info.warning);

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

static int take_over(struct mapper_process *p, struct ubdm_ctl *ctl)
{
	struct ubdm_err err = { .msg = "" };
	struct ubdm_device dev;
	int ret;

	ret = ubdm_ctl_attach(ctl, p->channel, p->index, &dev);
	if (ret == -EBUSY)
		return tell_failure(p, EXIT_BUSY,
				    "%s: has a mapper; nothing to do",
				    p->opt.attach);
	if (ret)
		return tell_failure(p, exit_status_of(ret), "%s: %s",
				    p->opt.attach, why(ctl, ret));
	ret = ubdm_mapper_takeover(&p->m, p->channel, &dev, p->opt.cache_bytes,
				   &ops, p, &err);
	if (!ret)
		ret = start_back(p);
	if (ret)
		return tell_failure(p, exit_status_of(ret), "%s: %s",
				    p->opt.attach, err.msg);
	return EXIT_OK;
}

static int begin_attach(struct mapper_process *p)
{
	struct ubdm_ctl *ctl;
	int ret;

	if (device_index(p->opt.attach, &p->index))
		return tell_failure(p, EXIT_NOENT,
				    "%s: not an ubdmap device; see: ubdmap list",
				    p->opt.attach);
	ret = open_channel(p);
	if (!ret)
		ret = open_ctl(p, &ctl);
	if (ret)
		return ret;
	ret = take_over(p, ctl);
	ubdm_ctl_close(ctl);
	return ret;
}

/* From now on nobody is there to read our stderr, nor is it ours. */
static void go_silent(const struct mapper_process *p)
{
	int null;

	if (p->opt.foreground)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return;
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	close(null);
}

static unsigned int worker_count(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	/* Two may wait for a flush each. */
	return (n < 2 ? 2 : n) + 2;
}

static int begin(struct mapper_process *p)
{
	int ret = set_up_process(p);

	if (!ret) {
		harden_process();
		ret = workers_start(&p->workers, worker_count());
	}
	if (ret)
		return tell_failure(p, EXIT_FAIL, "starting up: %s",
				    strerror(-ret));
	return p->opt.attach ? begin_attach(p) : begin_new(p);
}

static int end(struct mapper_process *p, int gone)
{
	if (gone) {
		/* Threads may be anywhere; what they hold is the kernel's. */
		if (gone != -ESTALE)
			note(p, LOG_ERR, "lost the device: %s",
			     strerror(-gone));
		_exit(gone == -ESTALE ? EXIT_OK : EXIT_FAIL);
	}
	if (p->result)
		note(p, LOG_ERR, "the image was not closed cleanly: %s",
		     p->err.msg);
	pthread_join(p->back, NULL);
	workers_stop(&p->workers);
	ubdm_mapper_close(p->m);
	close(p->channel);
	return p->result ? EXIT_FAIL : EXIT_OK;
}

/* The path as the user meant it, once we have left his folder. */
static int make_absolute(struct serve_options *o)
{
	char *cwd, *path;

	if (!o->image || o->image[0] == '/')
		return 0;
	cwd = get_current_dir_name();
	if (!cwd)
		return -errno;
	if (asprintf(&path, "%s/%s", cwd, o->image) < 0)
		path = NULL;
	free(cwd);
	if (!path)
		return -ENOMEM;
	o->image = path;
	return 0;
}

static int run_mapper(int argc, char **argv)
{
	static struct mapper_process p;
	int ret;

	ret = parse_serve(&cmd_mapper, argc, argv, true, &p.opt);
	if (ret)
		return ret == OPTIONS_HELP_DONE ? EXIT_OK : ret;
	if (p.opt.ready_fd >= 0)
		fcntl(p.opt.ready_fd, F_SETFD, FD_CLOEXEC);
	else
		p.opt.foreground = true;
	p.channel = -1;
	openlog("ubdmap", LOG_PID, LOG_DAEMON);

	ret = make_absolute(&p.opt);
	if (ret)
		return tell_failure(&p, EXIT_FAIL, "%s: %s", p.opt.image,
				    strerror(-ret));
	if (chdir("/"))
		return tell_failure(&p, EXIT_FAIL, "/: %s", strerror(errno));
	ret = begin(&p);
	if (ret)
		_exit(ret);	/* workers may be inside */

	tell_ready(&p);
	p.ready = true;
	go_silent(&p);
	return end(&p, serve_on(&p));
}

const struct command cmd_mapper = {
	.name = "mapper",
	.args = "[OPTION]... IMAGE | --attach DEV",
	.help =
"The process that serves one device; ubdmap add and ubdmap attach start it.\n"
"Takes the options of ubdmap add, and:\n"
"\n"
"      --attach DEV        take over a device that lost its mapper\n"
"      --foreground        stay, print the device's name, messages to stderr\n"
"      --ready-fd FD       tell there when the device can be used\n",
	.run = run_mapper,
};
