/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * table.h - memory for extents that a command points to.
 *
 * Three sizes, set aside beforehand; malloc() when a size and those above it
 * are used up.
 */
#ifndef UBDM_TABLE_H
#define UBDM_TABLE_H

#include <pthread.h>
#include <stddef.h>

#include "ubdmap.h"

#define TABLE_CLASSES 3

struct tables {
	pthread_mutex_t lock;
	char *base;
	size_t size;
	struct table_link *free[TABLE_CLASSES];
};

/**
 * ubdm_tables_init - set memory aside
 * @t: to fill
 */
int ubdm_tables_init(struct tables *t);
void ubdm_tables_exit(struct tables *t);

/**
 * ubdm_table_get - room for @nr extents, at least; NULL: none to be had
 * @t: the tables
 * @nr: how many
 */
struct ubdm_extent *ubdm_table_get(struct tables *t, unsigned int nr);
void ubdm_table_put(struct tables *t, struct ubdm_extent *table);

#endif /* UBDM_TABLE_H */
