/* Private to app: what a categorical model foretells of one sample, from the mean z and the covariance C of its logits,
   and how good many such predictions were. Local and pure.

     plug-in    softmax(z): the parameters' mean, as if it were certain
     posterior  the mean of softmax over draws from N(z, C)
     mackay     softmax of z_r / √(1 + π/8 C_rr): no draws (MacKay, The evidence framework applied to classification
                networks, 1992) */
#pragma once

#include "kwm/consistency.h"

enum kwm_outlook_form { KWM_OUTLOOK_PLUGIN, KWM_OUTLOOK_POSTERIOR, KWM_OUTLOOK_MACKAY, KWM_OUTLOOK_FORMS };
enum { KWM_OUTLOOK_CLASSES_MAX = 64, KWM_OUTLOOK_DRAWS = 64 };

/* What speaks for a sample unlike those learned: the higher, the stranger. */
enum kwm_outlook_score {
  KWM_OUTLOOK_ENTROPY_PLUGIN,
  KWM_OUTLOOK_ENTROPY_POSTERIOR,
  KWM_OUTLOOK_INFORMATION,
  KWM_OUTLOOK_MAX_PROBABILITY, /* of the plug-in, its sign turned */
  KWM_OUTLOOK_SCORES
};

struct kwm_outlook {
  double p[KWM_OUTLOOK_FORMS][KWM_OUTLOOK_CLASSES_MAX];
  double entropy[KWM_OUTLOOK_FORMS];
  double information; /* mutual information of label and parameters: posterior's entropy less that of each draw */
};

/* The draws are keyed by (seed, step). C (m, m), its lower triangle read; NULL, or not a finite positive semidefinite
   matrix: all but the plug-in is NaN. */
void kwm_outlook(struct kwm_outlook *outlook, int64_t m, const float *z, const double *C, uint64_t seed, uint64_t step);
double kwm_outlook_score(const struct kwm_outlook *outlook, int64_t m, enum kwm_outlook_score score);

/* Sums over samples, all doubles: they add over ranks. */
struct kwm_outlook_sums {
  double samples, information;
  struct kwm_outlook_form_sums {
    double correct, surprisal, entropy;
    struct kwm_calibration calibration;
  } form[KWM_OUTLOOK_FORMS];
};

void kwm_outlook_add(struct kwm_outlook_sums *sums, int64_t m, const struct kwm_outlook *outlook, int label);
