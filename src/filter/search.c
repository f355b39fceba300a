/* How far to go along the step: with Δ_g = scale_g δ_g of every group, the means become θ + cΔ for the c that minimises

     L(c) = NLL(θ + cΔ) + ½ c² ΔᵀΛΔ,    NLL(θ + cΔ) ≈ N0 - c S + ½ c² B

   over [0, 1]: the iterated filter's objective along a line, its curvature B from one more forward pass of the same
   mini-batch: N1 = N0 - S + ½B. From the gain, s and δ being the score and the step of a group, (Λ + F)δ = s:

     S = sum_g scale_g s_gᵀδ_g,   ΔᵀΛΔ = sum_g scale_g² (s_gᵀδ_g - δ_gᵀF_gδ_g),   c = S / (B + ΔᵀΛΔ)

   N0 and N1 are sums over all ranks' chunks in the order of the chunks, so that c is the same on every layout. */
#include <math.h>

#include "parts.h"

static size_t mean_bytes(const struct kwm_filter_part *part) {
  return (size_t)(part->count * part->params) * sizeof *part->mean;
}

void kwm_filter_move(struct kwm_filter *filter, const struct kwm_step *step) {
  KWM_ASSERT(filter->spec.line_search);
  for (int g = 0; g < filter->n_groups; g++) {
    struct kwm_filter_group *const group = &filter->group[g];
    kwm_device_copy(filter->device, group->kept, group->part.mean, mean_bytes(&group->part));
    kwm_cov_move(&group->cov, step->scale[g], group->part.mean);
  }
}

static void move_back(struct kwm_filter *filter) {
  for (int g = 0; g < filter->n_groups; g++) {
    const struct kwm_filter_group *const group = &filter->group[g];
    kwm_device_copy(filter->device, group->part.mean, group->kept, mean_bytes(&group->part));
  }
}

/* Each chunk's number comes from one rank, so its sum over the ranks is exact. */
static void surprisals(struct kwm_filter *filter, const struct kwm_lin *lin, const double *there, double *n0,
                       double *n1) {
  const int64_t chunks = filter->spec.chunks, first = lin->chunks * filter->layout->replica;
  double values[2 * KWM_CHUNKS_MAX] = {0}, here[KWM_CHUNKS_MAX];
  KWM_ASSERT(chunks <= KWM_CHUNKS_MAX);
  kwm_lin_surprisals(lin, here);
  for (int64_t c = 0; c < lin->chunks; c++) {
    values[first + c] = here[c];
    values[chunks + first + c] = there[c];
  }
  kwm_par_sum_world(filter->layout, 2 * chunks, values);
  *n0 = *n1 = 0;
  for (int64_t c = 0; c < chunks; c++) {
    *n0 += values[c];
    *n1 += values[chunks + c];
  }
}

/* A full step to where nothing is finite is not taken at all; a curvature that is not positive has its minimum beyond
   the full step. */
static double length_of(double slope, double prior, double n0, double n1) {
  const double curvature = 2 * (n1 - n0 + slope) + prior;
  if (!isfinite(n1)) return 0;
  if (!(curvature > 0)) return 1;
  return fmax(0, fmin(1, slope / curvature));
}

void kwm_filter_search(struct kwm_filter *filter, const struct kwm_lin *lin, const double *there,
                       struct kwm_step *step) {
  double slope = 0, prior = 0, n0, n1;
  surprisals(filter, lin, there, &n0, &n1);
  for (int g = 0; g < filter->n_groups; g++) {
    const struct kwm_filter_group *const group = &filter->group[g];
    const double scale = step->scale[g], own = total_of(group, group->slope);
    slope += scale * own;
    prior += scale * scale * fmax(0, own - step->kl[g] * (double)lin->batch);
  }
  step->search = length_of(slope, prior, n0, n1);
  move_back(filter);
}
