/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cmd.h - what the subcommands of ubdmap share.
 */
#ifndef UBDMAP_CMD_H
#define UBDMAP_CMD_H

#include <stdbool.h>
#include <stdint.h>

#include "libubdmap.h"

#define UBDMAP_VERSION "0.1"

/* Exit status; documented in ubdmap(8). */
enum {
	EXIT_OK = 0,
	EXIT_FAIL = 1, /* anything without a number of its own */
	EXIT_USAGE = 2, /* wrong option or argument */
	EXIT_NOENT = 3, /* no such device or file */
	EXIT_BUSY = 4, /* device or image in use */
	EXIT_DRIVER = 5, /* driver not loaded, or another version */
	EXIT_PERM = 6, /* no permission */
	/* Between a mapper and its keeper only. */
	EXIT_HANDED_OVER = 64, /* asked to make room for another mapper */
	EXIT_NOT_NEEDED = 65, /* the device is gone, or another one serves it */
};

/**
 * struct command - one subcommand
 * @name: what the user types
 * @args: its arguments, for the usage line
 * @summary: half a line; NULL: not for people, not listed
 * @help: its options
 * @run: argv[0] is @name; returns the exit status
 */
struct command {
	const char *name;
	const char *args;
	const char *summary;
	const char *help;
	int (*run)(int argc, char **argv);
};

extern const struct command cmd_add, cmd_del, cmd_list, cmd_stat, cmd_map,
	cmd_attach, cmd_detach, cmd_upgrade, cmd_monitor, cmd_bench, cmd_mapper;

/* say.c: messages */
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int fail(int status, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
int usage_error(const struct command *cmd, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
int show_help(const struct command *cmd);
int output_done(void);
int exit_status_of(int error);

/* flags.c: command lines without much */
#define PARSED (-1)

/**
 * struct flag - an option that is on or off
 * @name: behind two dashes
 * @letter: behind one; 0: none
 * @set: set to true where it is given
 */
struct flag {
	const char *name;
	char letter;
	bool *set;
};

/**
 * struct arguments - what follows the options
 * @least: how many at least
 * @most: and at most
 * @too_few: what is wrong with less
 * @too_many: and with more
 */
struct arguments {
	int least, most;
	const char *too_few, *too_many;
};

int parse_flags(const struct command *cmd, int argc, char **argv,
		const struct flag *flags, const struct arguments *want);
int no_such_option(const struct command *cmd, char **argv);

/* size.c: sizes and numbers as people write them */
int parse_size(const char *text, uint64_t *bytes);
int parse_number(const char *text, long least, long most, long *number);
const char *format_size(uint64_t bytes, char buf[16]);

/* driver.c: reaching the driver, or saying why not */
int driver_channel(int *fd);
int driver_ctl(struct ubdm_ctl **ctl);
const char *driver_missing(void);

/* device.c: devices by name, and who uses them */
int device_index(const char *name, uint32_t *index);
void device_path(uint32_t index, char buf[32]);
bool device_node_ready(uint32_t index);
uint64_t device_disk(uint32_t index);
void device_wait_partscan(uint32_t index);
bool device_users(uint32_t index, char *buf, int size);
int device_get(struct ubdm_ctl *ctl, const char *name, struct ubdm_device *dev);
int device_all(struct ubdm_ctl *ctl, uint32_t **index, unsigned int *nr);
const char *device_state(const struct ubdm_device *dev);

/**
 * struct launched - a mapper that serves
 * @index: N of its device
 * @made: which is new
 * @pause_ms: a miss was seen to wait so long before it attached, with --take-over
 * @partscan: in: a new device's partitions are to be there when its name is printed
 */
struct launched {
	uint32_t index;
	bool made;
	uint64_t pause_ms;
	bool partscan;
};

/* launch.c: a mapper in the background */
int launch_mapper(int argc, char **argv, struct launched *out, bool print);

struct json_object;
/* json.c */
int print_json(struct json_object *obj);

#endif /* UBDMAP_CMD_H */
