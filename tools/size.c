// SPDX-License-Identifier: GPL-2.0-only
/*
 * size.c - sizes and numbers as people write and read them; K, M, G, T are powers
 * of 1024.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"

static const char units[] = "KMGTPE";

static int shift_of(const char *unit)
{
	const char *at;

	if (!*unit)
		return 0;
	at = strchr(units, toupper((unsigned char)*unit));
	if (!at || (unit[1] && strcmp(unit + 1, "iB") && strcmp(unit + 1, "B")))
		return -1;
	return 10 * (int)(at - units + 1);
}

/**
 * parse_size - "512", "64K", "1.5" is not one
 *
 * Return: 0; -EINVAL; -ERANGE if it does not fit.
 */
int parse_size(const char *text, uint64_t *bytes)
{
	unsigned long long v;
	char *end;
	int shift;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	shift = shift_of(end);
	if (shift < 0)
		return -EINVAL;
	if (shift && v >> (64 - shift))
		return -ERANGE;
	*bytes = (uint64_t)v << shift;
	return 0;
}

/**
 * parse_number - "5", and nothing behind it
 * @text: what was typed
 * @least: that it has to be
 * @most: that it may be
 * @number: set if it is one
 *
 * Return: 0; -EINVAL; -ERANGE if it is none of @least to @most.
 */
int parse_number(const char *text, long least, long most, long *number)
{
	char *end;
	long v;

	errno = 0;
	v = strtol(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (end == text || *end)
		return -EINVAL;
	if (v < least || v > most)
		return -ERANGE;
	*number = v;
	return 0;
}

/**
 * format_size - with one decimal where it is needed, as lsblk does
 */
const char *format_size(uint64_t bytes, char buf[16])
{
	uint64_t tenths;
	int u = -1;

	while (u < 5 && bytes >> (10 * (u + 2)))
		u++;
	if (u < 0) {
		snprintf(buf, 16, "%uB", (unsigned int)bytes);
		return buf;
	}
	tenths = (bytes >> (10 * u)) * 10 / 1024;
	if (tenths % 10)
		snprintf(buf, 16, "%u.%u%c", (unsigned int)(tenths / 10),
			 (unsigned int)(tenths % 10), units[u]);
	else
		snprintf(buf, 16, "%u%c", (unsigned int)(tenths / 10),
			 units[u]);
	return buf;
}
