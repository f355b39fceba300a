/* Checkpoints written by a thread while the run goes on: the same as without, from the state at commit, whatever
   the run does to its arrays and with its communicator meanwhile; and what fails is told at the next wait. */
#include "ckpt_files.h"

static const int64_t thin[N_DIMS] = {700, 3}, wide[N_DIMS] = {40, 3000};

/* The same puts into any checkpoint; the data are overwritten at once. */
static void put_all(kwm_ckpt *ckpt, int way) {
  int64_t first, count;
  assert_ok(kwm_ckpt_put_text(ckpt, "/meta", "config", "a: 1\nb: 2\n"));
  assert_ok(kwm_ckpt_put_i64(ckpt, "/meta", "step", 41 + way));
  assert_ok(kwm_ckpt_put_f64(ckpt, "/meta", "rate", 0.1));
  assert_ok(put(ckpt, "/params/thin", KWM_F32, thin, way, 3));
  assert_ok(put(ckpt, "/cov/wide", KWM_F64, wide, way, 4));
  split(thin[0], way, &first, &count);
  int64_t *data = malloc((size_t)(count * thin[1] + 1) * sizeof *data);
  fill(KWM_I64, first * thin[1], count * thin[1], 5, data);
  assert_ok(kwm_ckpt_put(ckpt, "/history/parts", KWM_I64, N_DIMS, thin, first, count / 2, data));
  assert_ok(kwm_ckpt_put_more(ckpt, "/history/parts", KWM_I64, N_DIMS, thin, first + count / 2, count - count / 2,
                              data + count / 2 * thin[1]));
  memset(data, 0xff, (size_t)(count * thin[1] + 1) * sizeof *data);
  free(data);
}

/* What a run does meanwhile. */
static void work(void) {
  for (int i = 0; i < 200; i++) {
    double value = 1, sum = 0;
    MPI_Allreduce(&value, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  }
}

/* What put_all put is there, bit for bit, and the file is as long as `other`. */
static bool holds_all(const char *dir, const char *other, int way) {
  char path[2 * PATH], *text;
  size_t n, m;
  kwm_ckpt *ckpt;
  int64_t step = 0;
  double rate = 0;
  snprintf(path, sizeof path, "%s", step_path(dir, way));
  free(read_file(path, &n));
  free(read_file(step_path(other, way), &m));
  assert_ok(kwm_ckpt_open(&ckpt, MPI_COMM_WORLD, path));
  assert_ok(kwm_ckpt_get_text(ckpt, "/meta", "config", &text));
  assert_ok(kwm_ckpt_get_i64(ckpt, "/meta", "step", &step));
  assert_ok(kwm_ckpt_get_f64(ckpt, "/meta", "rate", &rate));
  bool good = n == m && step == 41 + way && rate == 0.1 && strcmp(text, "a: 1\nb: 2\n") == 0;
  good = comes_back(ckpt, "/params/thin", KWM_F32, thin, 4 - way, 3) && good;
  good = comes_back(ckpt, "/cov/wide", KWM_F64, wide, 4 - way, 4) && good;
  good = comes_back(ckpt, "/history/parts", KWM_I64, thin, 4 - way, 5) && good;
  free(text);
  kwm_ckpt_close(&ckpt);
  return good;
}

static void test_same_state(void **state) {
  (void)state;
  char *dir = make_dir(), *plain_dir = make_dir();
  kwm_ckpt_writer *writer;
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_writer_create(&writer, MPI_COMM_WORLD));
  assert_all(writer != NULL);
  for (int way = 0; way < 5; way++) { /* other sizes each time: rooms are used again */
    assert_ok(kwm_ckpt_create(&ckpt, MPI_COMM_WORLD, plain_dir, way));
    put_all(ckpt, way);
    assert_ok(kwm_ckpt_commit(&ckpt, 9));
    assert_ok(kwm_ckpt_create_later(&ckpt, MPI_COMM_WORLD, writer, dir, way));
    put_all(ckpt, way);
    kwm_ckpt_keep_every(ckpt, 2);
    assert_ok(kwm_ckpt_commit(&ckpt, 1));
    assert_all(ckpt == NULL);
    work();
    assert_ok(kwm_ckpt_writer_wait(writer));
    assert_all(holds_all(dir, plain_dir, way) && holds_all(plain_dir, dir, way));
  }
  assert_listing(dir, "step-0000000000.h5 step-0000000002.h5 step-0000000003.h5 step-0000000004.h5 ");
  assert_ok(kwm_ckpt_open_newest(&ckpt, MPI_COMM_WORLD, dir));
  kwm_ckpt_close(&ckpt);
  kwm_ckpt_writer_destroy(&writer);
  assert_all(writer == NULL);
  drop_dir(plain_dir);
  drop_dir(dir);
}

/* One after another without a wait between, and destroy waits for the last. */
static void test_waits_for_the_former(void **state) {
  (void)state;
  char *dir = make_dir();
  kwm_ckpt_writer *writer;
  kwm_ckpt *ckpt;
  assert_ok(kwm_ckpt_writer_create(&writer, MPI_COMM_WORLD));
  for (int step = 0; step < 4; step++) {
    assert_ok(kwm_ckpt_create_later(&ckpt, MPI_COMM_WORLD, writer, dir, step));
    put_all(ckpt, step);
    assert_ok(kwm_ckpt_commit(&ckpt, 2));
    work();
  }
  assert_ok(kwm_ckpt_create_later(&ckpt, MPI_COMM_WORLD, writer, dir, 9));
  put_all(ckpt, 1);
  kwm_ckpt_abort(&ckpt); /* nothing of it was written */
  kwm_ckpt_writer_destroy(&writer);
  assert_listing(dir, "step-0000000002.h5 step-0000000003.h5 ");
  drop_dir(dir);
}

/* Where no folder can be. */
static void test_failure_is_told(void **state) {
  (void)state;
  char *dir = make_dir(), path[2 * PATH];
  kwm_ckpt_writer *writer;
  kwm_ckpt *ckpt;
  snprintf(path, sizeof path, "%s/file/checkpoints", dir);
  write_file(in_dir(dir, "file"), "x", 1);
  assert_ok(kwm_ckpt_writer_create(&writer, MPI_COMM_WORLD));
  assert_ok(kwm_ckpt_create_later(&ckpt, MPI_COMM_WORLD, writer, path, 1));
  put_all(ckpt, 0);
  assert_ok(kwm_ckpt_commit(&ckpt, 1));
  work();
  const kwm_status status = kwm_ckpt_create_later(&ckpt, MPI_COMM_WORLD, writer, dir, 2);
  assert_refused(status, KWM_ERR_SYSTEM, "wanted to make it");
  assert_all(ckpt == NULL);
  assert_ok(kwm_ckpt_writer_wait(writer)); /* told once */
  assert_ok(kwm_ckpt_writer_wait(NULL));
  kwm_ckpt_writer_destroy(&writer);
  kwm_ckpt_writer_destroy(&writer);
  drop_dir(dir);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_same_state),
    cmocka_unit_test(test_waits_for_the_former),
    cmocka_unit_test(test_failure_is_told),
};

KWM_TEST_MAIN(tests)
