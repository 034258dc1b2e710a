// SPDX-License-Identifier: GPL-2.0-only
/*
 * keeper.c - the parent of a mapper: waits for its end and starts the next.
 *
 *	add ── fork+exec ──► keeper ── fork ──► mapper		serves
 *	                        │      fork ──► mapper --attach	after its death
 *
 * The keeper does nothing else, so that it has little to die of: no thread, no
 * allocation, no file but a pipe, no logging (a logger that waits for our own
 * device would stop it for good: the new mapper tells what happened).  It forks
 * and does not exec, and its memory is locked: the program may lie on the very
 * device that needs a mapper.
 *
 * A mapper that dies is replaced at once.  Only if several in a row have died
 * young there is a pause, which doubles up to five seconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harden.h"
#include "keeper.h"

#define YOUNG_MS 1000
#define FREE_TRIES 4 /* in a row, before the first pause */
#define FIRST_PAUSE_MS 50
#define LONGEST_PAUSE_MS 5000
#define ROLLBACK_MS 2000 /* a successor must have attached by then */

struct keeper {
	sigset_t set;
	pid_t mapper;
	int said; /* the mapper writes its device's index there */
	bool served; /* there was a mapper that got ready */
	uint32_t index;
	unsigned int young; /* deaths in a row before YOUNG_MS */
	int64_t born_ms;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* The standard streams are whoever's who started us. */
static void let_go(const struct mapper_process *p)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
	if (p->opt.ready_fd >= 0)
		close(p->opt.ready_fd);
}

/* 1: in the mapper; 0: in the keeper; -errno. */
static int make_mapper(struct keeper *k, struct mapper_process *p)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	k->born_ms = now_ms();
	k->mapper = fork();
	if (k->mapper < 0) {
		int ret = -errno;

		close(fd[0]);
		close(fd[1]);
		return ret;
	}
	if (!k->mapper) {
		close(fd[0]);
		p->keeper_fd = fd[1];
		prctl(PR_SET_NAME, "ubdmap-mapper");
		return 1;
	}
	close(fd[1]);
	k->said = fd[0];
	return 0;
}

/* Until the mapper has ended; what we are told to do it is told. */
static int wait_mapper(struct keeper *k)
{
	int how, sig;

	for (;;) {
		if (waitpid(k->mapper, &how, WNOHANG) == k->mapper)
			return how;
		sig = sigwaitinfo(&k->set, NULL);
		if (sig > 0 && sig != SIGCHLD)
			kill(k->mapper, sig);
	}
}

static void take_ready(struct keeper *k)
{
	uint32_t index;

	if (read(k->said, &index, sizeof(index)) == sizeof(index)) {
		k->served = true;
		k->index = index;
		if (now_ms() - k->born_ms >= YOUNG_MS)
			k->young = 0;
	}
	close(k->said);
}

/* As if the mapper had been who was started. */
static void __attribute__((noreturn)) end_like(int how)
{
	if (WIFSIGNALED(how)) {
		signal(WTERMSIG(how), SIG_DFL);
		raise(WTERMSIG(how));
		_exit(EXIT_FAIL);
	}
	_exit(WEXITSTATUS(how));
}

/* Is there nothing left to do after an end like this? */
static bool is_over(int how)
{
	return WIFEXITED(how) && (WEXITSTATUS(how) == EXIT_OK ||
				  WEXITSTATUS(how) == EXIT_NOT_NEEDED);
}

static unsigned int pause_ms(const struct keeper *k)
{
	unsigned int n;

	if (k->young <= FREE_TRIES)
		return 0;
	n = k->young - FREE_TRIES - 1;
	if (n > 7 || FIRST_PAUSE_MS << n > LONGEST_PAUSE_MS)
		return LONGEST_PAUSE_MS;
	return FIRST_PAUSE_MS << n;
}

static void sleep_ms(unsigned int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	while (ms && nanosleep(&t, &t) && errno == EINTR)
		;
}

/* The next one attaches, once the kernel has seen the end of this one. */
static void prepare_next(struct keeper *k, struct mapper_process *p, int how)
{
	static char path[32];

	device_path(k->index, path);
	p->opt.image = NULL;
	p->opt.attach = path;
	p->opt.ready_fd = -1;
	p->after = (struct predecessor){
		.pid = k->mapper,
		.how = how,
		.died_ms = now_ms(),
	};
	if (WIFEXITED(how) && WEXITSTATUS(how) == EXIT_HANDED_OVER)
		p->after.patience_ms = ROLLBACK_MS;
	k->young++;
}

static void set_up(struct keeper *k)
{
	/* Who ignores it, as our starter may, is not told of an end, nor how it was. */
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&k->set);
	sigaddset(&k->set, SIGCHLD);
	sigaddset(&k->set, SIGTERM);
	sigaddset(&k->set, SIGINT);
	sigaddset(&k->set, SIGHUP);
	sigprocmask(SIG_BLOCK, &k->set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int keep(struct mapper_process *p)
{
	static struct keeper k;
	int ret, how;

	set_up(&k);
	ret = make_mapper(&k, p);
	if (ret)
		return ret < 0 ? ret : 0;

	let_go(p);
	prctl(PR_SET_NAME, "ubdmap-keeper");
	harden_threads();
	stay_in_memory();
	for (;;) {
		how = wait_mapper(&k);
		take_ready(&k);
		if (!k.served)
			end_like(how);
		if (is_over(how))
			_exit(EXIT_OK);
		prepare_next(&k, p, how);
		do {
			sleep_ms(pause_ms(&k));
			ret = make_mapper(&k, p);
			k.young += ret < 0;
		} while (ret < 0);
		if (ret)
			return 0;
	}
}

void keep_tell_ready(struct mapper_process *p)
{
	if (p->keeper_fd < 0)
		return;
	/* If it is gone, we serve all the same. */
	(void)!write(p->keeper_fd, &p->index, sizeof(p->index));
	close(p->keeper_fd);
	p->keeper_fd = -1;
}
