// SPDX-License-Identifier: GPL-2.0-only
/*
 * options.c - how to serve; see options.h.
 */
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

#define TIMEOUT_MAX 86400
/*
 * For requests that wait for a mapper, with nobody left to start one: at a
 * shutdown, when everybody was killed, somebody's sync() has to come to an end.
 */
#define ORPHAN_TIMEOUT 120

enum {
	OPT_CACHE = 256,
	OPT_SPACE,
	OPT_ORPHAN,
	OPT_DETACH,
	OPT_ATTACH,
	OPT_FOREGROUND,
	OPT_READY_FD,
	OPT_TAKE_OVER,
};

#define NR_INTERNAL 4

static const struct option longopts[] = {
	/* of "ubdmap mapper" only */
	{ "attach", required_argument, NULL, OPT_ATTACH },
	{ "foreground", no_argument, NULL, OPT_FOREGROUND },
	{ "ready-fd", required_argument, NULL, OPT_READY_FD },
	{ "take-over", no_argument, NULL, OPT_TAKE_OVER },
	/* of all */
	{ "read-only", no_argument, NULL, 'r' },
	{ "format", required_argument, NULL, 'f' },
	{ "sector-size", required_argument, NULL, 'b' },
	{ "partscan", no_argument, NULL, 'P' },
	{ "cache-size", required_argument, NULL, OPT_CACHE },
	{ "space-timeout", required_argument, NULL, OPT_SPACE },
	{ "orphan-timeout", required_argument, NULL, OPT_ORPHAN },
	{ "detach", no_argument, NULL, OPT_DETACH },
	{ "help", no_argument, NULL, 'h' },
	{}
};

static int take_block_size(const struct command *cmd, struct serve_options *o)
{
	uint64_t v;

	if (parse_size(optarg, &v) || v < 512 || v > 4096 || (v & (v - 1)))
		return usage_error(
			cmd,
			"-b %s: a sector has 512, 1024, 2048 or 4096 bytes",
			optarg);
	o->block_size = v;
	return EXIT_OK;
}

static int take_cache(const struct command *cmd, struct serve_options *o)
{
	if (parse_size(optarg, &o->cache_bytes) || !o->cache_bytes)
		return usage_error(
			cmd, "--cache-size %s: not a size such as 64M", optarg);
	return EXIT_OK;
}

static int take_seconds(const struct command *cmd, const char *name,
			int *seconds)
{
	long v;

	if (parse_number(optarg, 0, TIMEOUT_MAX, &v))
		return usage_error(
			cmd, "%s %s: seconds, at most %d; 0 waits without end",
			name, optarg, TIMEOUT_MAX);
	*seconds = v;
	return EXIT_OK;
}

static int take_format(const struct command *cmd, struct serve_options *o)
{
	if (strcmp(optarg, "raw") && strcmp(optarg, "qcow2"))
		return usage_error(cmd, "-f %s: the formats are raw and qcow2",
				   optarg);
	o->format = optarg;
	return EXIT_OK;
}

static int take_fd(const struct command *cmd, struct serve_options *o)
{
	long v;

	if (parse_number(optarg, 0, INT_MAX, &v) || fcntl(v, F_GETFD) < 0)
		return usage_error(cmd, "--ready-fd %s: not an open descriptor",
				   optarg);
	o->ready_fd = v;
	return EXIT_OK;
}

static int take(const struct command *cmd, int c, struct serve_options *o)
{
	switch (c) {
	case 'r':
		o->read_only = true;
		return EXIT_OK;
	case 'f':
		return take_format(cmd, o);
	case 'b':
		return take_block_size(cmd, o);
	case 'P':
		o->partscan = true;
		return EXIT_OK;
	case OPT_CACHE:
		return take_cache(cmd, o);
	case OPT_SPACE:
		return take_seconds(cmd, "--space-timeout", &o->space_timeout);
	case OPT_ORPHAN:
		return take_seconds(cmd, "--orphan-timeout",
				    &o->orphan_timeout);
	case OPT_DETACH:
		o->detach = true;
		return EXIT_OK;
	case OPT_TAKE_OVER:
		o->take_over = true;
		return EXIT_OK;
	case OPT_ATTACH:
		o->attach = optarg;
		return EXIT_OK;
	case OPT_FOREGROUND:
		o->foreground = true;
		return EXIT_OK;
	case OPT_READY_FD:
		return take_fd(cmd, o);
	case 'h':
		show_help(cmd);
		return OPTIONS_HELP_DONE;
	default:
		return -2;
	}
}

static int add_arg(struct serve_options *o, char *word)
{
	char **more = reallocarray(o->args, o->nr_args + 1, sizeof(*more));

	if (!more || !word)
		return fail(EXIT_FAIL, "out of memory");
	more[o->nr_args++] = word;
	o->args = more;
	return EXIT_OK;
}

/*
 * What abbreviates an option of "add" may fit one of the mapper's own as well.  @c is
 * one of those in the table.
 */
static int spell_out(int c, struct serve_options *o)
{
	const struct option *opt = longopts;
	char *word;

	while (opt->val != c)
		opt++;
	if (asprintf(&word, "--%s%s%s", opt->name, opt->has_arg ? "=" : "",
		     opt->has_arg ? optarg : "") < 0)
		word = NULL;
	return add_arg(o, word);
}

static int take_image(const struct command *cmd, int argc, char **argv,
		      struct serve_options *o)
{
	if (o->attach && optind == argc)
		return EXIT_OK;
	if (o->attach || optind + 1 != argc)
		return usage_error(cmd, optind < argc ? "one image at a time" :
							"which image?");
	o->image = argv[optind];
	return add_arg(o, "--") ?: add_arg(o, argv[optind]);
}

int parse_serve(const struct command *cmd, int argc, char **argv, bool internal,
		struct serve_options *o)
{
	const struct option *opts = longopts + (internal ? 0 : NR_INTERNAL);
	int c, ret;

	*o = (struct serve_options){
		.ready_fd = -1,
		.space_timeout = -1,
		.orphan_timeout = ORPHAN_TIMEOUT,
	};
	opterr = 0;
	optind = 1;
	while ((c = getopt_long(argc, argv, "rf:b:Ph", opts, NULL)) >= 0) {
		ret = take(cmd, c, o);
		if (ret == -2)
			return no_such_option(cmd, argv);
		if (!ret)
			ret = spell_out(c, o);
		if (ret)
			return ret;
	}
	return take_image(cmd, argc, argv, o);
}
