/* A sum over devices that meet in rooms (kwm/device_rooms.h). Block b of every device takes piece b of each share and
   waits for block b of the others only, so no grid is waited for; all blocks are on a device at once. What others wrote
   is read past the first cache, which does not know of it. */
#include "cuda_map.cuh"

static constexpr int ROOM_THREADS = 512;

/* Where a piece of a share of `vectors` begins. */
static __device__ inline int64_t piece(int64_t vectors, unsigned line) {
  return vectors * line / gridDim.x;
}

static __device__ inline float4 *vectors_at(const struct kwm_device_rooms &rooms, int place, int64_t at) {
  return (float4 *)(rooms.at[place] + at);
}

static __device__ inline unsigned *word_of(const struct kwm_device_rooms &rooms, int room, int place, int of_sums) {
  return (unsigned *)(rooms.at[room] + kwm_room_words(&rooms, place, of_sums)) + blockIdx.x;
}

static __device__ inline unsigned read_word(const unsigned *word) {
  unsigned value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}

static __device__ inline void write_word(unsigned *word, unsigned value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" : : "l"(word), "r"(value) : "memory");
}

/* Tells the others that this block's part is whole, one thread a device, and waits for theirs. */
static __device__ inline void meet(const struct kwm_device_rooms &rooms, int of_sums) {
  const int place = (int)threadIdx.x;
  __syncthreads();
  if (place < rooms.size && place != rooms.rank) {
    const unsigned *const told = word_of(rooms, rooms.rank, place, of_sums);
    write_word(word_of(rooms, place, rooms.rank, of_sums), rooms.turn);
    while ((int)(read_word(told) - rooms.turn) < 0) continue;
  }
  __syncthreads();
}

static __device__ inline uint64_t nanoseconds(void) {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

/* The time of the first block stands for all. */
static __device__ inline void count_time(const struct kwm_device_rooms &rooms, uint64_t begun) {
  if (blockIdx.x == 0 && threadIdx.x == 0) *rooms.seconds += 1e-9 * (double)(nanoseconds() - begun);
}

static __device__ inline float4 operator+(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* The tree over all places' terms of vector k. */
template <int SIZE> static __device__ inline float4 tree_sum(const float4 *const *terms, int64_t k) {
  float4 sums[SIZE];
#pragma unroll
  for (int p = 0; p < SIZE; p++) sums[p] = __ldcg(terms[p] + k);
#pragma unroll
  for (int half = 1; half < SIZE; half *= 2)
#pragma unroll
    for (int p = 0; p < SIZE; p += 2 * half) sums[p] = sums[p] + sums[p + half];
  return sums[0];
}

/* vectors: of all values. */
template <int SIZE>
static __global__ void __launch_bounds__(ROOM_THREADS)
    sum_rooms(const struct kwm_device_rooms rooms, int64_t vectors, int64_t share, float4 *values) {
  const int me = rooms.rank;
  const uint64_t begun = nanoseconds();
  const int64_t first = piece(share, blockIdx.x), last = piece(share, blockIdx.x + 1);
  for (int k = 1; k < SIZE; k++) {
    const int p = me ^ k;
    const int64_t end = min(last, vectors - p * share);
    float4 *const to = vectors_at(rooms, p, kwm_room_term(&rooms, me));
    for (int64_t i = first + threadIdx.x; i < end; i += ROOM_THREADS) to[i] = values[p * share + i];
  }
  meet(rooms, 0);
  const float4 *terms[SIZE];
  float4 *sums[SIZE];
#pragma unroll
  for (int p = 0; p < SIZE; p++) {
    terms[p] = p == me ? values + me * share : vectors_at(rooms, me, kwm_room_term(&rooms, p));
    sums[p] = p == me ? values + me * share : vectors_at(rooms, p, kwm_room_sum(&rooms, me));
  }
  for (int64_t i = first + threadIdx.x; i < min(last, vectors - me * share); i += ROOM_THREADS) {
    const float4 sum = tree_sum<SIZE>(terms, i);
#pragma unroll
    for (int p = 0; p < SIZE; p++) sums[p][i] = sum;
  }
  meet(rooms, 1);
  for (int k = 1; k < SIZE; k++) {
    const int p = me ^ k;
    const int64_t end = min(last, vectors - p * share);
    const float4 *const from = vectors_at(rooms, me, kwm_room_sum(&rooms, p));
    for (int64_t i = first + threadIdx.x; i < end; i += ROOM_THREADS) values[p * share + i] = __ldcg(from + i);
  }
  count_time(rooms, begun);
}

/* Two devices give each other all of their terms, as many bytes as shares and sums have, and meet once. */
static __global__ void __launch_bounds__(ROOM_THREADS)
    sum_two(const struct kwm_device_rooms rooms, int64_t vectors, float4 *values) {
  const uint64_t begun = nanoseconds();
  const int64_t first = piece(vectors, blockIdx.x) + threadIdx.x, last = piece(vectors, blockIdx.x + 1);
  float4 *const to = vectors_at(rooms, 1 - rooms.rank, kwm_room_term(&rooms, 0));
  const float4 *const from = vectors_at(rooms, rooms.rank, kwm_room_term(&rooms, 0));
#pragma unroll 4
  for (int64_t i = first; i < last; i += ROOM_THREADS) to[i] = values[i];
  meet(rooms, 0);
#pragma unroll 4
  for (int64_t i = first; i < last; i += ROOM_THREADS) values[i] = values[i] + __ldcg(from + i);
  count_time(rooms, begun);
}

void cuda_sum_rooms(const struct kwm_device_rooms *rooms, int64_t n, float *values, cudaStream_t stream) {
  const int64_t share = kwm_room_share(n, rooms->size) / 4;
  float4 *const vectors = (float4 *)values;
  if (rooms->size == 2) sum_two<<<KWM_ROOM_LINES, ROOM_THREADS, 0, stream>>>(*rooms, n / 4, vectors);
  if (rooms->size == 4) sum_rooms<4><<<KWM_ROOM_LINES, ROOM_THREADS, 0, stream>>>(*rooms, n / 4, share, vectors);
  if (rooms->size == 8) sum_rooms<8><<<KWM_ROOM_LINES, ROOM_THREADS, 0, stream>>>(*rooms, n / 4, share, vectors);
}
