// SPDX-License-Identifier: GPL-2.0-only
/*
 * text.c - other people's names in our output.
 *
 * The name of an image may have any byte in it but NUL.
 */
#include <stdbool.h>
#include <string.h>

#include "text.h"

/* Bytes of the character at @s as of RFC 3629; 0: there is none. */
static unsigned int char_bytes(const unsigned char *s)
{
	static const struct {
		unsigned char from, to, second_from, second_to, bytes;
	} forms[] = {
		{ 0x01, 0x7f, 0, 0, 1 },	{ 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 },	{ 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 },	{ 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 },	{ 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	for (unsigned int i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		unsigned int n = forms[i].bytes;

		if (s[0] < forms[i].from || s[0] > forms[i].to)
			continue;
		if (n > 1 && (s[1] < forms[i].second_from || s[1] > forms[i].second_to))
			return 0;
		for (unsigned int at = 2; at < n; at++)
			if (s[at] < 0x80 || s[at] > 0xbf)
				return 0;
		return n;
	}
	return 0;
}

/* In ISO 6429, by itself (in an eight-bit code) or as UTF-8. */
static bool is_control(const unsigned char *s, unsigned int bytes)
{
	if (bytes == 2)
		return s[0] == 0xc2 && s[1] < 0xa0;
	return bytes < 2 && (s[0] < ' ' || (s[0] >= 0x7f && s[0] < 0xa0));
}

/**
 * text_one_line - have nothing in a text that a terminal acts on
 * @text: changed in place: '?' for each byte of a control character
 *
 * With a newline in it a name could pass for a line of its own.
 */
void text_one_line(char *text)
{
	while (*text) {
		const unsigned char *s = (const unsigned char *)text;
		unsigned int n = char_bytes(s);

		if (is_control(s, n))
			memset(text, '?', n ? n : 1);
		text += n ? n : 1;
	}
}

/**
 * text_utf8 - what JSON may have in a string
 * @to: room for TEXT_UTF8_MAX times the bytes of @from, and one
 * @from: any bytes
 *
 * What is no UTF-8 becomes U+FFFD, each byte for itself.
 *
 * Return: @to.
 */
const char *text_utf8(char *to, const char *from)
{
	static const char unknown[] = "\xef\xbf\xbd";
	char *at = to;

	while (*from) {
		unsigned int n = char_bytes((const unsigned char *)from);

		if (n) {
			memcpy(at, from, n);
			at += n;
			from += n;
		} else {
			memcpy(at, unknown, 3);
			at += 3;
			from++;
		}
	}
	*at = '\0';
	return to;
}
