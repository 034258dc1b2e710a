// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_bench.c - ubdmap bench: how fast is it here, beside what else there is?
 *
 * This looks at the arguments and at what would be written to.  The measuring is
 * done by a script, tools/bench/bench.sh, which puts drivers on the storage and has
 * to take them away again.  So no signal may hit it, or a program it runs, at an
 * awkward moment: it has a process group of its own, what we get is passed on as
 * one SIGTERM to the script alone, and it gets that as well if we are killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/fs.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"

#define MIB (1ULL << 20)
#define DEFAULT_SIZE (1024 * MIB)
#define MIN_SIZE (16 * MIB)
#define RUNTIME_MAX 3600
#define TURNS_MAX 1000

enum {
	OPT_SVG = 256,
	OPT_RUNTIME,
	OPT_TURNS,
	OPT_ROWS,
	OPT_LOADS,
	OPT_SIZE,
	OPT_OVERWRITE,
};

static const struct option longopts[] = {
	{ "json", no_argument, NULL, 'J' },
	{ "svg", required_argument, NULL, OPT_SVG },
	{ "runtime", required_argument, NULL, OPT_RUNTIME },
	{ "turns", required_argument, NULL, OPT_TURNS },
	{ "rows", required_argument, NULL, OPT_ROWS },
	{ "loads", required_argument, NULL, OPT_LOADS },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "overwrite", no_argument, NULL, OPT_OVERWRITE },
	{ "help", no_argument, NULL, 'h' },
	{}
};

/**
 * struct bench - what is asked for
 * @name: of the file or device, as the user wrote it
 * @path: the same, absolute
 * @kind: what it is: "new", "empty", "file", "disk"
 * @size_bytes: how much of it is used; 0: not said
 * @runtime: seconds for each measurement
 * @turns: how often all of them
 * @rows: regular expression
 * @loads: regular expression
 * @json: not a table
 * @svg: a file for a chart, or NULL
 * @overwrite: what is there may be lost
 */
struct bench {
	const char *name;
	char path[PATH_MAX];
	const char *kind;
	uint64_t size_bytes;
	long runtime;
	long turns;
	const char *rows;
	const char *loads;
	bool json;
	const char *svg;
	bool overwrite;
};

static int take_number(const char *name, long most, long *number)
{
	if (parse_number(optarg, 1, most, number))
		return usage_error(&cmd_bench, "%s %s: a number from 1 to %ld",
				   name, optarg, most);
	return EXIT_OK;
}

static int take_pattern(const char *name, const char **pattern)
{
	regex_t re;

	if (regcomp(&re, optarg, REG_EXTENDED | REG_NOSUB))
		return usage_error(&cmd_bench,
				   "%s %s: not a regular expression", name,
				   optarg);
	regfree(&re);
	*pattern = optarg;
	return EXIT_OK;
}

static int take_size(struct bench *b)
{
	if (parse_size(optarg, &b->size_bytes) || b->size_bytes < MIN_SIZE)
		return usage_error(&cmd_bench,
				   "--size %s: not a size of 16M or more",
				   optarg);
	return EXIT_OK;
}

/* Returns an exit status, or -1: there is no such option. */
static int take(struct bench *b, int c)
{
	switch (c) {
	case 'J':
		b->json = true;
		return EXIT_OK;
	case OPT_SVG:
		b->svg = optarg;
		return EXIT_OK;
	case OPT_RUNTIME:
		return take_number("--runtime", RUNTIME_MAX, &b->runtime);
	case OPT_TURNS:
		return take_number("--turns", TURNS_MAX, &b->turns);
	case OPT_ROWS:
		return take_pattern("--rows", &b->rows);
	case OPT_LOADS:
		return take_pattern("--loads", &b->loads);
	case OPT_SIZE:
		return take_size(b);
	case OPT_OVERWRITE:
		b->overwrite = true;
		return EXIT_OK;
	default:
		return -1;
	}
}

/* Its folder has to be there; the name itself need not be. */
static int absolute_path(struct bench *b)
{
	char folder[PATH_MAX];
	const char *last = strrchr(b->name, '/');

	if (realpath(b->name, b->path))
		return EXIT_OK;
	if (errno != ENOENT || strlen(b->name) >= sizeof(folder))
		return fail(exit_status_of(-errno), "%s: %s", b->name,
			    strerror(errno));
	snprintf(folder, sizeof(folder), "%.*s",
		 last ? (int)(last - b->name) + 1 : 1, last ? b->name : ".");
	last = last ? last + 1 : b->name;
	if (!realpath(folder, b->path))
		return fail(exit_status_of(-errno), "%s: %s", b->name,
			    strerror(errno));
	if (!*last || strlen(b->path) + strlen(last) + 2 > sizeof(b->path))
		return fail(EXIT_FAIL, "%s: that is no name for a file",
			    b->name);
	if (strcmp(b->path, "/"))
		strcat(b->path, "/");
	strcat(b->path, last);
	return EXIT_OK;
}

/* How much of it, where it has a size of its own. */
static int limit_size(struct bench *b, uint64_t has_bytes)
{
	if (b->size_bytes > has_bytes)
		return fail(EXIT_FAIL, "%s has only %llu bytes; see --size",
			    b->name, (unsigned long long)has_bytes);
	if (has_bytes < MIN_SIZE)
		return fail(EXIT_FAIL, "%s is too small: 16M are needed",
			    b->name);
	if (!b->size_bytes)
		b->size_bytes = has_bytes < DEFAULT_SIZE ? has_bytes :
							   DEFAULT_SIZE;
	return EXIT_OK;
}

static int look_at_disk(struct bench *b, int fd)
{
	uint64_t bytes;

	if (ioctl(fd, BLKGETSIZE64, &bytes))
		return fail(EXIT_FAIL, "%s: %s", b->name, strerror(errno));
	b->kind = "disk";
	return limit_size(b, bytes);
}

static int look_at_file(struct bench *b, const struct stat *st)
{
	b->kind = st->st_size ? "file" : "empty";
	if (st->st_size)
		return limit_size(b, st->st_size);
	return EXIT_OK;
}

/*
 * What is there?  Nothing is opened but files and block devices; a block device
 * that is mounted, or part of something, refuses to be opened exclusively.
 */
static int look_at_target(struct bench *b)
{
	struct stat st;
	int fd, status;

	if (stat(b->path, &st)) {
		if (errno != ENOENT)
			return fail(exit_status_of(-errno), "%s: %s", b->name,
				    strerror(errno));
		b->kind = "new";
		return EXIT_OK;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return fail(EXIT_FAIL, "%s: neither a file nor a block device",
			    b->name);
	if (!b->overwrite && (S_ISBLK(st.st_mode) || st.st_size))
		return fail(
			EXIT_FAIL,
			"%s would be overwritten; say --overwrite if that may be",
			b->name);
	fd = open(b->path,
		  O_RDWR | O_CLOEXEC | (S_ISBLK(st.st_mode) ? O_EXCL : 0));
	if (fd < 0)
		return fail(
			exit_status_of(-errno), "%s: %s", b->name,
			errno == EBUSY ?
				"in use: mounted, or part of another device" :
				strerror(errno));
	status = S_ISBLK(st.st_mode) ? look_at_disk(b, fd) :
				       look_at_file(b, &st);
	close(fd);
	return status;
}

/* Beside this program: as installed, or as built. */
static int find_script(char path[PATH_MAX], char self[PATH_MAX])
{
	static const char *const places[] = { "../libexec/ubdmap/bench",
					      "../tools/bench" };
	char *last;
	ssize_t n;

	n = readlink("/proc/self/exe", self, PATH_MAX - 1);
	if (n < 0)
		return fail(EXIT_FAIL, "/proc/self/exe: %s", strerror(errno));
	self[n] = '\0';
	last = strrchr(self, '/');
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		n = snprintf(path, PATH_MAX, "%.*s/%s/bench.sh",
			     (int)(last - self), self, places[i]);
		if (n < PATH_MAX && !access(path, X_OK))
			return EXIT_OK;
	}
	return fail(
		EXIT_FAIL,
		"the scripts of bench are missing beside %s; make install has them",
		self);
}

/* In the child.  A background process group may write to the terminal so. */
static void __attribute__((noreturn))
become_script(const char *script, const char *self, const struct bench *b,
	      pid_t parent)
{
	char mib[24], seconds[24], turns[24];
	char *args[] = { (char *)script,
			 (char *)b->path,
			 (char *)b->kind,
			 mib,
			 seconds,
			 turns,
			 (char *)b->rows,
			 (char *)b->loads,
			 b->json ? "json" : "table",
			 (char *)(b->svg ? b->svg : ""),
			 NULL };
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	snprintf(mib, sizeof(mib), "%llu",
		 (unsigned long long)(b->size_bytes / MIB));
	snprintf(seconds, sizeof(seconds), "%ld", b->runtime);
	snprintf(turns, sizeof(turns), "%ld", b->turns);
	setpgid(0, 0);
	signal(SIGTTOU, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() == parent && null >= 0 && dup2(null, 0) >= 0 &&
	    !setenv("UBDMAP", self, 1))
		execv(script, args);
	warn("%s: %s", script, strerror(errno));
	_exit(EXIT_FAIL);
}

/* What ends us, unless who started us had it ignored, and the child's end. */
static void signals_to_wait_for(sigset_t *set)
{
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction is;

	signal(SIGCHLD, SIG_DFL);
	sigemptyset(set);
	sigaddset(set, SIGCHLD);
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (!sigaction(ends[i], NULL, &is) && is.sa_handler != SIG_IGN)
			sigaddset(set, ends[i]);
}

/*
 * Until the script has ended.  A signal ends us too, but after it.  That it failed is all
 * that its status says: it may be that of any program in it.
 */
static int attend(pid_t child, const sigset_t *set, const sigset_t *old)
{
	int sig, how, got = 0;

	while (!waitpid(child, &how, WNOHANG)) {
		if (sigwait(set, &sig) || sig == SIGCHLD)
			continue;
		got = sig;
		kill(child, SIGTERM);
	}
	if (got) {
		signal(got, SIG_DFL);
		sigprocmask(SIG_SETMASK, old, NULL);
		raise(got);
	}
	if (WIFEXITED(how))
		return WEXITSTATUS(how) ? EXIT_FAIL : EXIT_OK;
	return fail(EXIT_FAIL, "the script of bench was killed (%s)",
		    strsignal(WTERMSIG(how)));
}

static int run_script(const struct bench *b)
{
	char script[PATH_MAX], self[PATH_MAX];
	sigset_t set, old;
	pid_t child, parent = getpid();
	int status;

	status = find_script(script, self);
	if (status)
		return status;
	signals_to_wait_for(&set);
	sigprocmask(SIG_BLOCK, &set, &old);
	fflush(NULL);
	child = fork();
	if (child < 0)
		return fail(EXIT_FAIL, "fork: %s", strerror(errno));
	if (!child) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		become_script(script, self, b, parent);
	}
	return attend(child, &set, &old);
}

static int measure(struct bench *b)
{
	int fd, status;

	status = absolute_path(b);
	if (!status)
		status = look_at_target(b);
	if (!status)
		status = driver_channel(&fd);
	if (status)
		return status;
	close(fd);
	if (geteuid())
		return fail(
			EXIT_PERM,
			"bench makes loop devices and the like: no permission; run as root");
	if (!b->size_bytes)
		b->size_bytes = DEFAULT_SIZE;
	return run_script(b);
}

static int run_bench(int argc, char **argv)
{
	struct bench b = { .runtime = 3, .turns = 5, .rows = ".", .loads = "." };
	int c, status;

	opterr = 0;
	optind = 1;
	while ((c = getopt_long(argc, argv, "Jh", longopts, NULL)) >= 0) {
		if (c == 'h')
			return show_help(&cmd_bench);
		status = take(&b, c);
		if (status < 0)
			return no_such_option(&cmd_bench, argv);
		if (status)
			return status;
	}
	if (optind + 1 != argc || !*argv[optind])
		return usage_error(&cmd_bench,
				   optind + 1 < argc ?
					   "one file or device at a time" :
					   "which file or device?");
	b.name = argv[optind];
	return measure(&b);
}

const struct command cmd_bench = {
	.name = "bench",
	.args = "[OPTION]... FILE",
	.summary = "measure it here, beside loop, qemu-nbd and others",
	.help = "Measures, with fio and O_DIRECT, what reads and writes cost by each way there is\n"
		"on this machine to FILE: directly, dm-linear, loop, qemu-nbd, ublk, ubdmap, and\n"
		"qcow2 images beside it. FILE is a file that is not there yet, and is removed\n"
		"afterwards, or a scratch file or block device whose content may be lost. What\n"
		"is missing on this machine is named. Everything is taken in turns; what is\n"
		"printed are medians, with the least and the most. Needs fio and jq, and for\n"
		"images qemu-img and four times the room.\n"
		"\n"
		"      --overwrite         FILE is a block device, or not empty: it is lost\n"
		"      --size SIZE         how much of it is used (1G)\n"
		"      --runtime S         seconds for each measurement (3)\n"
		"      --turns N           how many of each (5)\n"
		"      --rows PATTERN      only rows that match, a regular expression\n"
		"      --loads PATTERN     only loads that match\n"
		"      --svg CHART         write a chart, with the least and the most as lines\n"
		"  -J, --json              JSON, not a table\n"
		"  -h, --help              this\n",
	.run = run_bench,
};
