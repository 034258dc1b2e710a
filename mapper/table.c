// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * table.c - memory for extents that a command points to; see table.h.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "table.h"

struct table_link {
	struct table_link *next;
};

static const struct {
	unsigned int extents, count;
} classes[TABLE_CLASSES] = {
	{ 16, 128 },
	{ 256, 32 },
	{ 4096, 8 },
};

static size_t class_bytes(int c)
{
	return classes[c].extents * sizeof(struct ubdm_extent) *
	       classes[c].count;
}

int ubdm_tables_init(struct tables *t)
{
	char *at;

	t->size = 0;
	for (int c = 0; c < TABLE_CLASSES; c++)
		t->size += class_bytes(c);
	t->base = malloc(t->size);
	if (!t->base)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);

	at = t->base;
	for (int c = 0; c < TABLE_CLASSES; c++) {
		t->free[c] = NULL;
		for (unsigned int i = 0; i < classes[c].count; i++) {
			struct table_link *l = (struct table_link *)at;

			l->next = t->free[c];
			t->free[c] = l;
			at += classes[c].extents * sizeof(struct ubdm_extent);
		}
	}
	return 0;
}

void ubdm_tables_exit(struct tables *t)
{
	if (!t->base)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t->base);
	t->base = NULL;
}

struct ubdm_extent *ubdm_table_get(struct tables *t, unsigned int nr)
{
	struct table_link *l = NULL;

	pthread_mutex_lock(&t->lock);
	for (int c = 0; c < TABLE_CLASSES && !l; c++) {
		if (classes[c].extents < nr || !t->free[c])
			continue;
		l = t->free[c];
		t->free[c] = l->next;
	}
	pthread_mutex_unlock(&t->lock);

	if (!l)
		l = calloc(nr, sizeof(struct ubdm_extent));
	return (struct ubdm_extent *)l;
}

void ubdm_table_put(struct tables *t, struct ubdm_extent *table)
{
	struct table_link *l = (struct table_link *)table;
	uintptr_t at = (uintptr_t)table - (uintptr_t)t->base;
	int c = 0;

	if (!table)
		return;
	if (at >= t->size) {
		free(table);
		return;
	}
	while (at >= class_bytes(c))
		at -= class_bytes(c++);

	pthread_mutex_lock(&t->lock);
	l->next = t->free[c];
	t->free[c] = l;
	pthread_mutex_unlock(&t->lock);
}
