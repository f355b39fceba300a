/* The full covariance's state through a checkpoint, and what it refuses. */
#include "full_case.h"

/* Goes on from a checkpoint as if there had been none, to the last bit; on another block and dealing to rounding. */
static void assert_resumes(enum kwm_real real, int64_t n, double bound) {
  struct fixture f, g, h;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  assert_ok(make_real(&f, real, MPI_COMM_WORLD, 0, n, n, 8));
  assert_ok(make_real(&g, real, MPI_COMM_WORLD, 0, n, n, 8));
  assert_ok(make_real(&h, real, MPI_COMM_WORLD, 4, n, n, 5));
  for (uint64_t t = 0; t < 3; t++) advance(&f, t);
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 3));
  assert_ok(kwm_full_save(f.full, ckpt, true));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 3)));
  assert_ok(kwm_full_load(g.full, ckpt));
  assert_ok(kwm_full_load(h.full, ckpt));
  kwm_ckpt_close(&ckpt);
  double *const here = saved_state(&f), *const there = saved_state(&h);
  assert_all(same_bits(n * n, here, there));
  advance(&f, 3), advance(&g, 3), advance(&h, 3);
  double *const plain = saved_state(&f), *const resumed = saved_state(&g);
  assert_all(same_bits(n * n, plain, resumed) && !same_bits(n * n, here, plain));
  double *const P = saved(&f), *const other = saved(&h);
  assert_all(dense_error(n * n, other, P) <= bound);
  free(P), free(other);
  free(here), free(there), free(plain), free(resumed);
  drop(&h), drop(&g), drop(&f);
  drop_dir(dir);
}

static void test_resumes(void **state) {
  (void)state;
  assert_resumes(KWM_REAL_DOUBLE, 83, same);
  assert_resumes(KWM_REAL_FLOAT, 83, 2e-5);
}

/* More than one slab of the file, and whose row is whose. */
static void test_large_root(void **state) {
  (void)state;
  enum { N = 1500 };
  struct fixture f;
  double *const Y = dense_new(N * N), *const wanted = dense_new(N), *const variance = dense_new(N);
  assert_ok(make_real(&f, KWM_REAL_FLOAT, MPI_COMM_WORLD, 2, N, 2, 0));
  for (int64_t k = 0; k < N * N; k++) {
    Y[k] = (double)((k * 2654435761u >> 7) % 1009) - 504;
    wanted[k / N] += Y[k] * Y[k];
  }
  put_state(&f, Y);
  double *const found = saved_state(&f), *const all = dense_new(N);
  kwm_full_diagonal(f.full, variance);
  join(&f, variance, all);
  assert_all(same_bits(N * N, Y, found) && same_bits(N, wanted, all));
  free(Y), free(wanted), free(variance), free(found), free(all);
  drop(&f);
}

/* Two replicas, each a covariance of its own over half of the ranks; the first writes, both read; then all ranks read.
 */
static void test_replicas(void **state) {
  (void)state;
  enum { N = 47 };
  struct fixture half, all;
  int size;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  MPI_Comm comm;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const int replicas = size > 1 ? 2 : 1, replica = rank() * replicas / size;
  MPI_Comm_split(MPI_COMM_WORLD, replica, 0, &comm);
  assert_ok(make(&half, comm, 0, N, N, 6));
  advance(&half, (uint64_t)replica);
  double *const mine = seen(&half), *const first = dense_copy(N * N, mine);
  MPI_Bcast(first, N * N, MPI_DOUBLE, 0, MPI_COMM_WORLD);
  assert_all(replica == 0 || !same_bits(N * N, mine, first));
  assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 1));
  assert_ok(kwm_full_save(half.full, ckpt, replica == 0));
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 1)));
  assert_ok(kwm_full_load(half.full, ckpt));
  double *const loaded = seen(&half);
  assert_all(same_bits(N * N, loaded, first));
  drop(&half);
  MPI_Comm_free(&comm);
  assert_ok(make(&all, MPI_COMM_WORLD, 2, N, N, 4));
  assert_ok(kwm_full_load(all.full, ckpt));
  double *const wide = seen(&all);
  assert_all(dense_error(N * N, wide, first) <= 1e-15);
  kwm_ckpt_close(&ckpt);
  free(mine), free(first), free(loaded), free(wide);
  drop(&all);
  drop_dir(dir);
}

/* ---- errors */

static void test_refused_files(void **state) {
  (void)state;
  struct fixture f;
  char *dir = make_dir();
  kwm_ckpt *ckpt;
  assert_ok(make(&f, MPI_COMM_WORLD, 0, 30, 30, 8));
  const int64_t dims[2] = {29, 30};
  double *const wrong = dense_new(29 * 30);
  for (int64_t step = 0; step < 2; step++) {
    assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, step));
    const char *const name = step == 0 ? "/cov/other" : "/cov/full/covariance";
    assert_ok(kwm_ckpt_put(ckpt, name, KWM_F64, 2, dims, 0, rank() == 0 ? 29 : 0, wrong));
    assert_ok(kwm_ckpt_commit(&ckpt, 2));
    assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, step)));
    assert_refused(kwm_full_load(f.full, ckpt), KWM_ERR_DATA,
                   step == 0 ? "wanted array /cov/full/covariance" : "wanted f64 (30, 30), found f64 (29, 30)");
    kwm_ckpt_close(&ckpt);
  }
  free(wrong);
  drop(&f);
  drop_dir(dir);
}

/* What was kept in one real is not read as the other. */
static void test_refused_kind(void **state) {
  (void)state;
  enum { N = 20 };
  const char *const words[] = {
      "wanted the full covariance in double (/cov/full/covariance), found it as a square root",
      "wanted the full covariance as a square root in float (/cov/full/covariance_factor), found"};
  for (int real = 0; real < 2; real++) {
    struct fixture f, g;
    char *dir = make_dir();
    kwm_ckpt *ckpt;
    assert_ok(make_real(&f, real == 0 ? KWM_REAL_FLOAT : KWM_REAL_DOUBLE, MPI_COMM_WORLD, 0, N, N, 4));
    assert_ok(make_real(&g, real == 0 ? KWM_REAL_DOUBLE : KWM_REAL_FLOAT, MPI_COMM_WORLD, 0, N, N, 4));
    assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, dir, 1));
    assert_ok(kwm_full_save(f.full, ckpt, true));
    assert_ok(kwm_ckpt_commit(&ckpt, 1));
    assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, step_path(dir, 1)));
    assert_refused(kwm_full_load(g.full, ckpt), KWM_ERR_DATA, words[real]);
    kwm_ckpt_close(&ckpt);
    drop(&g), drop(&f);
    drop_dir(dir);
  }
}

/* Rank 0 owns what is given, the others nothing. */
static kwm_status create_with(int64_t n, int64_t n_segments, const struct kwm_full_segment *segments) {
  int64_t count = 0;
  for (int64_t s = 0; s < n_segments; s++) count += segments[s].count;
  double *const prior = dense_new(count);
  for (int64_t k = 0; k < count; k++) prior[k] = 1;
  kwm_full *full;
  const size_t before = kwm_mem_bytes();
  const struct kwm_full_spec spec = {.comm = MPI_COMM_WORLD,
                                     .n = n,
                                     .n_segments = rank() == 0 ? n_segments : 0,
                                     .segments = segments,
                                     .prior_variance = prior,
                                     .rows_max = 4,
                                     .block = 8};
  const kwm_status status = kwm_full_create(&full, &spec);
  assert_all(status == KWM_OK || full == NULL);
  kwm_full_destroy(&full);
  free(prior);
  assert_all(kwm_mem_bytes() == before);
  return status;
}

static void test_refused_segments(void **state) {
  (void)state;
  const struct kwm_full_segment whole[] = {{0, 10}, {10, 0}, {10, 20}}, gap[] = {{0, 17}, {18, 12}};
  const struct kwm_full_segment twice[] = {{0, 20}, {12, 18}}, beyond[] = {{0, 20}, {20, 11}}, below[] = {{-1, 31}};
  const struct kwm_full_segment huge[] = {{0, 120000}};
  assert_ok(create_with(30, 3, whole));
  assert_refused(create_with(30, 2, gap), KWM_ERR_USAGE, "wanted parameter 17 in the segments of one rank");
  assert_refused(create_with(30, 2, twice), KWM_ERR_USAGE, "found it 2 times");
  assert_refused(create_with(30, 2, beyond), KWM_ERR_USAGE, "wanted segments within 30 parameters, found [20, 31)");
  assert_refused(create_with(30, 1, below), KWM_ERR_USAGE, "wanted segments within 30 parameters, found [-1, 30)");
  assert_refused(create_with(30, 0, NULL), KWM_ERR_USAGE, "found it 0 times");
  assert_refused(create_with(120000, 1, huge), KWM_ERR_USAGE, "found 120000 parameters and 4 rows");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_resumes),       cmocka_unit_test(test_large_root),   cmocka_unit_test(test_replicas),
    cmocka_unit_test(test_refused_files), cmocka_unit_test(test_refused_kind), cmocka_unit_test(test_refused_segments),
};

KWM_TEST_MAIN(tests)
