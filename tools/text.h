/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * text.h - other people's names in our output.
 */
#ifndef UBDMAP_TEXT_H
#define UBDMAP_TEXT_H

#define TEXT_UTF8_MAX 3 /* bytes for one */

void text_one_line(char *text);
const char *text_utf8(char *to, const char *from);

#endif /* UBDMAP_TEXT_H */
