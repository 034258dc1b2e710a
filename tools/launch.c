// SPDX-License-Identifier: GPL-2.0-only
/*
 * launch.c - a mapper in the background, and what it says until it is ready.
 *
 * The mapper is this program again (ubdmap mapper --ready-fd=N ...), in a
 * session of its own.  Over a socket it sends lines:
 *
 *	warn TEXT
 *	fail STATUS TEXT
 *	stay STATUS TEXT	it serves, but what was asked for besides failed
 *	pause MS		a miss has waited so long for it
 *	ready INDEX, or made INDEX if the device is new
 *
 * The last one is acknowledged with a byte once the user has the device's name.
 * If the socket closes without it, because we were killed or could not print,
 * a new device is of no use to anybody and the mapper deletes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"

#define WITHDRAWN_MS 10000
#define POLL_MS 10

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
static int take_line(char *line, struct launched *out, bool *stays)
{
	int status, at = 0;

	line[strcspn(line, "\n")] = '\0';
	if (!strncmp(line, "warn ", 5)) {
		warn("%s", line + 5);
		return -1;
	}
	if (sscanf(line, "pause %" SCNu64, &out->pause_ms) == 1)
		return -1;
	out->made = sscanf(line, "made %u", &out->index) == 1;
	if (out->made || sscanf(line, "ready %u", &out->index) == 1)
		return EXIT_OK;
	if (sscanf(line, "stay %d %n", &status, &at) == 1 && at) {
		*stays = true;
		return fail(status ? status : EXIT_FAIL, "%s", line + at);
	}
	if (sscanf(line, "fail %d %n", &status, &at) == 1 && at)
		return fail(status ? status : EXIT_FAIL, "%s", line + at);
	return -1;
}

/* Takes what the mapper says, until its end. */
static int listen_to(FILE *f, struct launched *out, bool *stays)
{
	char *line = NULL;
	size_t size = 0;
	int status = -1;

	while (status < 0 && getline(&line, &size, f) >= 0)
		status = take_line(line, out, stays);
	free(line);
	return status;
}

/* Its mapper sees to that; udev may be looking at it still. */
static const char *wait_withdrawn(uint32_t index, uint64_t disk)
{
	struct ubdm_device dev = { .state = UBDM_STATE_DYING };
	struct ubdm_ctl *ctl;
	int ret = 0;

	if (driver_ctl(&ctl))
		return "deleted";
	for (int ms = 0; !ret && ms < WITHDRAWN_MS; ms += POLL_MS) {
		poll(NULL, 0, POLL_MS);
		/* Another one may have its number by then. */
		ret = device_disk(index) == disk ?
			      ubdm_ctl_get(ctl, index, &dev) :
			      -ENODEV;
	}
	ubdm_ctl_close(ctl);
	if (ret)
		return "deleted again";
	return dev.state == UBDM_STATE_DYING ? "being deleted" :
					       "in use, and stays";
}

static int say_not_printed(const struct launched *out, uint64_t disk, int error)
{
	const char *what = "serves";
	char path[32];

	device_path(out->index, path);
	if (out->made)
		what = wait_withdrawn(out->index, disk);
	return fail(EXIT_FAIL, "%s: %s, but its name could not be printed: %s",
		    path, what, strerror(error));
}

/* Closes @f, whose other end is the mapper's. */
static int acknowledge(FILE *f, const struct launched *out, bool print)
{
	char path[32];
	bool sent;

	device_path(out->index, path);
	if (out->made && out->partscan)
		device_wait_partscan(out->index);
	if (print && (puts(path) < 0 || fflush(stdout))) {
		int error = errno;
		uint64_t disk = device_disk(out->index);

		fclose(f);
		return say_not_printed(out, disk, error);
	}
	sent = send(fileno(f), "k", 1, MSG_NOSIGNAL) == 1;
	fclose(f);
	if (!sent)
		return fail(EXIT_FAIL,
			    "%s: its mapper ended at once; see the system log",
			    path);
	return EXIT_OK;
}

static int say_died(int how)
{
	if (WIFSIGNALED(how))
		return fail(
			EXIT_FAIL,
			"the mapper died before it was ready (%s); please report this",
			strsignal(WTERMSIG(how)));
	return fail(EXIT_FAIL,
		    "the mapper ended before it was ready; see the system log");
}

/**
 * launch_mapper - start a mapper and wait until it is ready
 * @argc: how many
 * @argv: options and arguments of "ubdmap mapper"
 * @out: what it is and did
 * @print: print the device's name
 *
 * Return: an exit status; what went wrong has been said.
 */
int launch_mapper(int argc, char **argv, struct launched *out, bool print)
{
	int fd[2], status, how = 0;
	bool stays = false;
	pid_t pid;
	FILE *f;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		return fail(EXIT_FAIL, "socketpair: %s", strerror(errno));
	fflush(NULL);
	/* If it is ignored, which is inherited, nobody can wait for a child. */
	signal(SIGCHLD, SIG_DFL);
	pid = fork();
	if (pid < 0)
		return fail(EXIT_FAIL, "fork: %s", strerror(errno));
	if (!pid)
		become_mapper(fd[1], argc, argv);

	close(fd[1]);
	f = fdopen(fd[0], "r");
	if (!f)
		return fail(EXIT_FAIL, "out of memory");
	*out = (struct launched){ .partscan = out->partscan };
	status = listen_to(f, out, &stays);
	if (status == EXIT_OK)
		return acknowledge(f, out, print);
	fclose(f);
	if (stays)
		return status;

	/* It failed and is about to end; nothing is left once it has. */
	while (waitpid(pid, &how, 0) < 0 && errno == EINTR)
		;
	return status < 0 ? say_died(how) : status;
}
