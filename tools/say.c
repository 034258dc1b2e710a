// SPDX-License-Identifier: GPL-2.0-only
/*
 * say.c - messages: one line each, what is wrong and what to do.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "text.h"

/* A path, and what is wrong with it. */
#define SAY_BYTES (PATH_MAX + 2048)

static void say(const char *fmt, va_list ap)
{
	char line[SAY_BYTES];

	vsnprintf(line, sizeof(line), fmt, ap);
	text_one_line(line);
	fprintf(stderr, "ubdmap: %s\n", line);
}

void warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

/* Says it and returns @status, for the exit. */
int fail(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	return status;
}

/* Says it, with where to read on. */
int usage_error(const struct command *cmd, const char *fmt, ...)
{
	char msg[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	text_one_line(msg);
	fprintf(stderr, "ubdmap: %s; see ubdmap %s%s--help\n", msg,
		cmd ? cmd->name : "", cmd ? " " : "");
	return EXIT_USAGE;
}

int show_help(const struct command *cmd)
{
	printf("usage: ubdmap %s %s\n\n%s", cmd->name, cmd->args, cmd->help);
	return EXIT_OK;
}

/**
 * output_done - has all that was printed been written?
 *
 * main() asks at the end; who prints without an end asks as often as he likes.
 *
 * Return: EXIT_OK, or EXIT_FAIL, having said so.
 */
int output_done(void)
{
	errno = 0;
	if (!fflush(stdout) && !ferror(stdout))
		return EXIT_OK;
	/* The reason is lost if it was an earlier write that failed. */
	return fail(EXIT_FAIL, "the output could not be written%s%s",
		    errno ? ": " : "", errno ? strerror(errno) : "");
}

int exit_status_of(int error)
{
	switch (-error) {
	case 0:
		return EXIT_OK;
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return EXIT_NOENT;
	case EBUSY:
		return EXIT_BUSY;
	case EACCES:
	case EPERM:
		return EXIT_PERM;
	default:
		return EXIT_FAIL;
	}
}
