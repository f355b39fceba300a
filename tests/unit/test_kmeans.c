/* k-means of directions: a fixed point of its two steps, and on small instances the best of all partitions or near it.
 */
#include "../kwm_test.h"

#include "kwm/rng.h"

#include "../../src/data/kmeans.h"

enum { D = 5, N_MAX = 60, K_MAX = 6 };

/* Directions drawn for an instance, some of them equal. */
static struct kwm_points draw_points(float *at, int64_t n, uint64_t instance) {
  for (int64_t i = 0; i < n; i++) {
    double square = 0.0;
    const uint64_t drawn = (uint64_t)(i % 9 == 8 ? i - 1 : i);
    for (int c = 0; c < D; c++) {
      at[i * D + c] = (float)kwm_rng_normal(3, KWM_RNG_TEST, instance, drawn * D + (uint64_t)c);
      square += (double)at[i * D + c] * (double)at[i * D + c];
    }
    for (int c = 0; c < D; c++) at[i * D + c] = (float)((double)at[i * D + c] / sqrt(square));
  }
  return (struct kwm_points){at, n, D};
}

/* The sum of the points that `take` chooses: its length is the sum of their cosines to its direction. */
static double length_of_sum(const struct kwm_points *points, const int32_t *part, int32_t take, double *direction) {
  double square = 0.0;
  for (int c = 0; c < D; c++) {
    double sum = 0.0;
    for (int64_t i = 0; i < points->n; i++)
      if (part[i] == take) sum += (double)points->at[i * D + c];
    direction[c] = sum;
    square += sum * sum;
  }
  for (int c = 0; c < D; c++) direction[c] /= sqrt(square) + 1e-300;
  return sqrt(square);
}

static void is_a_fixed_point(void **state) {
  (void)state;
  float at[N_MAX * D], centres[K_MAX * D];
  int32_t nearest[N_MAX];
  for (uint64_t instance = 0; instance < 20; instance++)
    for (int k = 1; k <= K_MAX; k++) {
      const struct kwm_points points = draw_points(at, N_MAX, instance);
      assert_ok(kwm_kmeans(&points, k, instance, centres, nearest));
      for (int j = 0; j < k; j++) {
        double direction[D];
        assert_true(length_of_sum(&points, nearest, j, direction) > 0.0);
        for (int c = 0; c < D; c++) assert_close((double)centres[j * D + c], direction[c], 0.0, 1e-5);
      }
      for (int64_t i = 0; i < N_MAX; i++) {
        double cosine = 0.0, own = 0.0;
        assert_int_equal(kwm_kmeans_nearest(at + i * D, centres, k, D, &cosine), nearest[i]);
        for (int c = 0; c < D; c++) own += (double)at[i * D + c] * (double)centres[nearest[i] * D + c];
        assert_close(cosine, own, 0.0, 1e-6);
        for (int j = 0; j < k; j++) {
          double other = 0.0;
          for (int c = 0; c < D; c++) other += (double)at[i * D + c] * (double)centres[j * D + c];
          assert_true(other <= own + 1e-6);
        }
      }
    }
}

/* The sum of cosines that two centres reach, by the best of all partitions and by k-means, which promises no more than
   a local best: on these points without any clusters it is the best of all most of the time. */
static void finds_the_best_of_two(void **state) {
  (void)state;
  enum { N = 10, INSTANCES = 40 };
  int reached = 0;
  float at[N * D], centres[2 * D];
  int32_t nearest[N], part[N];
  double direction[D];
  for (uint64_t instance = 0; instance < INSTANCES; instance++) {
    const struct kwm_points points = draw_points(at, N, instance);
    double best = 0.0;
    for (int bits = 0; bits < 1 << (N - 1); bits++) {
      for (int i = 0; i < N; i++) part[i] = bits >> i & 1;
      best = fmax(best, length_of_sum(&points, part, 0, direction) + length_of_sum(&points, part, 1, direction));
    }
    assert_ok(kwm_kmeans(&points, 2, instance, centres, nearest));
    const double found = length_of_sum(&points, nearest, 0, direction) + length_of_sum(&points, nearest, 1, direction);
    assert_true(found <= best * (1.0 + 1e-6) && found >= 0.9 * best);
    reached += found >= best * (1.0 - 1e-6);
  }
  if (reached < INSTANCES * 3 / 4) fail_msg("the best of all partitions in %d of %d", reached, INSTANCES);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(is_a_fixed_point),
      cmocka_unit_test(finds_the_best_of_two),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
