/* The shadow device catches what a GPU would punish: each misuse is committed by a child, which must not survive it. */
#include "device_case.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 100 };

/* What a child has: arrays of N numbers, the last one freed; facts. */
struct crime_scene {
  kwm_device *device;
  float *x, *y, *freed, *host;
  double *facts;
};

static struct crime_scene make_scene(void) {
  static float host[N];
  const struct kwm_device_spec spec = {0};
  struct crime_scene scene = {.host = host};
  for (int k = 0; k < N; k++) host[k] = (float)(k + 1);
  assert_ok(kwm_device_open(&scene.device, "shadow", &spec));
  assert_ok(kwm_device_alloc(scene.device, (void **)&scene.x, sizeof host, "x"));
  assert_ok(kwm_device_alloc(scene.device, (void **)&scene.y, sizeof host, "y"));
  assert_ok(kwm_device_alloc(scene.device, (void **)&scene.freed, sizeof host, "freed"));
  assert_ok(kwm_device_share(scene.device, (void **)&scene.facts, 2 * sizeof(double), "facts"));
  kwm_device_put(scene.device, scene.x, host, sizeof host);
  kwm_device_put(scene.device, scene.y, host, sizeof host);
  kwm_device_free(scene.device, scene.freed);
  return scene;
}

static void drop_scene(struct crime_scene *scene) {
  kwm_device_free(scene->device, scene->x);
  kwm_device_free(scene->device, scene->y);
  kwm_device_free(scene->device, scene->facts);
  kwm_device_close(scene->device);
}

/* The signal that ends a child which does this, 0 if it lives. */
static int sentence(void (*crime)(struct crime_scene *scene)) {
  fflush(NULL);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGABRT, SIG_DFL);
    if (freopen("/dev/null", "w", stderr) == NULL) _exit(2);
    struct crime_scene scene = make_scene();
    crime(&scene);
    _exit(0);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void honest(struct crime_scene *scene) {
  kwm_device_add(scene->device, N, scene->x, scene->y);
  scene->device->ops->sum_inverse(scene->device, N, scene->y, scene->facts);
  kwm_device_wait(scene->device);
  kwm_device_get(scene->device, scene->host, scene->y, sizeof(float) * N);
  if (scene->host[N - 1] != 2.0f * N || !isfinite(scene->facts[0])) _exit(3);
}

static void reads(struct crime_scene *scene) {
  volatile float *const at = scene->x;
  if (at[3] > 0) _exit(4);
}

static void writes(struct crime_scene *scene) {
  volatile float *const at = scene->x;
  at[3] = 1;
}

static void reads_freed(struct crime_scene *scene) {
  volatile float *const at = scene->freed;
  if (at[0] > 0) _exit(4);
}

/* The host touches memory of the device. */
static void test_touched(void **state) {
  (void)state;
  assert_int_equal(sentence(honest), 0);
  assert_int_equal(sentence(reads), SIGSEGV);
  assert_int_equal(sentence(writes), SIGSEGV);
  assert_int_equal(sentence(reads_freed), SIGSEGV);
}

static void gives_host(struct crime_scene *scene) {
  kwm_device_add(scene->device, N, scene->host, scene->y);
}

static void gives_stack(struct crime_scene *scene) {
  float local[N] = {0};
  kwm_device_gemm(scene->device, false, false, 10, 10, 10, 1, scene->x, 10, scene->y, 10, 0, local, 10);
}

static void gives_null(struct crime_scene *scene) {
  kwm_device_add(scene->device, N, NULL, scene->y);
}

static void gives_freed(struct crime_scene *scene) {
  kwm_device_add(scene->device, N, scene->freed, scene->y);
}

static void gives_too_few(struct crime_scene *scene) {
  kwm_device_add(scene->device, N, scene->x + 1, scene->y);
}

static void gives_none(struct crime_scene *scene) {
  scene->device->ops->square(scene->device, 0, scene->x);
}

static void facts_on_device(struct crime_scene *scene) {
  scene->device->ops->sum_inverse(scene->device, N, scene->x, (double *)(void *)scene->y);
}

static void facts_on_host(struct crime_scene *scene) {
  double here = 0;
  scene->device->ops->sum_inverse(scene->device, N, scene->x, &here);
}

/* A kernel is given what is not the device's, or not all there. */
static void test_arguments(void **state) {
  (void)state;
  assert_int_equal(sentence(gives_host), SIGABRT);
  assert_int_equal(sentence(gives_stack), SIGABRT);
  assert_int_equal(sentence(gives_null), SIGABRT);
  assert_int_equal(sentence(gives_freed), SIGABRT);
  assert_int_equal(sentence(gives_too_few), SIGABRT);
  assert_int_equal(sentence(gives_none), SIGABRT);
  assert_int_equal(sentence(facts_on_device), SIGABRT);
  assert_int_equal(sentence(facts_on_host), SIGABRT);
}

static void puts_from_device(struct crime_scene *scene) {
  kwm_device_put(scene->device, scene->x, scene->y, sizeof(float));
}

static void puts_to_host(struct crime_scene *scene) {
  kwm_device_put(scene->device, scene->host, scene->host + 1, sizeof(float));
}

static void puts_too_much(struct crime_scene *scene) {
  kwm_device_put(scene->device, scene->x + 1, scene->host, sizeof(float) * N);
}

static void gets_to_device(struct crime_scene *scene) {
  kwm_device_get(scene->device, scene->x, scene->y, sizeof(float));
}

static void gets_too_much(struct crime_scene *scene) {
  static float wide[2 * N];
  kwm_device_get(scene->device, wide, scene->x, sizeof wide);
}

static void copies_over(struct crime_scene *scene) {
  kwm_device_copy(scene->device, scene->x, scene->x + 1, sizeof(float) * (N - 1));
}

static void copies_rows_out(struct crime_scene *scene) {
  kwm_device_copy_rows(scene->device, 10, 10, scene->x, 10, scene->y, 11);
}

static void frees_twice(struct crime_scene *scene) {
  kwm_device_free(scene->device, scene->freed);
}

static void frees_inside(struct crime_scene *scene) {
  kwm_device_free(scene->device, scene->x + 1);
}

/* Memory is moved the wrong way round, beyond its end, or freed where it does not begin. */
static void test_moves(void **state) {
  (void)state;
  assert_int_equal(sentence(puts_from_device), SIGABRT);
  assert_int_equal(sentence(puts_to_host), SIGABRT);
  assert_int_equal(sentence(puts_too_much), SIGABRT);
  assert_int_equal(sentence(gets_to_device), SIGABRT);
  assert_int_equal(sentence(gets_too_much), SIGABRT);
  assert_int_equal(sentence(copies_over), SIGABRT);
  assert_int_equal(sentence(copies_rows_out), SIGABRT);
  assert_int_equal(sentence(frees_twice), SIGABRT);
  assert_int_equal(sentence(frees_inside), SIGABRT);
}

/* Results are NaN until the wait; the next kernel's too, even where the last one's stood. */
static void test_waits(void **state) {
  (void)state;
  struct crime_scene scene = make_scene();
  double wanted = 0;
  for (int k = 1; k <= N; k++) wanted += 1.0 / k;
  assert_true(isnan(scene.facts[0]));
  scene.device->ops->sum_inverse(scene.device, N, scene.x, scene.facts);
  assert_true(isnan(scene.facts[0]));
  kwm_device_wait(scene.device);
  assert_close(scene.facts[0], wanted, 1e-12, 0);
  assert_true(isnan(scene.facts[1]));
  kwm_device_add(scene.device, N, scene.x, scene.y);
  assert_close(scene.facts[0], wanted, 1e-12, 0);
  scene.device->ops->sum_inverse(scene.device, N, scene.y, scene.facts);
  assert_true(isnan(scene.facts[0]));
  kwm_device_get(scene.device, scene.host, scene.x, sizeof(float));
  assert_close(scene.facts[0], wanted / 2, 1e-12, 0);
  drop_scene(&scene);
}

/* New memory is NaN, and so is memory that was used before. */
static void test_poison(void **state) {
  (void)state;
  struct crime_scene scene = make_scene();
  float found[N], *again = NULL, *more = NULL;
  double wide[4];
  assert_ok(kwm_device_alloc(scene.device, (void **)&again, sizeof found, "again"));
  assert_ptr_equal(again, scene.freed);
  kwm_device_put(scene.device, again, scene.host, sizeof found);
  kwm_device_free(scene.device, again);
  assert_ok(kwm_device_alloc(scene.device, (void **)&again, sizeof found, "again"));
  assert_ptr_equal(again, scene.freed);
  kwm_device_get(scene.device, found, again, sizeof found);
  for (int k = 0; k < N; k++) assert_true(isnan(found[k]));
  assert_ok(kwm_device_alloc(scene.device, (void **)&more, sizeof wide, "more"));
  kwm_device_get(scene.device, wide, more, sizeof wide);
  for (int k = 0; k < 4; k++) assert_true(isnan(wide[k]));
  kwm_device_add(scene.device, N, again, scene.x);
  kwm_device_get(scene.device, found, scene.x, sizeof found);
  for (int k = 0; k < N; k++) assert_true(isnan(found[k]));
  kwm_device_free(scene.device, again);
  kwm_device_free(scene.device, more);
  drop_scene(&scene);
}

/* Two devices know nothing of each other's memory. */
static void test_two(void **state) {
  (void)state;
  struct crime_scene one = make_scene(), two = make_scene();
  assert_true(one.x != two.x && one.device != two.device);
  kwm_device_zero(one.device, one.x, sizeof(float) * N);
  float found = 0;
  kwm_device_get(two.device, &found, two.x, sizeof found);
  assert_true(found == 1);
  assert_false(kwm_device_offers(one.device));
  drop_scene(&one);
  drop_scene(&two);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_touched), cmocka_unit_test(test_arguments), cmocka_unit_test(test_moves),
      cmocka_unit_test(test_waits),   cmocka_unit_test(test_poison),    cmocka_unit_test(test_two),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
