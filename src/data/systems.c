/* The systems: equations of motion with their Jacobians, carried over a step by the classical Runge-Kutta rule together
   with their tangents, so that the step's Jacobian is exact for the step as computed. Two are maps already. */
#include <math.h>
#include <string.h>

#include "kwm/rng.h"
#include "systems_kinds.h"

/* x1⁺ = ρ R(ω) x */
static void oscillator(const double *p, int d, const double *x, const double *u, double *next, double *J) {
  (void)d, (void)u;
  const double c = p[0] * cos(p[1]), s = p[0] * sin(p[1]);
  next[0] = c * x[0] - s * x[1];
  next[1] = s * x[0] + c * x[1];
  if (J != NULL) J[0] = c, J[1] = -s, J[2] = s, J[3] = c;
}

/* x1⁺ = a x1, x2⁺ = b x2 + c (b - a²) x1²: linear in (x1, x2, x1²). */
static void slow(const double *p, int d, const double *x, const double *u, double *next, double *J) {
  (void)d, (void)u;
  const double bend = p[2] * (p[1] - p[0] * p[0]);
  next[0] = p[0] * x[0];
  next[1] = p[1] * x[1] + bend * x[0] * x[0];
  if (J != NULL) J[0] = p[0], J[1] = 0, J[2] = 2 * bend * x[0], J[3] = p[1];
}

/* x'' + δ x' + α x + β x³ = u */
static void duffing(const double *p, int d, const double *x, const double *u, double *rate, double *J) {
  (void)d;
  rate[0] = x[1];
  rate[1] = -p[1] * x[1] - p[2] * x[0] - p[0] * x[0] * x[0] * x[0] + u[0];
  if (J != NULL) J[0] = 0, J[1] = 1, J[2] = -p[2] - 3 * p[0] * x[0] * x[0], J[3] = -p[1];
}

/* x'' - μ (1 - x²) x' + x = 0 */
static void vanderpol(const double *p, int d, const double *x, const double *u, double *rate, double *J) {
  (void)d, (void)u;
  rate[0] = x[1];
  rate[1] = p[0] * (1 - x[0] * x[0]) * x[1] - x[0];
  if (J != NULL) J[0] = 0, J[1] = 1, J[2] = -2 * p[0] * x[0] * x[1] - 1, J[3] = p[0] * (1 - x[0] * x[0]);
}

static void lorenz63(const double *p, int d, const double *x, const double *u, double *rate, double *J) {
  (void)d, (void)u;
  rate[0] = p[1] * (x[1] - x[0]);
  rate[1] = x[0] * (p[0] - x[2]) - x[1];
  rate[2] = x[0] * x[1] - p[2] * x[2];
  if (J == NULL) return;
  J[0] = -p[1], J[1] = p[1], J[2] = 0;
  J[3] = p[0] - x[2], J[4] = -1, J[5] = -x[0];
  J[6] = x[1], J[7] = x[0], J[8] = -p[2];
}

/* x'' = -(g/l) sin x - c x' + u */
static void pendulum(const double *p, int d, const double *x, const double *u, double *rate, double *J) {
  (void)d;
  rate[0] = x[1];
  rate[1] = -p[0] * sin(x[0]) - p[1] * x[1] + u[0];
  if (J != NULL) J[0] = 0, J[1] = 1, J[2] = -p[0] * cos(x[0]), J[3] = -p[1];
}

/* x_i' = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F, indices around the circle */
static void lorenz96(const double *p, int d, const double *x, const double *u, double *rate, double *J) {
  (void)u;
  if (J != NULL) memset(J, 0, (size_t)d * (size_t)d * sizeof *J);
  for (int i = 0; i < d; i++) {
    const int next = (i + 1) % d, before = (i + d - 1) % d, two = (i + d - 2) % d;
    rate[i] = (x[next] - x[two]) * x[before] - x[i] + p[0];
    if (J == NULL) continue;
    double *const row = J + (int64_t)i * d;
    row[next] += x[before];
    row[two] -= x[before];
    row[before] += x[next] - x[two];
    row[i] -= 1;
  }
}

/* Inputs: a cosine that drives, and a torque drawn anew every 20 steps. */
static double cosine(uint64_t seed, int64_t t, double dt) {
  (void)seed;
  return 0.5 * cos(1.2 * dt * (double)t);
}

static double torque(uint64_t seed, int64_t t, double dt) {
  (void)dt;
  return 2 * (2 * kwm_rng_uniform(seed, KWM_RNG_SERIES, (uint64_t)(t / 20), (uint64_t)KWM_SERIES_INPUT << 32) - 1);
}

/* clang-format off */
static const struct kwm_system_kind kinds[] = {
  {.name = "oscillator", .d = 2, .map = true, .rate = oscillator, .dt = 1, .parameters = {0.995, 0.2}, .process = 0.05, .scale = 1, .spread = 1},
  {.name = "slow", .d = 2, .map = true, .rate = slow, .dt = 1, .parameters = {0.95, 0.6, 2}, .process = 0, .scale = 1, .spread = 1.5},
  {.name = "duffing", .d = 2, .k = 1, .rate = duffing, .input = cosine, .dt = 0.1, .parameters = {1, 0.3, -1}, .process = 0.005, .scale = 1, .spread = 0.5},
  {.name = "vanderpol", .d = 2, .rate = vanderpol, .dt = 0.1, .parameters = {1}, .process = 0.005, .scale = 2, .spread = 1},
  {.name = "lorenz63", .d = 3, .rate = lorenz63, .dt = 0.02, .parameters = {28, 10, 8.0 / 3}, .process = 0.005, .scale = 8, .spread = 1, .warm_up = 500},
  {.name = "pendulum", .d = 2, .k = 1, .rate = pendulum, .input = torque, .dt = 0.05, .parameters = {9.81, 0.2}, .process = 0.005, .scale = 1, .spread = 0.5},
  {.name = "lorenz96", .d = 0, .rate = lorenz96, .dt = 0.025, .parameters = {8}, .process = 0.005, .scale = 3.6, .spread = 1, .warm_up = 500},
};
/* clang-format on */

static const struct kwm_system_kind *find(const char *name) {
  for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
    if (strcmp(kinds[k].name, name) == 0) return &kinds[k];
  return NULL;
}

kwm_status kwm_system_init(struct kwm_system *system, const struct kwm_system_spec *spec) {
  const struct kwm_system_kind *const kind = find(spec->kind);
  memset(system, 0, sizeof *system);
  KWM_CHECK(kind != NULL, KWM_ERR_USAGE, "system: wanted a known one, found `%s`", spec->kind);
  const int d = kind->d > 0 ? kind->d : spec->size, m = spec->observed > 0 ? spec->observed : d - spec->first;
  KWM_CHECK(d >= 4 || kind->d > 0, KWM_ERR_USAGE, "system.size: wanted at least 4, found %d", d);
  KWM_CHECK(m > 0 && spec->first >= 0 && spec->first + m <= d, KWM_ERR_USAGE,
            "system: wanted outputs among the %d states of %s, found %d from state %d on", d, kind->name, m,
            spec->first);
  *system = (struct kwm_system){.kind = kind, .d = d, .k = kind->k, .m = m, .first = spec->first};
  system->dt = spec->dt > 0 ? spec->dt : kind->dt;
  memcpy(system->parameters, kind->parameters, sizeof system->parameters);
  const size_t states = (size_t)d, square = kind->map ? 0 : states * states;
  KWM_TRY(kwm_alloc((void **)&system->process, (4 * states + 6 * states + 3 * square) * sizeof(double), "system"));
  system->observation = system->process + states;
  system->start = system->observation + states;
  system->spread = system->start + states;
  system->work = system->spread + states;
  const double deviation = kind->scale * (spec->process >= 0 ? spec->process : kind->process);
  for (int i = 0; i < d; i++) {
    system->process[i] = deviation * deviation;
    system->spread[i] = kind->spread;
  }
  return KWM_OK;
}

void kwm_system_fini(struct kwm_system *system) {
  kwm_free(system->process);
  memset(system, 0, sizeof *system);
}

/* D <- J (I + a D), all (d, d); T: scratch. */
static void carry(int d, const double *J, double a, double *D, double *T) {
  for (int i = 0; i < d; i++) {
    double *const row = T + (int64_t)i * d;
    for (int j = 0; j < d; j++) row[j] = J[(int64_t)i * d + j];
    for (int l = 0; l < d; l++) {
      const double factor = a * J[(int64_t)i * d + l];
      if (factor == 0) continue;
      for (int j = 0; j < d; j++) row[j] += factor * D[(int64_t)l * d + j];
    }
  }
  memcpy(D, T, (size_t)d * (size_t)d * sizeof *D);
}

static void runge_kutta(const struct kwm_system *system, const double *x, const double *u, double *next, double *Fx) {
  static const double at[] = {0, 0.5, 0.5, 1}, weight[] = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6};
  const int d = system->d;
  const int64_t square = (int64_t)d * d;
  const double dt = system->dt;
  double *const slope = system->work, *const point = slope + d, *const sum = point + d;
  double *const J = sum + 4 * d, *const D = J + square, *const T = D + square;
  memset(slope, 0, (size_t)d * sizeof *slope);
  memset(sum, 0, (size_t)d * sizeof *sum);
  if (Fx != NULL) memset(D, 0, (size_t)square * sizeof *D);
  for (int64_t k = 0; Fx != NULL && k < square; k++) Fx[k] = k % (d + 1) == 0;
  for (int stage = 0; stage < 4; stage++) {
    for (int i = 0; i < d; i++) point[i] = x[i] + at[stage] * dt * slope[i];
    system->kind->rate(system->parameters, d, point, u, slope, Fx != NULL ? J : NULL);
    for (int i = 0; i < d; i++) sum[i] += dt * weight[stage] * slope[i];
    if (Fx == NULL) continue;
    carry(d, J, at[stage] * dt, D, T);
    for (int64_t k = 0; k < square; k++) Fx[k] += dt * weight[stage] * D[k];
  }
  for (int i = 0; i < d; i++) next[i] = x[i] + sum[i];
}

void kwm_system_step(const struct kwm_system *system, const double *x, const double *u, double *next, double *Fx) {
  if (system->kind->map)
    system->kind->rate(system->parameters, system->d, x, u, next, Fx);
  else
    runge_kutta(system, x, u, next, Fx);
}

static void step(const void *context, const double *x, const double *u, const double *theta, double *next, double *Fx,
                 double *Ft) {
  (void)theta, (void)Ft;
  kwm_system_step(context, x, u, next, Fx);
}

static void observe(const void *context, const double *x, const double *theta, double *y, double *Hx, double *Ht) {
  const struct kwm_system *const system = context;
  (void)theta, (void)Ht;
  memcpy(y, x + system->first, (size_t)system->m * sizeof *y);
  if (Hx == NULL) return;
  memset(Hx, 0, (size_t)system->m * (size_t)system->d * sizeof *Hx);
  for (int i = 0; i < system->m; i++) Hx[(int64_t)i * system->d + system->first + i] = 1;
}

void kwm_system_space(const struct kwm_system *system, struct kwm_space *space) {
  *space = (struct kwm_space){
      .d = system->d, .m = system->m, .k = system->k, .context = system, .step = step, .observe = observe};
}

int kwm_system_eigenvalues(const struct kwm_system *system, double *values) {
  const double *const p = system->parameters;
  memset(values, 0, 8 * sizeof *values);
  if (strcmp(system->kind->name, "oscillator") == 0) {
    values[0] = values[2] = p[0] * cos(p[1]);
    values[1] = p[0] * sin(p[1]);
    values[3] = -values[1];
    return 2;
  }
  if (strcmp(system->kind->name, "slow") != 0) return 0;
  values[0] = p[0], values[2] = p[1], values[4] = p[0] * p[0];
  return 3;
}
