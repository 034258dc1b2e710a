// SPDX-License-Identifier: GPL-2.0-only
/*
 * json.c - the end of every --json.
 */
#include <stdio.h>

#include <json-c/json.h>

#include "cmd.h"

/* Prints @obj, an array of devices or extents in an object, and drops it. */
int print_json(struct json_object *obj)
{
	puts(json_object_to_json_string_ext(
		obj, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
			     JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(obj);
	return EXIT_OK;
}
