/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * options.h - how to serve: what "ubdmap add" and "ubdmap mapper" both take.
 */
#ifndef UBDMAP_OPTIONS_H
#define UBDMAP_OPTIONS_H

#include "cmd.h"

/**
 * struct serve_options - how to serve
 * @image: NULL with @attach
 * @format: NULL: from the name
 * @read_only: nothing is written
 * @partscan: look for partitions
 * @block_size: logical, bytes; 0: the smallest that is possible
 * @cache_bytes: 0: the default
 * @space_timeout: seconds; negative: the default
 * @orphan_timeout: seconds that requests wait without a mapper
 * @detach: go once all is mapped
 * @take_over: @attach may have a mapper: that one makes room
 * @attach: a device that lost its mapper, or NULL
 * @foreground: stay, print the device's name
 * @ready_fd: where to tell, or -1
 * @args: the same for "ubdmap mapper", no option abbreviated; as long as the program
 * @nr_args: how many
 */
struct serve_options {
	const char *image;
	const char *format;
	bool read_only;
	bool partscan;
	uint32_t block_size;
	uint64_t cache_bytes;
	int space_timeout;
	int orphan_timeout;
	bool detach;
	bool take_over;
	const char *attach;
	bool foreground;
	int ready_fd;
	char **args;
	int nr_args;
};

#define OPTIONS_HELP_DONE (-1)

/**
 * parse_serve - read the options of @cmd
 * @internal: those of "ubdmap mapper" too
 *
 * Return: EXIT_OK, EXIT_USAGE or EXIT_FAIL (it was said what is wrong), or
 * OPTIONS_HELP_DONE.
 */
int parse_serve(const struct command *cmd, int argc, char **argv, bool internal,
		struct serve_options *o);

#endif /* UBDMAP_OPTIONS_H */
