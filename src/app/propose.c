/* Does a run fit its memory, and what is the richest choice of structures that does? Rank 0 goes through all mixtures
   with the functions that the constructors use; everything else stays as configured. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

/* What a group can be kept in, and what that is worth for each of its parameters: in the order of the distance from the
   exact filter after 2,000 steps (analysis/judge.tsv). One exact covariance of all parameters is worth more than any
   mixture. */
struct option {
  const char *structure;
  int64_t rank; /* lowrank, of kind diagonal */
  double worth;
};
static const struct option options[] = {{"block", 0, 4},      {"kron", 0, 3},       {"lowrank", 256, 2.6},
                                        {"lowrank", 64, 2.4}, {"lowrank", 16, 2.2}, {"diag", 0, 2}};
static const double joint_worth = 5;

/* What is resident at the start differs by about this from run to run: a proposal must fit the next time, too. */
enum { WOBBLE = 3000000 };

enum { OPTIONS = sizeof options / sizeof options[0], BEST = 5, WORDS_BYTES = 512 };

/* The largest rank's memory and the busiest rank's operations. */
struct need {
  size_t bytes;
  int rank;
  double operations;
};

struct candidate {
  const char *joint_real;                 /* NULL: a mixture */
  const struct option *option[KWM_ROLES]; /* of a mixture */
  double worth;
  struct need need;
};

struct best {
  int n;
  struct candidate candidate[BEST]; /* the richest first */
};

/* ---- what there is */

/* Bytes that this host can still give, 0 if it does not say. */
static double host_available(void) {
  FILE *file = fopen("/proc/meminfo", "r");
  char line[256];
  double kilobytes = 0;
  while (file != NULL && fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, "MemAvailable: %lf kB", &kilobytes) == 1) break;
  if (file != NULL) fclose(file);
  return kilobytes * 1024;
}

/* The smallest share of a host's memory; names: (ranks, KWM_HOST_BYTES). */
static double smallest_share(int ranks, const double *available, const char *names) {
  double smallest = INFINITY;
  for (int r = 0; r < ranks; r++) {
    int beside = 0;
    for (int k = 0; k < ranks; k++)
      beside += strcmp(names + (ptrdiff_t)r * KWM_HOST_BYTES, names + (ptrdiff_t)k * KWM_HOST_BYTES) == 0;
    if (available[r] > 0 && available[r] / beside < smallest) smallest = available[r] / beside;
  }
  return smallest;
}

kwm_status kwm_plan_budget(struct kwm_run *run, struct kwm_budget *budget) {
  const size_t ranks = (size_t)run->layout.size;
  *budget = (struct kwm_budget){run->config.layout.memory_gb * 1e9, "layout.memory_gb"};
  if (budget->bytes > 0) return KWM_OK;
  double *available = calloc(ranks, sizeof *available);
  char *names = calloc(ranks, KWM_HOST_BYTES);
  kwm_status status = available != NULL && names != NULL ? KWM_OK : KWM_ERR_SYSTEM;
  if (status != KWM_OK) status = KWM_RAISE(status, "memory: no room for %zu host names", ranks);
  status = kwm_agree(run->layout.world, status);
  if (status == KWM_OK) {
    available[run->layout.rank] = host_available();
    kwm_par_sum_world(&run->layout, run->layout.size, available);
    kwm_par_hosts(&run->layout, names);
    budget->source = "a rank's share of what its host has";
    budget->bytes = run->layout.rank == 0 ? smallest_share(run->layout.size, available, names) : 0;
  }
  free(available);
  free(names);
  return status;
}

/* ---- what it takes */

static struct need need_of(const struct kwm_run *run, const struct kwm_probe *probe) {
  struct need need = {0};
  if (!kwm_plan_countable(run)) return (struct need){.bytes = SIZE_MAX};
  for (int q = 0; q < run->stages.ranks; q++) {
    const struct kwm_plan plan = kwm_plan_rank(run, q, probe);
    const size_t bytes = kwm_plan_total(&plan);
    if (bytes > need.bytes) need.rank = q;
    need.bytes = bytes > need.bytes ? bytes : need.bytes;
    need.operations = fmax(need.operations, plan.operations);
  }
  return need;
}

static bool has_role(const struct kwm_run *run, int role) {
  for (int g = 0; g < run->model.n_groups; g++)
    if ((int)run->model.groups[g].role == role) return true;
  return false;
}

static struct kwm_config_cov *cov_of(struct kwm_config *config, int role) {
  return kwm_run_cov(config, (enum kwm_role)role);
}

/* The configuration with the candidate's structures; borrows, to be read only. */
static struct kwm_run with(const struct kwm_run *run, const struct candidate *candidate) {
  struct kwm_run trial = *run;
  trial.config.cov.joint = candidate->joint_real != NULL ? (char *)"full" : (char *)"none";
  if (candidate->joint_real != NULL) trial.config.cov.joint_real = (char *)candidate->joint_real;
  for (int role = 0; role < KWM_ROLES && candidate->joint_real == NULL; role++) {
    if (!has_role(run, role)) continue;
    struct kwm_config_cov *const cov = cov_of(&trial.config, role);
    cov->structure = (char *)candidate->option[role]->structure;
    if (candidate->option[role]->rank == 0) continue;
    cov->rank = candidate->option[role]->rank;
    cov->kind = (char *)"diagonal";
  }
  return trial;
}

/* Words after which kwm refuses to start, whatever memory there is. */
static bool allowed(const struct kwm_run *run) {
  struct kwm_config config = run->config;
  bool covers_all = true;
  for (int role = 0; role < KWM_ROLES; role++)
    if (has_role(run, role)) covers_all = covers_all && strcmp(cov_of(&config, role)->form, "innovation") == 0;
  if (config.filter.adapt_noise > 0 && strcmp(config.cov.joint, "full") != 0 && !covers_all) return false;
  return config.layout.replicas == 1 || !kwm_run_couples_samples(&config);
}

/* ---- the search */

static bool richer(const struct candidate *a, const struct candidate *b) {
  return a->worth > b->worth || (a->worth == b->worth && a->need.bytes < b->need.bytes);
}

static void keep(struct best *best, const struct candidate *candidate) {
  int at = best->n < BEST ? best->n++ : BEST;
  if (at == BEST) {
    if (!richer(candidate, &best->candidate[BEST - 1])) return;
    at = BEST - 1;
  }
  for (; at > 0 && richer(candidate, &best->candidate[at - 1]); at--) best->candidate[at] = best->candidate[at - 1];
  best->candidate[at] = *candidate;
}

static void consider(const struct kwm_run *run, const struct kwm_probe *probe, double budget,
                     struct candidate *candidate, struct best *best) {
  const struct kwm_run trial = with(run, candidate);
  candidate->worth = 0;
  for (int g = 0; g < run->model.n_groups; g++)
    candidate->worth +=
        (candidate->joint_real != NULL ? joint_worth : candidate->option[run->model.groups[g].role]->worth) *
        (double)(run->model.groups[g].total * run->model.groups[g].params);
  if (!allowed(&trial)) return;
  candidate->need = need_of(&trial, probe);
  if ((double)candidate->need.bytes + WOBBLE <= budget) keep(best, candidate);
}

/* A unit has no Kronecker factors; what the model lacks is kept in one way. */
static bool suits(const struct kwm_run *run, int role, const struct option *option) {
  if (!has_role(run, role)) return option == &options[0];
  return role != KWM_ROLE_RECURRENCE || strcmp(option->structure, "kron") != 0;
}

static void search(const struct kwm_run *run, const struct kwm_probe *probe, double budget, struct best *best) {
  static const char *const reals[] = {"double", "float"};
  best->n = 0;
  if (strcmp(run->config.learner, "kalman") != 0) return;
  for (size_t k = 0; k < sizeof reals / sizeof reals[0]; k++)
    consider(run, probe, budget, &(struct candidate){.joint_real = reals[k]}, best);
  for (int k = 0; k < OPTIONS * OPTIONS * OPTIONS; k++) {
    struct candidate candidate = {
        .option = {&options[k / (OPTIONS * OPTIONS)], &options[k / OPTIONS % OPTIONS], &options[k % OPTIONS]}};
    bool possible = true;
    for (int role = 0; role < KWM_ROLES; role++) possible = possible && suits(run, role, candidate.option[role]);
    if (possible) consider(run, probe, budget, &candidate, best);
  }
}

/* ---- what is said */

static void add(char *words, const char *key, const char *of, const char *value) {
  const size_t used = strlen(words);
  snprintf(words + used, WORDS_BYTES - used, "%scov.%s%s=%s", used > 0 ? " " : "", of, key, value);
}

/* words (WORDS_BYTES) <- what to type after the words that gave `run`. */
static const char *words_for(const struct kwm_run *run, const struct candidate *candidate, char *words) {
  const struct kwm_run trial = with(run, candidate);
  struct kwm_config now = run->config, then = trial.config;
  char number[32];
  words[0] = '\0';
  if (strcmp(now.cov.joint, then.cov.joint) != 0) add(words, "joint", "", then.cov.joint);
  if (strcmp(now.cov.joint_real, then.cov.joint_real) != 0) add(words, "joint_real", "", then.cov.joint_real);
  for (int role = 0; role < KWM_ROLES; role++) {
    const struct kwm_config_cov *const before = cov_of(&now, role), *const after = cov_of(&then, role);
    const char *const name = kwm_run_role_words(role);
    if (strcmp(before->structure, after->structure) != 0) add(words, ".structure", name, after->structure);
    if (strcmp(before->kind, after->kind) != 0) add(words, ".kind", name, after->kind);
    if (before->rank == after->rank) continue;
    snprintf(number, sizeof number, "%lld", (long long)after->rank);
    add(words, ".rank", name, number);
  }
  return words[0] != '\0' ? words : "(as configured)";
}

static void print_choice(const char *name, const struct need *need, const char *words) {
  printf("# %7s %10.1f %10.0f  %s\n", name, (double)need->bytes / 1e6, need->operations / 1e6, words);
}

static void tell(const struct kwm_run *run, const struct kwm_budget *budget, const struct need *need,
                 const struct best *best) {
  char words[WORDS_BYTES], name[16];
  printf("# memory of a rank: at most %.1f MB (%s)\n", budget->bytes / 1e6, budget->source);
  if (strcmp(run->config.learner, "kalman") != 0) return;
  printf("# %7s %10s %10s  %s\n", "choice", "MB", "Mflop", "words (largest rank, busiest rank; the richest first)");
  if (need->bytes != SIZE_MAX) print_choice("now", need, "(as configured)");
  for (int k = 0; k < best->n; k++) {
    snprintf(name, sizeof name, "%d", k + 1);
    print_choice(name, &best->candidate[k].need, words_for(run, &best->candidate[k], words));
  }
}

static kwm_status judge(const struct kwm_run *run, const struct kwm_probe *probe, const struct kwm_budget *budget,
                        bool tells) {
  char words[WORDS_BYTES], found[64] = "a matrix larger than its libraries take";
  struct best best = {0};
  const struct need need = need_of(run, probe);
  const bool fits = need.bytes != SIZE_MAX && (double)need.bytes <= budget->bytes;
  if (tells || !fits) search(run, probe, budget->bytes, &best);
  if (tells) tell(run, budget, &need, &best);
  if (need.bytes != SIZE_MAX) snprintf(found, sizeof found, "%.1f MB on rank %d", (double)need.bytes / 1e6, need.rank);
  KWM_CHECK(fits, KWM_ERR_USAGE, "memory: wanted at most %.1f MB on a rank (%s), found %s; %s%s", budget->bytes / 1e6,
            budget->source, found, best.n > 0 ? "fits: " : "no choice of structures fits",
            best.n > 0 ? words_for(run, &best.candidate[0], words) : "");
  return KWM_OK;
}

kwm_status kwm_plan_check(struct kwm_run *run, const struct kwm_probe *probe, bool tells) {
  struct kwm_budget budget;
  KWM_TRY(kwm_plan_budget(run, &budget));
  return kwm_agree(run->layout.world, run->layout.rank == 0 ? judge(run, probe, &budget, tells) : KWM_OK);
}
