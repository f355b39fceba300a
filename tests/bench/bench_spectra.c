/* The spectrum of a structure with millions of parameters, from its factors, to a file, as `kwm spectra` makes it; with
   the largest resident set, which shows that P is never formed. The state is made of keyed draws. Run under mpirun or
   alone, one BLAS thread a rank. usage: bench_spectra [PARAMETERS [RANK]]   (20000000 64) */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../src/app/spectra_group.h"
#include "../../src/cov/kron.h"
#include "../../src/cov/lowrank.h"
#include "kwm/backend.h"
#include "kwm/rng.h"

enum { MEBI = 1 << 20 };

static void need(kwm_status status) {
  if (status == KWM_OK) return;
  fprintf(stderr, "bench_spectra: %s\n", kwm_error_message());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

/* Log-uniform over six orders of magnitude, in no order. */
static double draw(int64_t k) {
  return pow(10, 6 * (double)(((uint64_t)k * 2654435761u >> 7) % 1000003) / 1000003);
}

/* A matrix of about n parameters on the first rank; the units of a group over all ranks. */
static void make(struct kwm_filter *filter, struct kwm_layout *layout, bool kron, int64_t n, int64_t rank) {
  const int64_t side = (int64_t)sqrt((double)n), units = n / 10, size = layout->size, mine = layout->rank;
  double variance[10];
  for (int k = 0; k < 10; k++) variance[k] = 0.1;
  const struct kwm_cov_spec matrix = {.name = "kron",
                                      .count = mine == 0,
                                      .total = 1,
                                      .params = side * (side + 1),
                                      .d_o = side,
                                      .d_i = side + 1,
                                      .prior_precision = 1,
                                      .refresh = 100},
                            blocks = {.name = "lowrank",
                                      .first = units * mine / size,
                                      .count = units * (mine + 1) / size - units * mine / size,
                                      .total = units,
                                      .params = 10,
                                      .prior_variance = variance,
                                      .rank = rank,
                                      .layout = layout};
  struct kwm_cov_spec spec = kron ? matrix : blocks;
  spec.forgetting = 1, spec.n_max = 1, spec.m = 1, spec.real = KWM_REAL_FLOAT;
  *filter = (struct kwm_filter){.layout = layout, .n_groups = 1};
  struct kwm_filter_group *const group = &filter->group[0];
  need(kwm_cov_create(&group->cov, kron ? &kwm_cov_kron : &kwm_cov_lowrank, &spec));
  group->part = (struct kwm_filter_part){
      .name = spec.name, .total = spec.total, .params = spec.params, .first = spec.first, .count = spec.count};
  need(kwm_alloc((void **)&group->gain, (size_t)spec.total * sizeof(double), "gains"));
  if (kron && mine == 0)
    for (int64_t k = 0; k < spec.params; k++) reals_set(&((struct kron_state *)group->cov.state)->D, k, draw(k));
  if (!kron)
    for (int64_t k = 0; k < spec.count * 10 * rank; k++)
      reals_set(&((struct lowrank_state *)group->cov.state)->factor, k, draw(k) * 1e-6 * (double)(1 + k % rank));
}

static void drop(struct kwm_filter *filter) {
  kwm_cov_destroy(&filter->group[0].cov);
  kwm_free(filter->group[0].gain);
}

static double now(void) {
  MPI_Barrier(MPI_COMM_WORLD);
  return kwm_par_seconds();
}

static void measure(struct kwm_layout *layout, bool kron, int64_t n, int64_t rank, const char *folder) {
  struct kwm_filter filter;
  struct kwm_group_spectrum spectrum;
  kwm_ckpt *file;
  make(&filter, layout, kron, n, rank);
  const double start = now();
  need(kwm_group_spectrum_init(&spectrum, &filter, 0));
  const double computed = now();
  need(kwm_ckpt_create(&file, layout->world, folder, 1));
  need(kwm_group_spectrum_put(&spectrum, layout, file));
  need(kwm_ckpt_commit(&file, 1));
  const double written = now();
  if (layout->rank == 0)
    printf("%-8s %9lld directions, %2d ranks: %6.2f s computed, %6.2f s written, %6.2f s in all; peak %.0f MiB\n",
           kron ? "kron" : "lowrank", (long long)(spectrum.blocks * (spectrum.width - 1 + spectrum.last)), layout->size,
           computed - start, written - computed, written - start, (double)kwm_mem_peak_resident() / MEBI);
  kwm_group_spectrum_fini(&spectrum);
  drop(&filter);
}

int main(int argc, char **argv) {
  struct kwm_layout layout;
  char folder[64] = "bench-spectra-XXXXXX", path[128];
  kwm_backend_kernels(argv);
  MPI_Init(&argc, &argv);
  kwm_backend_start();
  int size = 1, rank = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const long long n = argc > 1 ? strtoll(argv[1], NULL, 10) : 20000000;
  const long long columns = argc > 2 ? strtoll(argv[2], NULL, 10) : 64;
  if (n < 100 || columns < 1) return MPI_Finalize(), 2;
  need(kwm_layout_init(&layout, 1, 1, size));
  if (rank == 0 && mkdtemp(folder) == NULL) MPI_Abort(MPI_COMM_WORLD, 1);
  MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
  measure(&layout, true, n, columns, folder);
  measure(&layout, false, n, columns, folder);
  MPI_Barrier(MPI_COMM_WORLD);
  snprintf(path, sizeof path, "%s/step-0000000001.h5", folder);
  if (rank == 0) unlink(path), rmdir(folder);
  kwm_layout_fini(&layout);
  MPI_Finalize();
  return 0;
}
