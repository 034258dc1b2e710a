/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cuts.h - every power cut of a recording, decided exactly.
 */
#ifndef TESTS_FAKE_CUTS_H
#define TESTS_FAKE_CUTS_H

#include <stdbool.h>
#include <stddef.h>

/**
 * struct cuts_sum - what was decided; adds up over recordings
 * @places: places of the log, each with all images that a cut there may leave
 * @recordings: how many
 * @most_values: that one sector of the file might have had
 * @open_sectors: most sectors that might have had more than one: there were
 *	at least two to the power of that many images
 * @leaks: sum over recordings of the most clusters that a cut would leak
 * @most_leaks: the most that one would
 */
struct cuts_sum {
	unsigned long places, recordings;
	unsigned int most_values, open_sectors;
	unsigned long leaks;
	unsigned int most_leaks;
};

/*
 * Decide the recording in rec, of a qcow2 image.  False: some image after some cut
 * is corrupt, or shows what is not allowed; why says which.
 */
bool cuts_decide(struct cuts_sum *sum, char *why, size_t len);

#endif /* TESTS_FAKE_CUTS_H */
