// SPDX-License-Identifier: GPL-2.0-only
/*
 * mapper_tell.c - what a mapper says: to its starter until it is ready, to the
 * system log afterwards.
 *
 * The log is written to without waiting, which syslog(3) would do: the logger may
 * be waiting for our device.  What it has no room for is lost.
 */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "mapper_process.h"
#include "text.h"

/* What went wrong with the image, and the device's name in front. */
#define LINE_BYTES (sizeof(struct ubdm_err) + PATH_MAX)

/*
 * All that we say is a line.  A name may have a newline in it, and what follows would
 * pass for a message of its own, such as "ready 5".
 */
static void vone_line(char line[LINE_BYTES], const char *fmt, va_list ap)
{
	vsnprintf(line, LINE_BYTES, fmt, ap);
	text_one_line(line);
}

static void __attribute__((format(printf, 2, 3)))
one_line(char line[LINE_BYTES], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vone_line(line, fmt, ap);
	va_end(ap);
}

static void to_syslog(int level, uint32_t index, const char *msg)
{
	static const struct sockaddr_un log = {
		.sun_family = AF_UNIX,
		.sun_path = "/dev/log",
	};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char line[LINE_BYTES + 128];
	int len;

	if (fd < 0)
		return;
	len = snprintf(line, sizeof(line), "<%d>ubdmap[%d]: ubdmap%u: %s",
		       LOG_DAEMON | level, getpid(), index, msg);
	if (len >= (int)sizeof(line))
		len = sizeof(line) - 1;
	sendto(fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL,
	       (const struct sockaddr *)&log, sizeof(log));
	close(fd);
}

void tell_log(const struct mapper_process *p, int level, const char *fmt, ...)
{
	char msg[LINE_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vone_line(msg, fmt, ap);
	va_end(ap);
	if (p->opt.foreground)
		fprintf(stderr, "ubdmap: ubdmap%u: %s\n", p->index, msg);
	else
		to_syslog(level, p->index, msg);
}

void tell_warning(const struct mapper_process *p, const char *text)
{
	char msg[LINE_BYTES];

	if (!text[0])
		return;
	one_line(msg, "%s", text);
	if (p->opt.ready_fd >= 0)
		dprintf(p->opt.ready_fd, "warn %s\n", msg);
	else if (p->opt.foreground)
		warn("%s", msg);
}

/* We serve, but what was asked for besides has failed. */
void tell_stays(const struct mapper_process *p, int status, const char *text)
{
	char msg[LINE_BYTES];

	if (p->opt.ready_fd < 0) {
		tell_log(p, LOG_ERR, "%s", text);
		return;
	}
	one_line(msg, "%s: %s", p->opt.attach, text);
	dprintf(p->opt.ready_fd, "stay %d %s\n", status, msg);
}

int tell_failure(const struct mapper_process *p, int status, const char *fmt,
		 ...)
{
	char msg[LINE_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vone_line(msg, fmt, ap);
	va_end(ap);
	if (p->opt.ready_fd >= 0)
		dprintf(p->opt.ready_fd, "fail %d %s\n", status, msg);
	else if (p->after.pid)
		tell_log(p, LOG_ERR, "no new mapper: %s", msg);
	else
		warn("%s", msg);
	return status;
}

void tell_ready(struct mapper_process *p)
{
	char path[32];

	if (p->opt.ready_fd >= 0) {
		if (p->pause_ms)
			dprintf(p->opt.ready_fd, "pause %llu\n",
				(unsigned long long)p->pause_ms);
		/* If nobody hears it, nobody acknowledges it. */
		dprintf(p->opt.ready_fd, "%s %u\n",
			p->opt.attach ? "ready" : "made", p->index);
		return;
	}
	if (p->after.pid)
		return;
	device_path(p->index, path);
	puts(path);
	fflush(stdout);
}

/* The keeper does not log, so we say what became of the mapper before us. */
void tell_succession(const struct mapper_process *p)
{
	const struct predecessor *a = &p->after;
	struct timespec t;
	long long ms;

	if (!a->pid)
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	ms = t.tv_sec * 1000LL + t.tv_nsec / 1000000 - a->died_ms;
	if (WIFSIGNALED(a->how))
		tell_log(p, LOG_WARNING,
			 "mapper %d was killed (%s); this one took over after %lld ms",
			 a->pid, strsignal(WTERMSIG(a->how)), ms);
	else
		tell_log(p, LOG_WARNING,
			 "mapper %d ended with status %d; this one took over after %lld ms",
			 a->pid, WEXITSTATUS(a->how), ms);
}
