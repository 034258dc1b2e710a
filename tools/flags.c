// SPDX-License-Identifier: GPL-2.0-only
/*
 * flags.c - the command line of a command whose options are on or off, and what all
 * say of options that they do not know.
 */
#include <getopt.h>
#include <limits.h>
#include <stddef.h>

#include "cmd.h"

#define MAX_FLAGS 4

/*
 * Which option getopt_long() did not take: a letter, which may stand among others, or
 * the last word that it looked at.
 */
static const char *wrong_option(char **argv)
{
	static char letter[3] = "-";

	if (optopt <= 0 || optopt > CHAR_MAX)
		return argv[optind - 1];
	letter[1] = optopt;
	return letter;
}

/**
 * parse_flags - options, and how many arguments there may be
 * @cmd: whose --help this is
 * @argc: as for main()
 * @argv: as for main(); reordered
 * @flags: its options besides --help; ends with one without a name
 * @want: the arguments that it takes
 *
 * The arguments are argv[optind] and so on afterwards.
 *
 * Return: PARSED, or the exit status: help was shown, or an error was said.
 */
int parse_flags(const struct command *cmd, int argc, char **argv,
		const struct flag *flags, const struct arguments *want)
{
	struct option longopts[MAX_FLAGS + 2] = {
		{ "help", no_argument, NULL, 'h' }
	};
	char shortopts[MAX_FLAGS + 2] = "h", *s = shortopts + 1;
	int c, nr = 0;

	for (; nr < MAX_FLAGS && flags[nr].name; nr++) {
		longopts[nr + 1] = (struct option){ flags[nr].name, no_argument,
						    NULL, 256 + nr };
		if (flags[nr].letter)
			*s++ = flags[nr].letter;
	}
	opterr = 0;
	optind = 1;
	while ((c = getopt_long(argc, argv, shortopts, longopts, NULL)) >= 0) {
		int i = 0;

		if (c == 'h')
			return show_help(cmd);
		while (i < nr && c != 256 + i && c != flags[i].letter)
			i++;
		if (i == nr)
			return usage_error(cmd, "%s: no such option",
					   wrong_option(argv));
		*flags[i].set = true;
	}
	if (argc - optind < want->least)
		return usage_error(cmd, "%s", want->too_few);
	if (argc - optind > want->most)
		return usage_error(cmd, "%s", want->too_many);
	return PARSED;
}

/**
 * no_such_option - say so, where options may have arguments
 * @cmd: whose option it should be
 * @argv: as getopt_long() left it when it met the option
 *
 * Return: EXIT_USAGE.
 */
int no_such_option(const struct command *cmd, char **argv)
{
	return usage_error(cmd, "%s: no such option, or its argument is missing",
			   wrong_option(argv));
}
