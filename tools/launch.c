// SPDX-License-Identifier: GPL-2.0-only
/*
 * launch.c - a mapper in the background, and what it says until it is ready.
 *
 * The mapper is this program again (ubdmap mapper --ready-fd=N ...), in a
 * session of its own.  Over the pipe it sends lines:
 *
 *	warn TEXT
 *	fail STATUS TEXT
 *	ready INDEX
 *
 * and closes it.  If we are gone by then it undoes what it did.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"

static void __attribute__((noreturn))
become_mapper(int fd, int argc, char **argv)
{
	char **args = calloc(argc + 4, sizeof(*args));
	char ready[32];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	/* stdin and stdout are the caller's, who may wait for their end. */
	if (!args || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		_exit(EXIT_FAIL);
	setsid();
	if (fd != 3 && dup2(fd, 3) < 0)
		_exit(EXIT_FAIL);
	fcntl(3, F_SETFD, 0);
	close_range(4, ~0U, 0);
	snprintf(ready, sizeof(ready), "--ready-fd=3");
	args[0] = "ubdmap";
	args[1] = "mapper";
	args[2] = ready;
	memcpy(args + 3, argv, argc * sizeof(*args));
	execv("/proc/self/exe", args);
	dprintf(3, "fail %d starting the mapper: %s\n", EXIT_FAIL,
		strerror(errno));
	_exit(EXIT_FAIL);
}

/* Returns an exit status, or -1: nothing final yet. */
static int take_line(char *line, uint32_t *index)
{
	int status, at = 0;

	line[strcspn(line, "\n")] = '\0';
	if (!strncmp(line, "warn ", 5)) {
		warn("%s", line + 5);
		return -1;
	}
	if (sscanf(line, "ready %u", index) == 1)
		return EXIT_OK;
	if (sscanf(line, "fail %d %n", &status, &at) == 1 && at)
		return fail(status ? status : EXIT_FAIL, "%s", line + at);
	return -1;
}

/**
 * launch_mapper - start a mapper and wait until it is ready
 * @argc: how many
 * @argv: options and arguments of "ubdmap mapper"
 * @index: gets N of the device
 *
 * Return: an exit status; what went wrong has been said.
 */
int launch_mapper(int argc, char **argv, uint32_t *index)
{
	int pipefd[2], status = -1;
	char *line = NULL;
	size_t size = 0;
	pid_t pid;
	FILE *f;

	if (pipe2(pipefd, O_CLOEXEC))
		return fail(EXIT_FAIL, "pipe: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return fail(EXIT_FAIL, "fork: %s", strerror(errno));
	if (!pid)
		become_mapper(pipefd[1], argc, argv);

	close(pipefd[1]);
	f = fdopen(pipefd[0], "r");
	while (f && status < 0 && getline(&line, &size, f) >= 0)
		status = take_line(line, index);
	free(line);
	if (f)
		fclose(f);
	if (status == EXIT_OK)
		return status;

	/* It failed and is about to end; nothing is left once it has. */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (status < 0)
		status = fail(EXIT_FAIL,
			      "the mapper died before it was ready; see the system log");
	return status;
}
