/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * flush.h - FLUSH and FUA: by the kernel alone, or by the mapper.
 */
#ifndef UBDM_FLUSH_H
#define UBDM_FLUSH_H

#include "dev.h"

void ubdm_flush_bio(struct ubdm_dev *dev, struct bio *bio);
void ubdm_flush_park(struct ubdm_dev *dev, struct bio *bio, u64 tid);
void ubdm_flush_answered(struct ubdm_dev *dev, struct bio_list *bios, int error);
void ubdm_flush_failed(struct ubdm_dev *dev, int error);
int ubdm_flush_check(struct ubdm_dev *dev);
void ubdm_flush_work(struct work_struct *work);

#endif /* UBDM_FLUSH_H */
