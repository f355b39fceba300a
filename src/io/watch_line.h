/* Private to io: the lines of the file DIR/watch, and what they say of a run that stands still. Local and pure. */
#pragma once

#include "kwm/watch.h"

enum { WATCH_LINE = 224 };

/* line (WATCH_LINE): fields with tabs between, filled up with spaces, ended by a newline. */
void kwm_watch_facts_line(char *line, const struct kwm_watch_facts *facts);
void kwm_watch_beat_line(char *line, const struct kwm_beat *beat);

/* text (bytes) <- which rank did not arrive: the one that has begun the fewest phases; among equals one that no longer
   beats, else one that waits for nobody. */
void kwm_watch_blame(char *text, size_t bytes, const struct kwm_watch_facts *facts, const struct kwm_beat *beats,
                     double now);
