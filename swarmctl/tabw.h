/* tabw.h - columns: text with tabs between cells comes out aligned, as Go's text/tabwriter does it with blanks. */
#pragma once

#include "common/util/str.h"

/*
 * tabw_format - a column is a run of consecutive lines that have a tab after that cell; it is as wide as its widest
 * cell and `padding`, at least `min_width`. What follows a line's last tab belongs to no column.
 */
void tabw_format(struct buf *out, struct str text, unsigned min_width, unsigned padding);
