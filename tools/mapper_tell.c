// SPDX-License-Identifier: GPL-2.0-only
/*
 * mapper_tell.c - what a mapper says: to its starter until it is ready, to the
 * system log afterwards.
 */
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

#include "mapper_process.h"

void tell_log(const struct mapper_process *p, int level, const char *fmt, ...)
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

void tell_warning(const struct mapper_process *p, const char *text)
{
	if (!text[0])
		return;
	if (p->opt.ready_fd >= 0)
		dprintf(p->opt.ready_fd, "warn %s\n", text);
	else
		warn("%s", text);
}

int tell_failure(const struct mapper_process *p, int status, const char *fmt,
		 ...)
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

void tell_ready(struct mapper_process *p)
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
