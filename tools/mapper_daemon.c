// SPDX-License-Identifier: GPL-2.0-only
/*
 * mapper_daemon.c - ubdmap mapper: the process that serves one device.
 *
 * Threads:
 *
 *	main	the ring thread: takes faults, answers what it can at once, and
 *		copies clusters while requests come one at a time
 *	workers	what may block: copies, decompression, metadata, flushes
 *	back	background work (pool, commits by timer), and the clean end
 *
 * Unless --foreground is given the process is forked by a keeper (keeper.c),
 * which forks the next one when it dies.
 *
 * The end comes in one of three ways: SHUTDOWN from the driver (the device is
 * being deleted: back finishes the image, main leaves); the channel becomes
 * useless (another mapper took over: leave at once, touch nothing); a signal.
 * SIGUSR1 makes room for another mapper.
 * SIGTERM only asks the driver to delete the device; if that is in use we stay, and ask
 * again once nobody uses it.  SIGKILL is safe at any time: the driver keeps what a new
 * mapper needs.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "harden.h"
#include "keeper.h"
#include "mapper_process.h"

#define WITHDRAW_MS 20
#define WITHDRAW_TRIES 250
#define ASK_AGAIN_MS 1000

/* --- callbacks, see libubdmap.h ----------------------------------------- */

static void wake_back(struct mapper_process *p, enum mapper_end end)
{
	pthread_mutex_lock(&p->lock);
	p->work = true;
	if (end && p->end != END_FINISH)
		p->end = end;
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
	wake_back(ctx, END_NONE);
}

static void on_ahead(void *ctx)
{
	struct mapper_process *p = ctx;

	workers_ahead(&p->workers);
}

static bool do_ahead(void *ctx)
{
	struct mapper_process *p = ctx;

	return ubdm_mapper_ahead(p->m);
}

static void on_shutdown(void *ctx)
{
	wake_back(ctx, END_FINISH);
}

static void on_gone(void *ctx, int error)
{
	struct mapper_process *p = ctx;

	p->gone = error;
}

const struct ubdm_mapper_ops mapper_ops = {
	.defer = on_defer,
	.work = on_work,
	.ahead = on_ahead,
	.shutdown = on_shutdown,
	.gone = on_gone,
	.may_copy = true,
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

/* Waits @ms, or until woken.  Returns whether it is time to end, and how. */
static enum mapper_end doze(struct mapper_process *p, int ms)
{
	struct timespec until;
	enum mapper_end end;
	int ret = 0;

	deadline(&until, ms < 0 ? 0 : ms);
	pthread_mutex_lock(&p->lock);
	while (!p->work && !p->end && !ret) {
		if (ms < 0)
			pthread_cond_wait(&p->wake, &p->lock);
		else
			ret = pthread_cond_timedwait(&p->wake, &p->lock,
						     &until);
	}
	p->work = false;
	end = p->end;
	p->end = END_NONE;
	if (end)
		p->came_to = end;
	pthread_mutex_unlock(&p->lock);
	return end;
}

static int come_to(struct mapper_process *p, enum mapper_end end)
{
	switch (end) {
	case END_LEAVE:
		return ubdm_mapper_leave(p->m);
	case END_DETACH:
		return ubdm_mapper_detach(p->m, &p->err);
	default:
		return ubdm_mapper_finish(p->m, &p->err);
	}
}

static void *back(void *arg)
{
	struct mapper_process *p = arg;
	enum mapper_end end;
	uint64_t one = 1;
	int ret;

	for (;;) {
		end = doze(p, ubdm_mapper_work(p->m));
		if (!end)
			continue;
		ret = come_to(p, end);
		/* It was to make room, and meanwhile the device is being deleted. */
		if (end == END_LEAVE && ret == -ESHUTDOWN)
			continue;
		p->result = ret;
		if (write(p->done, &one, sizeof(one)) < 0)
			abort();
		/* It was no more than a question. */
		if (end != END_DETACH || ret != -ENODATA)
			return NULL;
	}
}

int mapper_detach(struct mapper_process *p)
{
	uint64_t n;

	wake_back(p, END_DETACH);
	/* The channel ends with it, so that we are "gone" is no news. */
	while (!mapper_turn(p, -1))
		;
	if (read(p->done, &n, sizeof(n)) < 0)
		return -errno;
	p->detached = !p->result;
	return p->result;
}

int mapper_start_back(struct mapper_process *p)
{
	int ret = start_thread(&p->back, back, p);

	p->have_back = !ret;
	return ret;
}

/* --- main loop ---------------------------------------------------------- */

static bool is_finishing(struct mapper_process *p)
{
	bool finishing;

	pthread_mutex_lock(&p->lock);
	finishing = p->came_to == END_FINISH;
	pthread_mutex_unlock(&p->lock);
	return finishing;
}

/* The device goes if nobody uses it; SHUTDOWN will follow.  -ENODEV: it has gone. */
static int ask_to_delete(struct mapper_process *p)
{
	struct ubdm_ctl *ctl;
	int ret;

	/* Its number is another one's. */
	if (p->disk && device_disk(p->index) != p->disk)
		return -ENODEV;
	ret = ubdm_ctl_open(&ctl);
	if (ret)
		return ret;
	ret = ubdm_ctl_delete(ctl, p->index, false);
	ubdm_ctl_close(ctl);
	return ret;
}

/*
 * As SIGTERM wants it.  In use: later, then.  That the driver takes the request says
 * nothing yet: somebody may open the device before it comes to that.
 */
static void ask_to_go(struct mapper_process *p)
{
	int ret;

	if (p->gone || is_finishing(p))
		return;
	ret = ask_to_delete(p);
	if (ret == -EBUSY && !p->told_in_use) {
		tell_log(p, LOG_NOTICE, "the device is in use: it goes once nobody uses it");
		p->told_in_use = true;
	} else if (ret && ret != -EBUSY && ret != -EALREADY && ret != -ENODEV &&
		   !p->unwanted) {
		tell_log(p, LOG_ERR, "cannot delete the device: %s",
			 strerror(-ret));
	}
	/* What keeps it now need not do so for good. */
	p->unwanted = true;
}

static void take_signal(struct mapper_process *p)
{
	struct signalfd_siginfo si;

	if (read(p->signals, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGUSR1) {
		p->leaving = true;
		wake_back(p, END_LEAVE);
		return;
	}
	if (!p->unwanted)
		ask_to_go(p);
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
	/* Somebody else may have it open, so that a close alone would not do. */
	epoll_ctl(p->epoll, EPOLL_CTL_DEL, p->opt.ready_fd, NULL);
	close(p->opt.ready_fd);
	p->opt.ready_fd = -1;
}

static void try_withdraw(struct mapper_process *p)
{
	int ret;

	if (is_finishing(p)) {
		p->withdraw = 0;
		return;
	}
	ret = ask_to_delete(p);
	if (ret == -EALREADY)
		return;
	if (ret && ret != -EBUSY)
		p->withdraw = 0;
	else if (!--p->withdraw)
		tell_log(
			p, LOG_NOTICE,
			"nobody waited for the device, but it is in use: serving on");
}

/* What main waits for; the number is the bit of it in what came. */
enum source { FROM_RING, FROM_SIGNALS, FROM_DONE, FROM_READY, NR_SOURCES };

/* poll() would ask each of them four times for each fault. */
static int watch(struct mapper_process *p, enum source source, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = source };

	if (source == FROM_RING)
		ev.events |= EPOLLET;
	if (p->watched & 1u << source)
		return 0;
	if (epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &ev))
		return -errno;
	p->watched |= 1u << source;
	return 0;
}

/* A bit for each source that has something; 0: none, -errno. */
static int wait_for_any(struct mapper_process *p, int ms)
{
	struct epoll_event ev[NR_SOURCES];
	int ret, came = 0;

	ret = watch(p, FROM_RING, ubdm_mapper_fd(p->m));
	if (!ret && p->ready && p->opt.ready_fd >= 0)
		ret = watch(p, FROM_READY, p->opt.ready_fd);
	if (ret)
		return ret;
	ret = epoll_wait(p->epoll, ev, NR_SOURCES, ms);
	while (ret > 0)
		came |= 1 << ev[--ret].data.u32;
	return came;
}

bool mapper_turn(struct mapper_process *p, int ms)
{
	int came;

	if (p->withdraw)
		ms = WITHDRAW_MS;
	else if (p->unwanted && (ms < 0 || ms > ASK_AGAIN_MS))
		ms = ASK_AGAIN_MS;
	came = wait_for_any(p, ms);
	if (came < 0) {
		tell_log(p, LOG_ERR, "waiting for the device: %s", strerror(-came));
		p->gone = came;
		return false;
	}
	if (!came) {
		if (p->withdraw)
			try_withdraw(p);
		else if (p->unwanted)
			ask_to_go(p);
		return false;
	}
	if (came & 1 << FROM_RING)
		ubdm_mapper_process(p->m);
	if (came & 1 << FROM_SIGNALS)
		take_signal(p);
	if (came & 1 << FROM_READY)
		take_ack(p);
	return came & 1 << FROM_DONE;
}

static int serve_on(struct mapper_process *p)
{
	while (!p->gone)
		if (mapper_turn(p, -1))
			return 0;
	return p->gone;
}

/* --- start -------------------------------------------------------------- */

static int set_up_process(struct mapper_process *p)
{
	pthread_condattr_t attr;
	sigset_t set;

	prctl(PR_SET_NAME, MAPPER_NAME);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);

	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->wake, &attr);
	pthread_condattr_destroy(&attr);

	p->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	p->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (p->signals < 0 || p->done < 0 || p->epoll < 0)
		return -errno;
	return watch(p, FROM_SIGNALS, p->signals) ?: watch(p, FROM_DONE, p->done);
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

/* One for each CPU, one at least, read ahead; two may wait for a flush each. */
static int start_workers(struct mapper_process *p)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (cpus < 1)
		cpus = 1;
	p->workers.ahead = do_ahead;
	p->workers.ctx = p;
	p->workers.max_ahead = cpus;
	return workers_start(&p->workers, (cpus < 2 ? 2 : cpus) + 2);
}

static int begin(struct mapper_process *p)
{
	int ret = set_up_process(p);

	if (!ret) {
		harden_threads();
		ret = start_workers(p);
	}
	if (ret)
		return tell_failure(p, EXIT_FAIL, "starting up: %s",
				    strerror(-ret));
	if (!p->after.pid && !p->opt.attach)
		return mapper_begin_new(p);
	/* Of this device somebody may be in need already: memory, for one. */
	stay_in_memory();
	return p->after.pid ? mapper_begin_next(p) : mapper_begin_attach(p);
}

/* Who asks for room while the image is being finished has come too late. */
static bool has_left(struct mapper_process *p)
{
	return p->leaving && !is_finishing(p);
}

static int end(struct mapper_process *p, int gone)
{
	/* A keeper is to wait for the other one; nobody else has asked. */
	if (has_left(p))
		_exit(p->opt.foreground ? EXIT_OK : EXIT_HANDED_OVER);
	if (gone) {
		/* Threads may be anywhere; what they hold is the kernel's. */
		if (gone != -ESTALE)
			tell_log(p, LOG_ERR, "lost the device: %s",
				 strerror(-gone));
		_exit(gone == -ESTALE ? EXIT_OK : EXIT_FAIL);
	}
	if (p->result)
		tell_log(p, LOG_ERR, "the image was not closed cleanly: %s",
			 p->err.msg);
	pthread_join(p->back, NULL);
	workers_stop(&p->workers);
	ubdm_mapper_close(p->m);
	close(p->channel);
	return p->result ? EXIT_FAIL : EXIT_OK;
}

/* udev and the like look at a new device and go. */
static void withdraw_detached(struct mapper_process *p)
{
	unsigned int tries = WITHDRAW_TRIES;
	int ret;

	while (tries--) {
		ret = ask_to_delete(p);
		if (ret && ret != -EBUSY && ret != -EALREADY)
			return;
		poll(NULL, 0, WITHDRAW_MS);
	}
}

/*
 * Whoever wanted the device has its name, or it goes.  The acknowledgement of a
 * "detach" is waited for only because writing it must not fail.
 */
static int end_detached(struct mapper_process *p)
{
	bool acked;
	char c;

	tell_ready(p);
	if (p->opt.ready_fd < 0)
		return EXIT_OK;
	acked = read(p->opt.ready_fd, &c, 1) == 1;
	if (!acked && !p->opt.attach)
		withdraw_detached(p);
	return EXIT_OK;
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
	p.keeper_fd = -1;

	ret = make_absolute(&p.opt);
	if (ret)
		return tell_failure(&p, EXIT_FAIL, "%s: %s", p.opt.image,
				    strerror(-ret));
	lift_file_limit();
	if (chdir("/"))
		return tell_failure(&p, EXIT_FAIL, "/: %s", strerror(errno));
	if (!p.opt.foreground) {
		ret = keep(&p);
		if (ret)
			return tell_failure(&p, EXIT_FAIL, "fork: %s",
					    strerror(-ret));
	}
	ret = begin(&p);
	if (ret)
		_exit(ret); /* workers may be inside */
	if (p.detached)
		_exit(end_detached(&p));

	keep_tell_ready(&p);
	tell_ready(&p);
	p.ready = true;
	go_silent(&p);
	tell_succession(&p);
	return end(&p, serve_on(&p));
}

const struct command cmd_mapper = {
	.name = "mapper",
	.args = "[OPTION]... IMAGE | --attach DEV",
	.help = "The process that serves one device; ubdmap add and ubdmap attach start it.\n"
		"Takes the options of ubdmap add, and:\n"
		"\n"
		"      --attach DEV        take over a device that lost its mapper\n"
		"      --foreground        stay, print the device's name, messages to stderr\n"
		"      --ready-fd FD       tell there when the device can be used\n"
		"      --take-over         with --attach: its mapper, if there is one, makes room\n",
	.run = run_mapper,
};
