/* Private to filter: the facts that are kept of every block, in this order in filter->facts (parts.c). */
#pragma once

#include "kwm/filter.h"

enum { FILTER_KL, FILTER_MOVED, FILTER_PRODUCT, FILTER_GAIN, FILTER_FACTS };
