/* The keys of the configuration: a new one is one line in kwm_keys (and its member in kwm/config.h). The member gives
   path and type; parsing, checks, overrides, help and the resolved echo follow from the row (config_schema.c). */
#include "config_schema.h"

#define KIND(member)                                                                                                   \
  _Generic(((struct kwm_config *)NULL)->member,                                                                        \
      char *: KWM_KIND_TEXT,                                                                                           \
      uint64_t: KWM_KIND_SEED,                                                                                         \
      int64_t: KWM_KIND_INTEGER,                                                                                       \
      double: KWM_KIND_NUMBER,                                                                                         \
      bool: KWM_KIND_SWITCH)
#define KEY(member, initial, range, help)                                                                              \
  { #member, KIND(member), offsetof(struct kwm_config, member), initial, range, help }

#define ANY(words)                                                                                                     \
  { .text = words, .rule = KWM_RANGE_FREE }
#define ONE_OF(words)                                                                                                  \
  { .text = words, .rule = KWM_RANGE_WORDS }
#define CLOSED(low, high)                                                                                              \
  { .text = #low " to " #high, .rule = KWM_RANGE_CLOSED, .min = low, .max = high }
#define ABOVE(low, high)                                                                                               \
  { .text = "above " #low ", up to " #high, .rule = KWM_RANGE_ABOVE, .min = low, .max = high }
#define BELOW(low, high)                                                                                               \
  { .text = #low " to below " #high, .rule = KWM_RANGE_BELOW, .min = low, .max = high }
#define INSIDE(low, high)                                                                                              \
  { .text = "above " #low " and below " #high, .rule = KWM_RANGE_INSIDE, .min = low, .max = high }
#define MULTIPLE(of, low, high)                                                                                        \
  {                                                                                                                    \
    .text = "a multiple of " #of ", " #low " to " #high, .rule = KWM_RANGE_CLOSED, .min = low, .max = high,            \
    .multiple = of                                                                                                     \
  }
#define POWER_OF_TWO(low, high)                                                                                        \
  {                                                                                                                    \
    .text = "a power of two, " #low " to " #high, .rule = KWM_RANGE_CLOSED, .min = low, .max = high,                   \
    .power_of_two = true                                                                                               \
  }

/* clang-format off */
const struct kwm_key kwm_keys[] = {
  KEY(seed, "1", ANY("0 to 18446744073709551615"), "keys every random draw"),
  KEY(output, "", ANY("text"), "run directory"),
  KEY(backend, "cpu", ONE_OF("cpu, cuda, shadow"), "where training runs; shadow: plain loops that play a device, for tests"),
  KEY(precision, "float", ONE_OF("float, tf32, bfloat16"), "cuda: inputs of matrix products; tf32 keeps 10 bits of mantissa, bfloat16 in a transformer's read-out 7"),
  KEY(learner, "kalman", ONE_OF("kalman, sgd, adam, kfac, ewc, si"), "how parameters are corrected"),
  KEY(sensitivity, "forward", ONE_OF("forward, stage, adjoint"), "how the Jacobian is obtained"),
  KEY(reproducible, "true", ANY("true, false"), "sums in a fixed order; all backends always do"),
  KEY(data.path, "", ANY("text"), "folder with the four IDX files, plain or .gz; transformer: with the texts"),
  KEY(data.train, "", ANY("text"), "transformer: file of the training text; default: found by name in data.path"),
  KEY(data.valid, "", ANY("text"), "transformer: file of the validation text, likewise"),
  KEY(data.test, "", ANY("text"), "transformer: file of the test text, likewise"),
  KEY(data.permute, "false", ANY("true, false"), "pixels in one fixed random order"),
  KEY(data.validation, "0", CLOSED(0, 1000000000), "samples held out from the end of the training file, 0: none"),
  KEY(data.shift, "0", CLOSED(0, 8), "augmentation: training images are moved at random, by up to so many pixels each way"),
  KEY(stream.kind, "none", ONE_OF("none, permuted, rotated, split, list"), "a stream of tasks made from the data"),
  KEY(stream.tasks, "10", CLOSED(1, 1000), "tasks, one after the other"),
  KEY(stream.seed, "1", CLOSED(0, 1e9), "keys the tasks' permutations"),
  KEY(stream.samples, "0", CLOSED(0, 1000000000), "training samples of each task, 0: all"),
  KEY(stream.angle, "180", CLOSED(-3600, 3600), "rotated: degrees from the first task to the last"),
  KEY(stream.relabel, "true", ANY("true, false"), "split: labels count within the task"),
  KEY(stream.paths, "", ANY("text"), "list: folders, one a task, separated by commas"),
  KEY(stream.boundaries, "unknown", ONE_OF("unknown, known, blended"), "known: the learner is told; blended: there are none"),
  KEY(stream.blend, "0.5", CLOSED(0, 1), "blended: share of a task over which it gives way to the next"),
  KEY(change.threshold, "0", CLOSED(0, 1e6), "alarm level of the innovations' cumulative sum, deviations; 0: off"),
  KEY(change.slack, "1", CLOSED(0, 100), "deviations that the cumulative sum lets pass"),
  KEY(change.reaction, "none", ONE_OF("none, inflate"), "what an alarm does to the covariance"),
  KEY(change.inflation, "10", ABOVE(1, 1e9), "inflate: factor on P, which never exceeds the prior's"),
  KEY(model.kind, "gated", ONE_OF("gated, dense, transformer, statespace, koopman"), "gated: recurrence over the pixels; dense: all pixels at once; transformer: language; statespace, koopman: time series"),
  KEY(model.widths, "256 256", ANY("text"), "dense: units of the hidden layers"),
  KEY(model.width, "256", MULTIPLE(16, 16, 65536), "recurrent complex units; transformer: columns of the residual stream"),
  KEY(model.hidden, "256", CLOSED(1, 65536), "read-out hidden units"),
  KEY(model.layers, "6", CLOSED(1, 64), "transformer: layers"),
  KEY(model.heads, "8", CLOSED(1, 1024), "transformer: heads of the attention"),
  KEY(model.context, "128", CLOSED(1, 65536), "transformer: tokens of a sequence"),
  KEY(model.ratio, "4", CLOSED(1, 64), "transformer: feed-forward units per column"),
  KEY(model.readouts, "3", CLOSED(1, 16), "transformer, sensitivity stage: stages with a reading of their own"),
  KEY(model.dropout, "0", BELOW(0, 1), "share of hidden units dropped in training"),
  KEY(model.dropout_readout, "0", BELOW(0, 1), "transformer: share dropped of what a stage reads its prediction from"),
  KEY(model.dropout_embedding, "0", BELOW(0, 1), "transformer: share dropped of the embedded tokens in training"),
  KEY(model.decay_min, "0.98", INSIDE(0, 1), "smallest initial decay of a unit"),
  KEY(model.decay_max, "0.9995", INSIDE(0, 1), "largest initial decay of a unit"),
  KEY(model.phase_max, "1.0471975511965976", CLOSED(0, 3.141592653589793), "largest initial phase of a unit, radians"),
  KEY(model.observation, "categorical", ONE_OF("categorical, gaussian"), "likelihood of the outputs; gaussian: one-hot targets"),
  KEY(model.noise_variance, "0.1", ABOVE(0, 1e6), "gaussian: innovation noise variance R of every output"),
  KEY(train.epochs, "1", CLOSED(1, 1000000), "passes over the training data"),
  KEY(train.max_steps, "0", CLOSED(0, 1000000000000), "stop after this many steps, 0: no limit"),
  KEY(train.batch, "100", CLOSED(1, 1000000), "samples per step"),
  KEY(train.schedule, "cosine", ONE_OF("cosine, constant"), "learning rate of the baselines over the run; transformer: process noise too"),
  KEY(train.warmup, "200", CLOSED(0, 1000000000), "transformer: steps over which rate or process noise rise"),
  KEY(train.copy_every, "1", CLOSED(1, 1000000), "transformer: steps between copies of the embedding for all but the last stage's reading, 1: as it is"),
  KEY(train.floor, "0.05", CLOSED(0, 1), "transformer: what the cosine leaves of them at the end"),
  KEY(train.average, "0", BELOW(0, 1), "transformer: rate of the running mean of the means, which is then evaluated; 0: none"),
  KEY(train.chunks, "4", POWER_OF_TWO(1, 64), "parts of a batch, summed in a fixed tree"),
  KEY(layout.stages, "2", CLOSED(1, 64), "pipeline stages"),
  KEY(layout.owners, "1", CLOSED(1, 65536), "ranks that share a stage's covariance"),
  KEY(layout.replicas, "1", POWER_OF_TWO(1, 64), "groups of ranks that share a batch"),
  KEY(layout.memory_gb, "0", CLOSED(0, 1e6), "memory that a rank may take, 1e9 bytes; 0: its share of what its host has"),
  KEY(filter.evidence, "exact", ONE_OF("exact, sampled, innovations"), "Fisher information of the outputs, one draw of it a sample (dense), or squared scores (transformer)"),
  KEY(filter.riccati, "steady", ONE_OF("steady, recursive"), "transformer: variances at their fixed point for the moment's information, or recursive"),
  KEY(filter.smoothing, "0.9", BELOW(0, 1), "transformer: what is kept of the running score in a step"),
  KEY(filter.evidence_rate, "0.02", ABOVE(0, 1), "transformer: rate of the running information"),
  KEY(filter.factor_rate, "0.05", ABOVE(0, 1), "transformer: rate of the eigenbases' factors"),
  KEY(filter.factor_every, "1", CLOSED(1, 1000000), "transformer: steps between observations of the factors"),
  KEY(filter.stage_noise, "1", CLOSED(0, 100), "transformer: root of the process noise of stages before the last, share of the last one's"),
  KEY(filter.pull, "0.01", CLOSED(0, 1000), "transformer: the mean decays by this times the root of q a step"),
  KEY(filter.gain_factor, "1", ABOVE(0, 100), "innovation noise is counted 1/gain_factor times"),
  KEY(filter.trust_region, "0.003", CLOSED(0, 1e6), "bound on a step's predicted KL per sample and group, 0: none"),
  KEY(filter.trust_expected, "0", CLOSED(0, 1e6), "the same in units of that KL's own expectation under the model, 0: none"),
  KEY(filter.line_search, "false", ANY("true, false"), "step length from one more forward pass of the mini-batch"),
  KEY(filter.process_noise, "0", CLOSED(0, 1), "share of the prior variance added per step"),
  KEY(filter.adapt_process, "0", BELOW(0, 1), "rate at which each group's process noise follows the innovations, 0: fixed"),
  KEY(filter.adapt_noise, "0", BELOW(0, 1), "rate at which the innovation noise's scale does (one S for all groups), 0: fixed"),
  KEY(filter.score_test, "false", ANY("true, false"), "successive-score test: is the process noise right"),
  KEY(filter.forgetting, "1", ABOVE(0, 1), "stabilised forgetting towards the prior, 1: none"),
  KEY(filter.gate, "0", CLOSED(0, 1e6), "skip a step whose mean surprisal exceeds this many nats, 0: never"),
  KEY(filter.max_skips, "10", CLOSED(1, 1000000000), "skipped steps in a row that stop the run"),
  KEY(cov.joint, "none", ONE_OF("none, full"), "full: one exact covariance of all parameters, over all ranks"),
  KEY(cov.joint_real, "double", ONE_OF("double, float"), "full: numbers that it is kept in; float: a square root, half the memory"),
  KEY(cov.recurrence.structure, "block", ONE_OF("block, diag, lowrank"), "block: one dense matrix per unit"),
  KEY(cov.recurrence.form, "information", ONE_OF("information, innovation"), "form of the update"),
  KEY(cov.recurrence.real, "double", ONE_OF("double, float"), "numbers that the covariance is kept in"),
  KEY(cov.recurrence.prior, "30", ABOVE(0, 1e6), "factor on the built-in prior variances"),
  KEY(cov.recurrence.rank, "16", CLOSED(1, 1000000), "lowrank: columns kept"),
  KEY(cov.recurrence.kind, "precision", ONE_OF("precision, covariance, subspace, diagonal"), "lowrank: what is low-rank, or confined to a subspace"),
  KEY(cov.hidden.structure, "kron", ONE_OF("kron, block, diag, lowrank"), "kron: diagonal in a Kronecker eigenbasis; block: one dense matrix"),
  KEY(cov.hidden.form, "information", ONE_OF("information, innovation"), "form of the update"),
  KEY(cov.hidden.real, "float", ONE_OF("double, float"), "numbers that the covariance is kept in"),
  KEY(cov.hidden.prior, "3", ABOVE(0, 1e9), "prior precision of every weight"),
  KEY(cov.hidden.refresh, "100", CLOSED(1, 1000000000), "kron: steps between refreshes of the eigenbasis"),
  KEY(cov.hidden.exact, "0", CLOSED(0, 1000000), "kron of a transformer: every so many refreshes an exact one, 0: the first ones"),
  KEY(cov.hidden.rank, "16", CLOSED(1, 1000000), "lowrank: columns kept"),
  KEY(cov.hidden.kind, "precision", ONE_OF("precision, covariance, subspace, diagonal"), "lowrank: what is low-rank, or confined to a subspace"),
  KEY(cov.output.structure, "kron", ONE_OF("kron, block, diag, lowrank"), "kron: diagonal in a Kronecker eigenbasis; block: one dense matrix"),
  KEY(cov.output.form, "information", ONE_OF("information, innovation"), "form of the update"),
  KEY(cov.output.real, "float", ONE_OF("double, float"), "numbers that the covariance is kept in"),
  KEY(cov.output.prior, "3", ABOVE(0, 1e9), "prior precision of every weight"),
  KEY(cov.output.refresh, "100", CLOSED(1, 1000000000), "kron: steps between refreshes of the eigenbasis"),
  KEY(cov.output.exact, "0", CLOSED(0, 1000000), "kron of a transformer: every so many refreshes an exact one, 0: the first ones"),
  KEY(cov.output.rank, "16", CLOSED(1, 1000000), "lowrank: columns kept"),
  KEY(cov.output.kind, "precision", ONE_OF("precision, covariance, subspace, diagonal"), "lowrank: what is low-rank, or confined to a subspace"),
  KEY(sgd.rate, "0.01", ABOVE(0, 100), "learning rate"),
  KEY(sgd.momentum, "0.9", BELOW(0, 1), "momentum"),
  KEY(adam.rate, "0.003", ABOVE(0, 100), "learning rate"),
  KEY(adam.beta1, "0.9", BELOW(0, 1), "decay of the mean of gradients"),
  KEY(adam.beta2, "0.99", BELOW(0, 1), "decay of the mean of squared gradients"),
  KEY(adam.epsilon, "1e-8", ABOVE(0, 1), "added to the root of the mean square"),
  KEY(adam.decay, "0.01", CLOSED(0, 100), "transformer: weights decay by this times the rate"),
  KEY(adam.clip, "1", CLOSED(0, 1e12), "transformer: bound on the norm of the mean gradient, 0: none"),
  KEY(kfac.rate, "0.003", ABOVE(0, 100), "learning rate"),
  KEY(kfac.damping, "0.01", ABOVE(0, 1e6), "added to the factors' product"),
  KEY(kfac.decay, "0.97", BELOW(0, 1), "decay of the factors' means"),
  KEY(kfac.refresh, "20", CLOSED(1, 1000000000), "steps between inverses"),
  KEY(ewc.strength, "30", CLOSED(0, 1e12), "weight of the penalty, per sample"),
  KEY(ewc.decay, "1", ABOVE(0, 1), "what is kept of the Fisher information at a boundary"),
  KEY(si.strength, "0.1", CLOSED(0, 1e12), "weight of the penalty"),
  KEY(si.damping, "0.1", ABOVE(0, 1e6), "added to the squared way in the importance"),
  KEY(system.kind, "none", ONE_OF("none, oscillator, slow, duffing, vanderpol, lorenz63, pendulum, lorenz96"), "a series made by the program"),
  KEY(system.size, "40", CLOSED(4, 100000), "lorenz96: states"),
  KEY(system.steps, "5000", CLOSED(10, 1000000000), "steps of the series"),
  KEY(system.episode, "0", CLOSED(0, 1000000000), "steps of a trajectory, 0: one long one"),
  KEY(system.first, "0", CLOSED(0, 100000), "first state that is an output"),
  KEY(system.observed, "0", CLOSED(0, 100000), "outputs, 0: all states from the first one on"),
  KEY(system.dt, "0", CLOSED(0, 1e6), "time of a step, 0: the system's own"),
  KEY(system.process_noise, "-1", CLOSED(-1, 1e6), "deviation of a state's noise a step in units of its size, -1: the system's own"),
  KEY(system.observation_noise, "0.05", CLOSED(0, 1e6), "deviation of an output's noise in units of its spread"),
  KEY(system.missing, "0", BELOW(0, 1), "share of outputs that are not there"),
  KEY(system.jump, "0", BELOW(0, 1), "the first parameter jumps after this share of the steps, 0: never"),
  KEY(system.jump_factor, "1.5", CLOSED(-1e6, 1e6), "by this factor"),
  KEY(series.path, "", ANY("text"), "a series of your own: CSV with a header, or HDF5 (.h5)"),
  KEY(series.outputs, "", ANY("text"), "columns or datasets by commas; empty: all columns left, dataset y"),
  KEY(series.inputs, "", ANY("text"), "columns or datasets by commas"),
  KEY(series.time, "", ANY("text"), "column or dataset of times, which must be equally spaced"),
  KEY(series.episode, "", ANY("text"), "column or dataset whose value changes where a trajectory begins"),
  KEY(series.train, "0.6", INSIDE(0, 1), "share of the steps that is learned from"),
  KEY(series.valid, "0.1", BELOW(0, 1), "share behind it for validation; the rest is the test part"),
  KEY(world.states, "0", CLOSED(0, 10000), "statespace: latent states, 0: as many as outputs"),
  KEY(world.transition, "polynomial", ONE_OF("linear, polynomial, mlp"), "statespace: what the change of the state is made of"),
  KEY(world.degree, "3", CLOSED(1, 15), "largest degree of monomials; koopman: of the window"),
  KEY(world.hidden, "16", CLOSED(1, 10000), "mlp: hidden units"),
  KEY(world.readout, "identity", ONE_OF("identity, linear"), "statespace: outputs are the first states, or linear in the state"),
  KEY(world.method, "joint", ONE_OF("joint, unscented, dual"), "statespace: the filter of state and parameters"),
  KEY(world.iterations, "1", CLOSED(1, 100), "joint: Gauss-Newton steps of an update"),
  KEY(world.prior, "0.5", ABOVE(0, 1e6), "statespace: prior deviation of parameters"),
  KEY(world.walk, "0", CLOSED(0, 1), "share of the prior variance that parameters gain a step"),
  KEY(world.forgetting, "1", ABOVE(0, 1), "parameters' covariance is divided by this a step, up to the prior's"),
  KEY(world.noise, "fit", ONE_OF("fit, adapt, given"), "noises by likelihood over at most 2000 steps; following the innovations; as given"),
  KEY(world.process_noise, "0.03", CLOSED(0, 1e6), "first deviation of a state's noise a step, in units of the outputs' spread"),
  KEY(world.observation_noise, "0.1", ABOVE(0, 1e6), "first deviation of an output's noise, likewise"),
  KEY(world.adapt, "0.005", CLOSED(0, 1), "adapt: lowest rate"),
  KEY(world.gate, "0", CLOSED(0, 1e6), "observations whose squared innovation is beyond this many times what is expected are not used, 0: never"),
  KEY(world.horizon, "20", CLOSED(1, 10000), "steps that are forecast"),
  KEY(world.ar, "5", CLOSED(1, 100), "order of the autoregression to compare with"),
  KEY(world.delays, "0", CLOSED(0, 1000), "koopman: outputs before the last in the window that is lifted"),
  KEY(world.radials, "0", CLOSED(0, 10000), "koopman: radial functions around windows of the training part"),
  KEY(world.stable, "false", ANY("true, false"), "koopman: eigenvalues are kept within the unit circle"),
  KEY(world.online, "false", ANY("true, false"), "statespace: goes on learning in the test part"),
  KEY(world.streams, "1", POWER_OF_TWO(1, 4096), "trajectories that are learned from side by side, over layout.replicas"),
  KEY(checkpoint.every, "0", CLOSED(0, 1000000000000), "steps between checkpoints, 0: at the end of each epoch"),
  KEY(checkpoint.keep, "3", CLOSED(1, 1000), "good checkpoints kept"),
  KEY(checkpoint.keep_every, "0", CLOSED(0, 1000000000000), "checkpoints of these steps' multiples stay besides, 0: none"),
  KEY(failure.not_finite, "skip", ONE_OF("skip, stop"), "a step whose loss is not finite; skip: up to filter.max_skips in a row"),
  KEY(failure.indefinite, "skip", ONE_OF("skip, inflate, stop"), "a step in which S or P is not positive; inflate: P grows by change.inflation"),
  KEY(failure.nis, "0", CLOSED(0, 1e9), "mean NIS of a row of metrics.tsv beyond which the filter diverges, 0: never"),
  KEY(failure.diverging, "warn", ONE_OF("warn, inflate, stop"), "what is then done"),
  KEY(watchdog.seconds, "1800", CLOSED(0, 1e9), "without progress of a rank that end the run with code 76, 0: never"),
  KEY(report.every, "50", CLOSED(1, 1000000000), "steps per row of metrics.tsv"),
  KEY(report.evaluations, "1", CLOSED(1, 1000000), "transformer: passes between evaluations"),
};
/* clang-format on */

const size_t kwm_n_keys = sizeof kwm_keys / sizeof kwm_keys[0];
_Static_assert(sizeof kwm_keys / sizeof kwm_keys[0] <= KWM_MAX_KEYS, "raise KWM_MAX_KEYS");
