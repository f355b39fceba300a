/* kwm verify: the theory's claims, one a line: what is claimed and computed, the number, its bound, pass or FAIL. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kwm/app.h"
#include "kwm/report.h"
#include "kwm/theory.h"

struct words {
  const char *json; /* file; NULL: none */
  uint64_t seed;
  bool seeded;
};

static kwm_status read_seed(struct words *words, const char *text) {
  char *end = NULL;
  errno = 0;
  words->seed = strtoull(text, &end, 10);
  KWM_CHECK(text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0, KWM_ERR_USAGE,
            "verify: wanted seed= a whole number below 2^64, found `%s`", text);
  KWM_CHECK(!words->seeded, KWM_ERR_USAGE, "verify: wanted one seed, found two");
  words->seeded = true;
  return KWM_OK;
}

static kwm_status read_words(struct words *words, int argc, char **argv) {
  *words = (struct words){.seed = 1};
  for (int i = 0; i < argc; i++) {
    if (strcmp(argv[i], "--json") == 0) {
      KWM_CHECK(i + 1 < argc && argv[i + 1][0] != '\0', KWM_ERR_USAGE,
                "verify: wanted a file after --json, found the end");
      KWM_CHECK(words->json == NULL, KWM_ERR_USAGE, "verify: wanted one --json, found two");
      words->json = argv[++i];
    } else if (strncmp(argv[i], "seed=", 5) == 0) {
      KWM_TRY(read_seed(words, argv[i] + 5));
    } else {
      return KWM_RAISE(KWM_ERR_USAGE, "verify: wanted --json FILE or seed=N, found `%s`", argv[i]);
    }
  }
  return KWM_OK;
}

static const char *sign_of(enum kwm_claim_relation relation) {
  return relation == KWM_AT_MOST ? "<=" : relation == KWM_AT_LEAST ? ">=" : "=";
}

static void print_line(const struct kwm_finding *finding) {
  const struct kwm_claim *const claim = finding->claim;
  char bound[64], spread[32] = "";
  if (claim->relation == KWM_WITHIN)
    snprintf(bound, sizeof bound, "%.4g +- %.2g", finding->bound, claim->tolerance);
  else
    snprintf(bound, sizeof bound, "%.6g", finding->bound);
  if (isfinite(finding->spread)) snprintf(spread, sizeof spread, " (spread %.2g)", finding->spread);
  printf("%-4s %-18s %-11s %9.3g %-2s %-15s %s: %s%s\n", finding->pass ? "pass" : "FAIL", claim->id, claim->equations,
         finding->number, sign_of(claim->relation), bound, claim->statement, claim->computed, spread);
}

enum { FIELDS = 12 };
static void fill_fields(const struct kwm_finding *finding, struct kwm_field fields[FIELDS]) {
  const struct kwm_claim *const claim = finding->claim;
  const double tolerance = claim->relation == KWM_WITHIN ? claim->tolerance : NAN;
  const struct kwm_field list[FIELDS] = {
      {.name = "id", .kind = KWM_FIELD_TEXT, .text = claim->id},
      {.name = "equations", .kind = KWM_FIELD_TEXT, .text = claim->equations},
      {.name = "kind", .kind = KWM_FIELD_TEXT, .text = claim->kind == KWM_CLAIM_TRUE ? "true" : "paper"},
      {.name = "statement", .kind = KWM_FIELD_TEXT, .text = claim->statement},
      {.name = "computed", .kind = KWM_FIELD_TEXT, .text = claim->computed},
      {.name = "number", .kind = KWM_FIELD_NUMBER, .number = finding->number},
      {.name = "relation", .kind = KWM_FIELD_TEXT, .text = sign_of(claim->relation)},
      {.name = "bound", .kind = KWM_FIELD_NUMBER, .number = finding->bound},
      {.name = "tolerance", .kind = KWM_FIELD_NUMBER, .number = tolerance},
      {.name = "spread", .kind = KWM_FIELD_NUMBER, .number = finding->spread},
      {.name = "timed", .kind = KWM_FIELD_FLAG, .integer = finding->timed},
      {.name = "pass", .kind = KWM_FIELD_FLAG, .integer = finding->pass},
  };
  memcpy(fields, list, sizeof list);
}

static kwm_status write_table(const char *path, int n, const struct kwm_finding *findings) {
  const char *const slash = strrchr(path, '/'), *const name = slash != NULL ? slash + 1 : path;
  struct kwm_field *const fields = malloc((size_t)n * FIELDS * sizeof *fields);
  char *const dir = slash != NULL ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
  kwm_status status = KWM_OK;
  if (fields == NULL || dir == NULL) status = KWM_RAISE(KWM_ERR_SYSTEM, "memory: wanted a table of %d lines", n);
  for (int i = 0; i < n && status == KWM_OK; i++) fill_fields(&findings[i], fields + (size_t)i * FIELDS);
  if (status == KWM_OK) status = kwm_report_table(dir, name, n, FIELDS, fields);
  free(fields);
  free(dir);
  return status;
}

/* Rank 0. */
static kwm_status report(const struct words *words, int n, const struct kwm_finding *findings, double seconds) {
  int failed = 0;
  const char *first = "";
  printf("     %-18s %-11s %9s    %-15s claim: what was computed\n", "id", "equations", "number", "bound");
  for (int i = 0; i < n; i++) {
    print_line(&findings[i]);
    if (!findings[i].pass && failed++ == 0) first = findings[i].claim->id;
  }
  printf("%d claims, %d failed, %.1f seconds\n", n, failed, seconds);
  fflush(stdout);
  if (words->json != NULL) KWM_TRY(write_table(words->json, n, findings));
  KWM_CHECK(failed == 0, KWM_ERR_NUMERIC, "verify: wanted %d claims to hold, found %d that fail, the first %s", n,
            failed, first);
  return KWM_OK;
}

kwm_status kwm_command_verify(int argc, char **argv) {
  struct words words;
  struct kwm_layout world;
  const double start = kwm_par_seconds();
  kwm_par_world(&world);
  KWM_TRY(read_words(&words, argc, argv));
  const int n = kwm_theory_count(true);
  const struct kwm_theory_spec spec = {.seed = words.seed, .fault = KWM_FAULT_NONE, .timed = true};
  struct kwm_finding *const findings = calloc((size_t)n, sizeof *findings);
  kwm_status status = KWM_OK;
  if (findings == NULL) status = KWM_RAISE(KWM_ERR_SYSTEM, "memory: wanted a table of %d lines", n);
  status = kwm_agree(world.world, status);
  if (status == KWM_OK) status = kwm_theory_verify(&world, &spec, findings);
  if (status == KWM_OK && world.rank == 0) status = report(&words, n, findings, kwm_par_seconds() - start);
  free(findings);
  return kwm_agree(world.world, status);
}
