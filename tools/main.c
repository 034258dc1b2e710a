// SPDX-License-Identifier: GPL-2.0-only
/*
 * main.c - ubdmap: block devices from image files; the table of subcommands.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"

static const struct command *const commands[] = {
	&cmd_add,     &cmd_del,	   &cmd_list,	&cmd_stat,
	&cmd_map,     &cmd_attach, &cmd_detach, &cmd_upgrade,
	&cmd_monitor, &cmd_bench,  &cmd_mapper,
};

#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_commands(FILE *to)
{
	fputs("usage: ubdmap COMMAND [OPTION]... [ARGUMENT]...\n\n"
	      "Block devices from image files, served from a translation table in the kernel.\n\n",
	      to);
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (commands[i]->summary)
			fprintf(to, "  %-8s%-24s%s\n", commands[i]->name,
				commands[i]->args, commands[i]->summary);
	fputs("\n  ubdmap COMMAND --help   its options\n"
	      "  ubdmap --version\n\n"
	      "Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such device or file,\n"
	      "4 in use, 5 driver not there, 6 no permission. See ubdmap(8).\n",
	      to);
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

static int no_such_command(const char *name)
{
	return usage_error(NULL, "there is no command '%s'", name);
}

static int help_on(const char *name)
{
	const struct command *cmd = find(name);

	return cmd ? show_help(cmd) : no_such_command(name);
}

/*
 * What we open must not get the number of a standard stream that was closed: it would
 * be written to, or be replaced.  Using such a stream fails as before.
 */
static void occupy_streams(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
		    open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
			_exit(EXIT_FAIL);
}

static int run(int argc, char **argv)
{
	const struct command *cmd;

	if (argc < 2) {
		print_commands(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "help")) {
		if (argc > 2)
			return help_on(argv[2]);
		print_commands(stdout);
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("ubdmap " UBDMAP_VERSION);
		return EXIT_OK;
	}
	cmd = find(argv[1]);
	if (!cmd)
		return no_such_command(argv[1]);
	return cmd->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	int status;

	occupy_streams();
	status = run(argc, argv);
	return status ? status : output_done();
}
