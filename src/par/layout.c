/* The grid replica x stage x owner: rank = (replica * stages + stage) * owners + owner. */
#include "kwm/par.h"

#include <string.h>

static kwm_status check_side(const char *name, int64_t value) {
  const int64_t largest = 1 << 20; /* keeps the product of three far from overflow */
  KWM_CHECK(value >= 1 && value <= largest, KWM_ERR_USAGE, "layout: wanted %s 1 to %lld, found %lld", name,
            (long long)largest, (long long)value);
  return KWM_OK;
}

static kwm_status check_grid(int size, int64_t replicas, int64_t stages, int64_t owners) {
  KWM_TRY(check_side("replicas", replicas));
  KWM_TRY(check_side("stages", stages));
  KWM_TRY(check_side("owners", owners));
  KWM_CHECK((replicas & (replicas - 1)) == 0, KWM_ERR_USAGE, "layout: wanted replicas a power of two, found %lld",
            (long long)replicas);
  const int64_t needed = replicas * stages * owners;
  KWM_CHECK(needed == size, KWM_ERR_USAGE,
            "layout: replicas %lld x stages %lld x owners %lld needs %lld ranks, found %d", (long long)replicas,
            (long long)stages, (long long)owners, (long long)needed, size);
  return KWM_OK;
}

kwm_status kwm_layout_init(struct kwm_layout *layout, int64_t replicas, int64_t stages, int64_t owners) {
  *layout = (struct kwm_layout){
      .world = MPI_COMM_NULL, .group = MPI_COMM_NULL, .peers = MPI_COMM_NULL, .mates = MPI_COMM_NULL};
  MPI_Comm_rank(MPI_COMM_WORLD, &layout->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &layout->size);
  KWM_TRY(kwm_agree(MPI_COMM_WORLD, check_grid(layout->size, replicas, stages, owners)));
  layout->replicas = kwm_int(replicas);
  layout->stages = kwm_int(stages);
  layout->owners = kwm_int(owners);
  const int group_size = layout->stages * layout->owners, group_rank = layout->rank % group_size;
  layout->replica = layout->rank / group_size;
  layout->stage = group_rank / layout->owners;
  layout->owner = group_rank % layout->owners;
  MPI_Comm_dup(MPI_COMM_WORLD, &layout->world);
  MPI_Comm_split(layout->world, layout->replica, group_rank, &layout->group);
  MPI_Comm_split(layout->world, group_rank, layout->replica, &layout->peers);
  MPI_Comm_split(layout->group, layout->stage, layout->owner, &layout->mates);
  return KWM_OK;
}

static void free_comm(MPI_Comm *comm) {
  if (*comm != MPI_COMM_NULL) MPI_Comm_free(comm);
}

void kwm_layout_fini(struct kwm_layout *layout) {
  free_comm(&layout->mates);
  free_comm(&layout->peers);
  free_comm(&layout->group);
  free_comm(&layout->world);
}

void kwm_par_world(struct kwm_layout *layout) {
  memset(layout, 0, sizeof *layout);
  layout->world = MPI_COMM_WORLD;
  MPI_Comm_rank(MPI_COMM_WORLD, &layout->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &layout->size);
}
