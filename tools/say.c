// SPDX-License-Identifier: GPL-2.0-only
/*
 * say.c - messages: one line each, what is wrong and what to do.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "text.h"

/* However long a name is, what is wrong with it comes behind. */
static char *one_line(const char *fmt, va_list ap)
{
	char *line;

	if (vasprintf(&line, fmt, ap) < 0)
		return NULL;
	text_one_line(line);
	return line;
}

static void say(const char *fmt, va_list ap)
{
	char *line = one_line(fmt, ap);

	fprintf(stderr, "ubdmap: %s\n", line ? line : "out of memory");
	free(line);
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
	char *msg;
	va_list ap;

	va_start(ap, fmt);
	msg = one_line(fmt, ap);
	va_end(ap);
	fprintf(stderr, "ubdmap: %s; see ubdmap %s%s--help\n",
		msg ? msg : "out of memory", cmd ? cmd->name : "",
		cmd ? " " : "");
	free(msg);
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
